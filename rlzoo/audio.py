"""Audio files, rates and levels."""

from rlzoo.speech.audio import *
from rlzoo.speech.audio import __all__ as __all__
