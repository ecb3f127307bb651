"""Windows of the published package: a clip is repeated until it fills one, then one of 9.01 s starts every second."""

from __future__ import annotations

import torch
from torch import Tensor

RATE = 16_000
WINDOW_SECONDS = 9.01
WINDOW = 144_160
FRAME_HOP = 160
FRAMES = 900
"""Analysis frames of a window, in both models."""
FRAMES_PER_HOP = RATE // FRAME_HOP
"""Windows start every second, so their frames fall on one common grid."""


def filled(length: int) -> int:
    """Samples of a clip of `length` > 0 that was doubled until it fills a window."""
    while length < WINDOW:
        length *= 2
    return length


def repeated(clips: Tensor, lengths: list[int]) -> Tensor:
    """(N, L), of which `lengths` are real -> (N, longest), each row again and again up to the longest filled length."""
    longest = max(filled(length) for length in lengths)
    rows = [clip[:length].repeat(-(-longest // length))[:longest] for clip, length in zip(clips, lengths, strict=True)]
    return torch.stack(rows)


def windows(length: int) -> list[int]:
    """Seconds at which the windows of a clip of `length` samples start; `length` >= WINDOW.

    The package computes their ends in floating point and drops a window that comes out one sample short: those that
    start at 7 to 23 s (and few later ones). The same arithmetic here, so that the same windows count.
    """
    count = int(length // RATE - WINDOW_SECONDS) + 1
    ends = [min(length, int((index + WINDOW_SECONDS) * RATE)) for index in range(count)]
    return [index for index, end in enumerate(ends) if end - index * RATE >= WINDOW]


def first_frames(windows: list[tuple[int, int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and second at which each of W windows starts -> row and first analysis frame, (W,) int64 each."""
    row, second = torch.tensor(windows, device=device).unbind(1)
    return row, second * FRAMES_PER_HOP
