"""English text to ARPAbet phones, offline: for policies that speak. Importing this loads no torch."""

from rlzoo.speech.text import *
from rlzoo.speech.text import __all__ as __all__
