"""Ctrl-C and SIGTERM: the first asks the run to finish its step and save, the second stops at once."""

from rlzoo.files.signals import *
from rlzoo.files.signals import __all__ as __all__
