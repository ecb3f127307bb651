"""Noise levels: the variance-preserving pair (alpha, sigma), and how a network is told its level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEVELS = 32
"""Sines and cosines that tell a denoiser its noise level."""


def alpha_of(sigma: Tensor) -> Tensor:
    """Weight of the signal where the noise has the weight sigma: alpha^2 + sigma^2 = 1."""
    return (1 - sigma**2).sqrt()


def embed_level(sigma: Tensor) -> Tensor:
    """Noise levels (B,) -> (B, 2 LEVELS): sines and cosines of half the logarithm of the noise-to-signal ratio.

    Levels near both ends are apart on that axis.
    """
    place = (sigma.clamp(min=1e-3) / alpha_of(sigma).clamp(min=1e-3)).log()
    rates = torch.exp(torch.arange(LEVELS, device=sigma.device) / LEVELS * math.log(100.0)) / 8
    angles = place[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


def noise_level(uniform: Tensor) -> Tensor:
    """Uniform draws in [0, 1) -> sigma = sin(pi u / 2): the angles of (alpha, sigma) are spread evenly."""
    return (uniform * (math.pi / 2)).sin().clamp(0.01, 0.999)
