"""Weight files: what they are, where they are kept, how they get there."""

from rlzoo.files.assets import *
from rlzoo.files.assets import __all__ as __all__
