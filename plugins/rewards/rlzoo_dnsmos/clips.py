"""Windows of the published package: a clip is repeated until it fills one, then one of 9.01 s starts every second."""

from __future__ import annotations

from torch import Tensor

RATE = 16_000
WINDOW_SECONDS = 9.01
WINDOW = 144_160
FRAME_HOP = 160
FRAMES = 900
"""Analysis frames of a window, in both models."""
FRAMES_PER_HOP = RATE // FRAME_HOP
"""Windows start every second, so their frames fall on one common grid."""


def repeated(clip: Tensor) -> Tensor:
    """(L,) -> (L·2^n,), doubled until it fills a window."""
    length = clip.shape[0]
    total = length
    while total < WINDOW:
        total *= 2
    return clip if total == length else clip.repeat(total // length)


def windows(length: int) -> list[int]:
    """Seconds at which the windows of a clip of `length` samples start; `length` >= WINDOW.

    The package computes their ends in floating point and drops a window that comes out one sample short: those that
    start at 7 to 23 s (and few later ones). The same arithmetic here, so that the same windows count.
    """
    count = int(length // RATE - WINDOW_SECONDS) + 1
    ends = [min(length, int((index + WINDOW_SECONDS) * RATE)) for index in range(count)]
    return [index for index, end in enumerate(ends) if end - index * RATE >= WINDOW]
