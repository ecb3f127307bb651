"""Records, options and hooks for a plugin's light `__init__`. Importing this must not import torch."""

from rlzoo.core.specs import *
from rlzoo.core.specs import __all__ as __all__
