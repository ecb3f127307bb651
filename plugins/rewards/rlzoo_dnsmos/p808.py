"""P.808: a log-mel picture of each window through a small CNN (arXiv:2010.15258). Differentiable."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.audio import slaney_mel
from rlzoo_dnsmos.clips import FRAME_HOP, FRAMES, RATE, WINDOW, first_frames
from rlzoo_dnsmos.layers import AT_ONCE, Layers

FFT = 321
HALF = FFT // 2
MELS = 120
SAMPLES = WINDOW - FRAME_HOP
"""Samples of each window; the package leaves the last hop out."""
POWER_FLOOR = 1e-10
TOP_DB = 80.0
_CONVS = (("conv2d_5", True), ("conv2d_6", True), ("conv2d_7", False), ("conv2d_8", True), ("conv2d_9", False))
_DENSE = ("dense_3", "dense_4", "dense_5")


class P808(Layers):
    """(N, T) clips, and row and second at which each window starts -> (W, 1) MOS of each window."""

    def __init__(self, weights: dict[str, Tensor], in_bfloat16: bool = False) -> None:
        super().__init__(weights, in_bfloat16)
        angle = 2 * math.pi / FFT * torch.arange(FFT, dtype=torch.float64)[:, None] * torch.arange(HALF + 1)
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi / FFT * torch.arange(FFT, dtype=torch.float64))
        # 321 = 3 x 107 is a bad size for an FFT: as a matrix product it is faster, and the same on every device.
        self.register_buffer("fourier", (hann[:, None] * torch.cat([angle.cos(), angle.sin()], 1)).float())
        self.register_buffer("mel", slaney_mel(RATE, FFT, MELS))

    def forward(self, clips: Tensor, windows: list[tuple[int, int]]) -> Tensor:
        """(N, T), W windows by row and second -> (W, 1)."""
        power = self.mel_power(clips, *first_frames(windows, clips.device))
        # On a CPU one picture at a time stays in the cache and is twice as fast as a batch of them.
        size = AT_ONCE if clips.is_cuda else 1
        with self.arithmetic(clips.device):
            return torch.cat([self.network(decibels(part)) for part in power.split(size)]).float()

    def mel_power(self, clips: Tensor, row: Tensor, first: Tensor) -> Tensor:
        """(N, T) -> (W, 900, 120). Each frame is analysed once, except where a window's edge cuts through it."""
        grid = F.pad(clips, (HALF, HALF)).unfold(1, FFT, FRAME_HOP)  # frame f is centred on sample 160 f
        power = self._mel(grid)[row[:, None], first[:, None] + torch.arange(FRAMES, device=clips.device)]
        position = torch.arange(FFT, device=clips.device)
        head = self._mel(grid[row, first] * (position >= HALF))  # before the window: zeros
        tail = self._mel(grid[row, first + FRAMES - 1] * (position < SAMPLES - (FRAMES - 1) * FRAME_HOP + HALF))
        return torch.cat([head[:, None], power[:, 1:-1], tail[:, None]], 1)

    def _mel(self, frames: Tensor) -> Tensor:
        spectrum = frames @ self.get_buffer("fourier")
        return (spectrum[..., : HALF + 1].square() + spectrum[..., HALF + 1 :].square()) @ self.get_buffer("mel")

    def network(self, picture: Tensor) -> Tensor:
        """(W, 900, 120) -> (W, 1)."""
        return self.dense(self.convolve(picture[:, None], _CONVS).amax((2, 3)), _DENSE)


def decibels(power: Tensor) -> Tensor:
    """(W, 900, 120) -> decibels below the window's own maximum, at most 80, mapped by (dB + 40) / 40."""
    loudest = power.amax((1, 2), keepdim=True)
    level = 10 * (power.clamp(min=POWER_FLOOR).log10() - loudest.clamp(min=POWER_FLOOR).log10())
    level = torch.maximum(level, level.amax((1, 2), keepdim=True) - TOP_DB)
    return (level + 40) / 40
