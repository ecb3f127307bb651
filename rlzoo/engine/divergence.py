"""Divergence of the policy from the reference, measured for every algorithm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlzoo.core.noise import seed_of
from rlzoo.core.policy import Policy
from rlzoo.core.types import Batch, Schedule

ROWS = 16
"""Number of measured rows of a step, or one per prompt if that is more. All would cost a quarter of a step."""


def rows(prompts: int, repetitions: int, count: int) -> Tensor:
    """Indices of the measured rows among a process's `count` rows: the same number, the first ones, of each prompt."""
    each = max(1, ROWS // prompts)
    return (torch.arange(count) % repetitions < each).nonzero()[:, 0]


def probe(schedule: Schedule, seeds: Sequence[int]) -> tuple[int, ...]:
    """One stochastic step per row, from the row's seed; empty if there is no such step."""
    steps = schedule.stochastic.nonzero()[:, 0].tolist()
    return tuple(steps[seed_of(seed, "kl") % len(steps)] for seed in seeds) if steps else ()


@torch.no_grad()
def measure(
    policy: Policy,
    reference: Policy,
    cond: Batch,
    schedule: Schedule,
    rows: Tensor,
    before: Tensor,
    k: Tensor,
    size: int,
) -> Tensor:
    """(M, 2): KL(policy || reference) in `rows` (M,) at step k (N,) from the states `before` (N, *S).

    In nats per element and in all. Closed form, so it costs two network evaluations per row and no sampling; `size`
    rows at a time.
    """
    measured: list[Tensor] = []
    for index in rows.to(before.device).split(size):
        there = (before[index], k[index], cond[index], schedule)
        ours, theirs = policy.transition(*there), reference.transition(*there)
        measured.append(torch.stack([ours.kl(theirs, "mean"), ours.kl(theirs, "sum")], 1))
    return torch.cat(measured)
