"""Distill-MOS as a reward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import full_precision, require_rate
from rlzoo.errors import DataError
from rlzoo.parallel import map_rows
from rlzoo_distillmos import DistillMOSOptions, weights
from rlzoo_distillmos.network import WINDOW, DistillMOS

LONGEST_HOP = 16_000
"""Samples between the starts of neighbouring windows, at most."""
BATCH = 32
"""Windows at once on a GPU: 2 GB without a gradient."""


class Window(NamedTuple):
    """A piece of a row: `size` samples from `start`."""

    row: int
    start: int
    size: int

    @property
    def piece(self) -> slice:
        """Its samples in the row."""
        return slice(self.start, self.start + self.size)


def starts(length: int) -> list[int]:
    """First samples of the windows of a clip: as few as cover it in hops of at most 1 s, spread evenly."""
    over = max(0, length - WINDOW)
    hops = math.ceil(over / LONGEST_HOP)
    return [int(index * (1 / hops) * over) for index in range(hops)] + [over]


class DistillMOSReward(Reward[DistillMOSOptions]):
    """Predicted MOS between 1 and 5; of a clip longer than 7.68 s the mean over windows of that length.

    Needs 16 kHz. Raises DataError for an empty clip, and on construction if the weights are missing.
    """

    sample_rate = 16_000

    def __init__(self, options: DistillMOSOptions) -> None:
        super().__init__(options)
        self.network = DistillMOS(weights.published())

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) at 16 kHz -> (N,), differentiable in the waveform."""
        require_rate(samples, self.sample_rate, "distillmos")
        lengths = samples.lengths.tolist()  # the only time that a GPU is waited for
        if min(lengths, default=1) < 1:
            raise DataError(
                "'distillmos' was given an empty clip", "the policy predicts no duration for one of its prompts"
            )
        windows = [
            Window(row, start, min(length, WINDOW)) for row, length in enumerate(lengths) for start in starts(length)
        ]
        order = sorted(range(len(windows)), key=lambda index: windows[index].size)
        with full_precision(samples.data.device):
            if samples.data.is_cuda:
                pieces = cut(samples.data, [windows[index] for index in order], BATCH)
                values = torch.cat([self.network(piece) for piece in pieces])
                values = values[torch.tensor(order, device=values.device).argsort()]
            else:
                # On a CPU a window to a core: padding costs, a batch gains nothing, and no bit depends on batch mates.
                rows = samples.data[[window.row for window in windows]]
                values = map_rows(lambda index, row: self.network(row[:, windows[index].piece]), rows)
        if len(windows) > len(lengths):
            counts = [len(starts(length)) for length in lengths]
            values = torch.stack([part.mean() for part in values.split(counts)])
        return Scores(values)


def cut(data: Tensor, windows: Sequence[Window], size: int) -> Iterator[Tensor]:
    """(N, L) -> batches (W, T) of `size` windows each, zero after the end of a window."""
    plan = torch.tensor(windows, device=data.device)
    for first in range(0, len(windows), size):
        row, start, valid = plan[first : first + size].unbind(1)
        position = torch.arange(max(window.size for window in windows[first : first + size]), device=data.device)
        index = (start[:, None] + position).clamp(max=data.shape[1] - 1)
        yield data.index_select(0, row).gather(1, index).masked_fill(position >= valid[:, None], 0)
