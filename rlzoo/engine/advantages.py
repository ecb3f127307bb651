"""From scores to advantages, as `train.advantage` says; one place for the engine and for `rlzoo.testing`."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlzoo import functional
from rlzoo.core.algorithm import Normalisation
from rlzoo.errors import ConfigError

History = dict[str, list[float]]
"""Scores of each prompt that were seen last."""


def advantages(
    values: Tensor,
    mode: Normalisation,
    clip: float,
    group: Callable[[], Tensor],
    keys: Callable[[], Tensor],
    history: History,
) -> tuple[Tensor, History]:
    """(N,) scores of all ranks -> (N,) advantages in [-clip, clip], and the statistics with these scores added.

    `group` and `keys` give (N,) int64: each row's prompt in this step, and a hash of its name. Called where the mode
    needs them.
    """
    if mode == "batch":
        values = functional.batch_advantages(values)
    elif mode == "group":
        groups = group()
        if len(groups.unique()) == len(groups):
            raise ConfigError(
                "train.advantage = 'group' with one sample per prompt leaves nothing to compare",
                "set rollout.samples_per_prompt to 2 or more, or train.advantage to 'batch' or 'prompt'",
            )
        values = functional.group_advantages(values, groups)
    elif mode == "prompt":
        names = [f"{key:016x}" for key in keys().tolist()]
        mean, std, history = functional.prompt_statistics(values, names, history)
        values = functional.standardise(values, mean, std)
    return values.clamp(-clip, clip), history
