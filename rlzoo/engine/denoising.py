"""Micro-batches for losses on finished samples: each row's clean state with its noise and its training times."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rlzoo.core.algorithm import TrainContext
from rlzoo.core.types import DenoisingBatch, Trajectory


def denoising_batches(
    ctx: TrainContext, trajectory: Trajectory, purpose: str, update: int, updates: int, draws: int, rows: Tensor | None
) -> Iterator[DenoisingBatch]:
    """See `TrainContext.denoising_batches`."""
    if rows is None:
        rows = torch.arange(len(trajectory), device=ctx.device)
    for part in range(update * draws, (update + 1) * draws):
        t_N, noise = ctx.draw(trajectory, purpose, part, updates * draws)
        for index in ctx.micro_batches(len(rows)):
            chosen = rows[index]
            states = trajectory.final[chosen], noise[chosen]
            seeds = trajectory.seeds_of(chosen)
            cond, (clean, drawn) = ctx.crop(f"{purpose} {part}", seeds, trajectory.cond[chosen], *states)
            yield DenoisingBatch(chosen, clean, drawn, t_N[chosen], cond)
