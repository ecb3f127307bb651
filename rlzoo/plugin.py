"""What a plugin's light `__init__` imports: records, options, hooks. Importing this must not import torch."""

from rlzoo.core.specs import *
from rlzoo.core.specs import __all__ as __all__
