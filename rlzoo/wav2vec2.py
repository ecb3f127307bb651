"""wav2vec 2.0 base with ragged batches: a row's frames feel neither its batch mates nor its padding."""

from rlzoo.speech.wav2vec2 import *
from rlzoo.speech.wav2vec2 import __all__ as __all__
