"""From scores to advantages, as `[train]` says; one place for the engine and for `rlzoo.testing`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from rlzoo import functional
from rlzoo.config.schema import TrainTable
from rlzoo.core.algorithm import Normalisation
from rlzoo.errors import ConfigError

History = dict[str, list[float]]
"""Scores of each prompt that were seen last."""


def advantages(
    terms: Tensor,
    weights: Tensor,
    table: TrainTable,
    mode: Normalisation,
    group: Callable[[], Tensor],
    keys: Callable[[], Tensor],
    history: History,
) -> tuple[Tensor, History]:
    """(R, N) scores of all ranks, (R,) weights -> (N,) advantages in [-clip, clip], and the new statistics.

    R is 1 if the rewards are added up before they are standardised. `group` and `keys` give (N,) int64: each row's
    prompt in this step, and a hash of its name. Called where the mode needs them.
    """
    group, keys = cache(group), cache(keys)
    total = torch.zeros_like(terms[0])
    for index, (values, weight) in enumerate(zip(terms, weights.to(terms), strict=True)):
        total = total + weight * _standardised(values, table, mode, group, keys, history, f"/{index}" if index else "")
    clip = table.advantage_clip
    # Raw scores have no unit that a default bound could be in.
    clip = (float("inf") if mode == "none" else 5.0) if clip is None else clip
    return total.clamp(-clip, clip), history


def _standardised(
    values: Tensor,
    table: TrainTable,
    mode: Normalisation,
    group: Callable[[], Tensor],
    keys: Callable[[], Tensor],
    history: History,
    column: str,
) -> Tensor:
    """One reward's (N,) advantages; enters its scores into `history`."""
    of_batch = values.std(correction=0)
    if mode == "none":
        return values
    if mode == "batch":
        mean, std = values.mean(), of_batch
    elif mode == "group":
        groups = group()
        if len(groups.unique()) == len(groups):
            raise ConfigError(
                "train.advantage = 'group' with one sample per prompt leaves nothing to compare",
                "set rollout.samples_per_prompt to 2 or more, or train.advantage to 'batch' or 'prompt'",
            )
        mean, std = functional.group_statistics(values, groups)
    else:
        names = [f"{key:016x}{column}" for key in keys().tolist()]
        sizes = {"capacity": table.advantage_history, "min_count": table.advantage_min_count}
        mean, std, updated = functional.prompt_statistics(values, names, history, **sizes)
        history.update(updated)
    if table.advantage_std == "none":
        return values - mean
    return functional.standardise(values, mean, of_batch if table.advantage_std == "batch" else std)
