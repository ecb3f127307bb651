"""Training a policy from recordings, before any reinforcement learning. Importing this is free."""
