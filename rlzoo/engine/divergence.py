"""How far the policy has moved from the reference, measured whether an algorithm penalises it or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rlzoo._policy import Policy
from rlzoo._types import Schedule, Trajectory
from rlzoo.engine.rollout import seed_of


def probe(schedule: Schedule, seeds: Sequence[int]) -> tuple[int, ...]:
    """One stochastic step per row, from the row's seed; empty where there is no such step."""
    steps = schedule.stochastic.nonzero()[:, 0].tolist()
    return tuple(steps[seed_of(seed, "kl") % len(steps)] for seed in seeds) if steps else ()


@torch.no_grad()
def measure(policy: Policy, reference: Policy, trajectory: Trajectory, before: Tensor, k: Tensor, size: int) -> Tensor:
    """(N, 2): KL(policy || reference) of step k (N,) from the states `before` (N, *S), in nats per element and in all.

    Closed form, so it costs two network evaluations per row and no sampling; `size` rows at a time.
    """
    measured: list[Tensor] = []
    for index in torch.arange(len(trajectory), device=before.device).split(size):
        there = (before[index], k[index], trajectory.cond[index], trajectory.schedule)
        ours, theirs = policy.transition(*there), reference.transition(*there)
        measured.append(torch.stack([ours.kl(theirs, "mean"), ours.kl(theirs, "sum")], 1))
    return torch.cat(measured)
