"""Read a PyTorch checkpoint of somebody else's without running anything that is in it."""

from rlzoo.files.safepickle import *
from rlzoo.files.safepickle import __all__ as __all__
