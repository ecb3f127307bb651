"""Reinforcement learning for speech models that denoise: algorithms, policies and rewards as plugins.

Importing this package imports nothing heavy. See `rlzoo.plugin`, `rlzoo.api`, `rlzoo.functional` and `rlzoo.testing`.
"""

__version__ = "0.1.0"
"""Version of the distribution `rlzoo-speech`."""
