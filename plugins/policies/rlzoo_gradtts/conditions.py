"""Recording conditions, which the voice chooses for every sample as part of what it generates: hiss and colour.

Voices trained on found speech do so, and the sound of a recording is the first thing that a reward for quality teaches.
The corpus of the voice that ships was spoken under one condition, so here the choice is simulated: the chain generates
a condition's numbers with the spectrum, and a rule, no network, applies them to it. They are standard normal, so that
their best denoiser is known: v = 0. (Sampled in few steps they spread less: 0.67 for K = 4.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

HISS, SPREAD = math.log(3e-3), 1.0
"""Logarithm of white noise's standard deviation, of full scale: its mean and its standard deviation."""
COLOUR = (0.6, 0.3, 0.2)
"""Standard deviations, in nepers, of the first cosines over the bands."""
NUMBERS = 1 + len(COLOUR)
"""A condition: hiss, then colours."""
CLEAN = (-3.0, 0.0, 0.0, 0.0)
"""Hardly heard: what a recording without a known condition is taken for."""


def coloured(mel: Tensor, condition: Tensor) -> Tensor:
    """Log-mel spectra (..., M, T) under a condition (..., G)."""
    bands = mel.shape[-2]
    place = (torch.arange(bands, device=mel.device, dtype=mel.dtype) + 0.5) * math.pi / bands
    order = torch.arange(1, NUMBERS, device=mel.device)
    shapes = (order[:, None] * place).cos() * mel.new_tensor(COLOUR)[:, None]
    return mel + (condition[..., 1:, None] * shapes).sum(-2)[..., None]


def hissing(wave: Tensor, condition: Tensor) -> Tensor:
    """Waveforms (..., L) under a condition (..., G); the noise is always the same one, and only its level is chosen."""
    noise = torch.randn(wave.shape[-1], generator=torch.Generator().manual_seed(0))
    return wave + (HISS + SPREAD * condition[..., :1]).exp() * noise.to(wave)
