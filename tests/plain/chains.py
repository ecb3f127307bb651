"""The denoising steps and losses of the toys' families, written out from the papers in plain float64 arithmetic.

Nothing here uses rlzoo's own maths: tests compare the two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def ddpm_step(x: Tensor, eps: Tensor, sigma_t: float, sigma_s: float) -> tuple[Tensor, float]:
    """Ho et al. 2020, Eq. 11 and its beta-tilde: mean and std of x_s given x_t and the predicted noise."""
    abar_t, abar_s = 1 - sigma_t**2, 1 - sigma_s**2
    alpha = abar_t / abar_s
    mean = (x - (1 - alpha) / math.sqrt(1 - abar_t) * eps) / math.sqrt(alpha)
    return mean, math.sqrt((1 - abar_s) / (1 - abar_t) * (1 - alpha))


def ddim_step(x: Tensor, eps: Tensor, sigma_t: float, sigma_s: float) -> Tensor:
    """Song et al. 2021, Eq. 12 with eta = 0."""
    abar_t, abar_s = 1 - sigma_t**2, 1 - sigma_s**2
    x0 = (x - math.sqrt(1 - abar_t) * eps) / math.sqrt(abar_t)
    return math.sqrt(abar_s) * x0 + math.sqrt(1 - abar_s) * eps


def flow_step(x: Tensor, v: Tensor, t: float, s: float, sigma: float) -> tuple[Tensor, float]:
    """Flow-GRPO's SDE, an Euler step from t to s < t: drift v + sigma^2 / (2 t) (x + (1 - t) v), sigma sqrt(t - s)."""
    drift = v + sigma**2 / (2 * t) * (x + (1 - t) * v)
    return x + drift * (s - t), sigma * math.sqrt(t - s)


def normal_log_density(x: float, mean: float, std: float) -> float:
    """log N(x; mean, std^2) in nats."""
    return -((x - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)


def mean_log_density(x: Tensor, mean: Tensor, std: float, length: int) -> Tensor:
    """Mean over the first `length` elements of one row's log-density, with a graph through `mean`."""
    terms = [
        -((x[i] - mean[i]) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi) for i in range(length)
    ]
    return torch.stack(terms).sum() / length
