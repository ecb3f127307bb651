"""Minibatches: transitions of a trajectory that are trained together.

Every process draws the same global order of (row, step) pairs from the shared generator and keeps those of its own
rows; one process and many therefore train on the same minibatches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import torch
from torch import Tensor

from rlzoo.config.schema import TrainTable
from rlzoo.core.policy import Policy
from rlzoo.core.types import Minibatch, Trajectory, Transitions
from rlzoo.engine.windows import transitions
from rlzoo.errors import ConfigError


def select_steps(stochastic: Tensor, rows: int, table: TrainTable, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(K,) bool -> all trained pairs of `rows` rows as (row, k), int64 (P,) both, by row and then by k.

    `fraction` draws each row's steps independently (DDPO); `window` draws one run of consecutive steps for all rows
    (MixGRPO, arXiv:2507.21802).
    """
    steps = stochastic.nonzero()[:, 0]
    count = max(1, round(table.step_fraction * len(steps)))
    if table.step_selection == "all" or count >= len(steps):
        chosen = steps.expand(rows, -1)
    elif table.step_selection == "window":
        first = int(torch.randint(len(steps) - count + 1, (1,), generator=generator))
        chosen = steps[first : first + count].expand(rows, -1)
    else:
        order = torch.rand(rows, len(steps), generator=generator).argsort(1)[:, :count]
        chosen = steps[order.sort(1).values]
    return torch.arange(rows).repeat_interleave(chosen.shape[1]), chosen.reshape(-1)


def minibatches(
    policy: Policy,
    trajectory: Trajectory,
    rows: range,
    table: TrainTable,
    generator: torch.Generator,
    limit: int | None = None,
) -> Iterator[Minibatch]:
    """The gradient updates of one step. `rows` are this process's rows among all; `limit` thins the pairs evenly."""
    if not trajectory.schedule.stochastic.any():
        raise ConfigError(
            "no denoising step of this rollout has a density to train",
            "set rollout.deterministic = false and rollout.num_steps to 2 or more, or choose an algorithm that learns "
            "finished samples, such as nft, awm or rwr",
        )
    row_P, k_P = select_steps(trajectory.schedule.stochastic.cpu(), trajectory.size, table, generator)
    if limit is not None and len(row_P) > limit:
        keep = torch.linspace(0, len(row_P) - 1, limit).long()
        row_P, k_P = row_P[keep], k_P[keep]
    size = table.minibatch or -(-len(row_P) // max(1, table.num_minibatches))
    for _ in range(table.inner_epochs):
        order = torch.randperm(len(row_P), generator=generator)
        for chunk in order.split(size):
            # Sorted, so that the pieces of a row lie together: order inside one gradient sum means nothing.
            pairs = chunk.sort().values
            pairs = pairs[(row_P[pairs] >= rows.start) & (row_P[pairs] < rows.stop)]
            yield Minibatch(_Pieces(policy, trajectory, row_P[pairs] - rows.start, k_P[pairs], table), len(chunk))


class _Pieces(Sequence[Transitions]):
    """Pieces that are cut out of the trajectory when they are used: copies of all states would not fit."""

    def __init__(self, policy: Policy, trajectory: Trajectory, row: Tensor, k: Tensor, table: TrainTable) -> None:
        self._policy, self._trajectory, self._frames = policy, trajectory, table.window_frames
        size, device = table.micro_batch, trajectory.states.device
        row, k = row.to(device), k.to(device)  # at once: a GPU is waited for each time
        self._pairs = list(zip(row.split(size), k.split(size), strict=True)) if len(row) else []

    def __len__(self) -> int:
        return len(self._pairs)

    @overload
    def __getitem__(self, index: int) -> Transitions: ...

    @overload
    def __getitem__(self, index: slice) -> list[Transitions]: ...

    def __getitem__(self, index: int | slice) -> Transitions | list[Transitions]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return transitions(self._policy, self._trajectory, *self._pairs[index], self._frames)
