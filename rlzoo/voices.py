"""Voice files: a policy's weights in safetensors, with a description of them as JSON in the header."""

from rlzoo.files.voices import *
from rlzoo.files.voices import __all__ as __all__
