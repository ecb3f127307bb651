"""Other rewards by name, for rewards that are made of rewards. Public: a plugin may use it instead of the registry."""

from rlzoo.engine.rewards import *
from rlzoo.engine.rewards import __all__ as __all__
