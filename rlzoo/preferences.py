"""Files of preferences: what people, or anything else, said of two samples of one prompt."""

from rlzoo.speech.preferences import *
from rlzoo.speech.preferences import __all__ as __all__
