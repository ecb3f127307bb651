"""Audio files, rates and levels. The only module that touches torchaudio."""

from rlzoo.speech.audio import *
from rlzoo.speech.audio import __all__ as __all__
