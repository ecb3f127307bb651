"""Other rewards by name, for rewards that are made of rewards. Public: a plugin may use it instead of the registry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlzoo.config.registry import discover
from rlzoo.config.resolve import choose
from rlzoo.core.reward import Reward


def build_reward(name: str, options: Mapping[str, Any], where: str = "") -> Reward[Any]:
    """The registered reward `name` with these options, constructed (its weights are read) and on the CPU.

    `where` is the place of the options in the run file, for messages. Raises ConfigError for an unknown name or
    option, PluginError for a broken plugin, DataError for unavailable weights.
    """
    reward: Reward[Any] = choose("reward", name, discover(), options, where or name).build()
    return reward


__all__ = ["build_reward"]
