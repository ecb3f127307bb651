"""Other rewards by name, for rewards that are made of rewards. Public: a plugin may use it instead of the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlzoo.config.registry import discover
from rlzoo.config.resolve import choose
from rlzoo.core.reward import Reward, unsound
from rlzoo.core.types import Prompt, Samples, Scores
from rlzoo.errors import ContractError


def build_reward(name: str, options: Mapping[str, Any], where: str = "") -> Reward[Any]:
    """The registered reward `name` with these options, constructed (its weights are read) and on the CPU.

    `where` is the place of the options in the run file, for messages. Raises ConfigError for an unknown name or
    option, PluginError for a broken plugin, DataError for unavailable weights.
    """
    reward: Reward[Any] = choose("reward", name, discover(), options, where or name).build()
    return reward


def score_with(reward: Reward[Any], name: str, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
    """The scores of N samples and their N prompts, (N,), after a check of their type, shape, device and precision.

    Raises ContractError, which names the reward, for anything but N float32 scores on the samples' device.
    """
    who = f"reward '{name}' (version {reward.version})"
    try:
        scores = reward.score(samples, prompts)
    except Exception as error:
        error.add_note(f"while {who} scored {len(samples)} samples")
        raise
    problem = unsound(scores, samples)
    if problem:
        raise ContractError(f"{who} {problem}", f"run rlzoo plugins check {name}")
    return scores


__all__ = ["build_reward", "score_with"]
