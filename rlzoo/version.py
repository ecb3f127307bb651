"""Version of the distribution `rlzoo-speech`."""

__version__ = "0.1.0"
