"""SpeechBrain's front end: 80 log-mel bands, each row's mean over time taken out. Differentiable, rows on their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.audio import valid_mask

RATE = 16_000
FFT, HOP = 400, 160
MELS = 80
FLOOR = 1e-10
TOP_DB = 80.0
MIN_SAMPLES = 800
"""Six frames: the widest reflection inside the network needs five."""


def mel_filters() -> Tensor:
    """(201, 80): triangles of height 1 on the mel scale 2595 log10(1 + f / 700), from 0 to 8 kHz.

    Both sides of a triangle are as wide as its left one, which is SpeechBrain's own way.
    """
    top = 2595 * math.log10(1 + RATE / 2 / 700)
    hz = 700 * (10 ** (torch.linspace(0, top, MELS + 2) / 2595) - 1)
    width, centre = (hz[1:] - hz[:-1])[:-1], hz[1:-1]
    distance = (torch.linspace(0, RATE // 2, FFT // 2 + 1)[:, None] - centre).abs()
    return (1 - distance / width).clamp(min=0)


def features(waves: Tensor, lengths: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L), (N,) -> (N, 80, F), (N,) frames. Clips shorter than 50 ms are lengthened with zeros."""
    lengths = lengths.clamp(min=MIN_SAMPLES)
    longest = int(lengths.max())
    waves = F.pad(waves, (0, max(0, longest - waves.shape[-1])))[:, :longest]
    window = torch.hamming_window(FFT, device=waves.device)
    # Beyond a row's end are zeros, which is also what the frame at its end is filled up with when it is alone.
    bins = torch.stft(waves, FFT, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
    power = bins.real.square() + bins.imag.square()
    level = 10 * (filters.T @ power).clamp(min=FLOOR).log10()
    frames = torch.div(lengths, HOP, rounding_mode="floor") + 1
    mask = valid_mask(frames, level.shape[-1])[:, None]
    top = level.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
    level = torch.maximum(level, top - TOP_DB) * mask
    mean = level.sum(2, keepdim=True) / frames[:, None, None]
    return (level - mean) * mask, frames
