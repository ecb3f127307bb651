"""A package that loads torch when it is announced, and ships a preset that its options refuse."""

import torch  # noqa: F401

from rlzoo.plugin import Options


class HeavyOptions(Options):
    """Options of the heavy plugin."""

    clip: float = 0.1
    """A number."""
