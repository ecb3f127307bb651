"""Interfaces of plugins: data, policy, algorithm, reward, and the records that announce them."""
