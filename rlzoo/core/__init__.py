"""What plugins are made of: data, policy, algorithm, reward, and the records that announce them."""
