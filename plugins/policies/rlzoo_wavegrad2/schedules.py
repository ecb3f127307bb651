"""Noise schedules as levels l = sqrt(alpha_bar) in float64, cleanest first: l[0] = 1, then K levels down to the noise.

Betas follow from levels, beta_k = 1 - (l_k / l_{k-1})^2, and the other way round. Everything is computed once, in
float64: at the clean end 1 - l^2 is 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlzoo.api import Schedule
from rlzoo.errors import ConfigError

TERMINAL_LEVEL = 0.0814
"""Level at which training ends, sqrt(alpha_bar_1000); a rollout that starts from N(0, 1) must begin near it."""

BETAS: dict[str, tuple[float, ...]] = {
    # Published with maum-ai/wavegrad2 ("fast") and with the public WaveGrad vocoders (tuned for LJSpeech models).
    "maum-8": (1e-6, 2e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 9e-1),
    "wavegrad-6": (1e-6, 1.89287e-5, 1.19432e-4, 1.00475e-3, 1.10943e-2, 0.06),
    "wavegrad-7": (1e-6, 5e-6, 1.8929e-5, 1e-4, 1e-3, 0.0111, 0.06),
    "wavegrad-12": (
        1e-6, 6.93039e-6, 5.3367e-6, 3.69854e-5, 1.70882e-4, 3.9476e-4,
        1.36792e-3, 2.80895e-3, 3.24452e-3, 0.0149905, 0.00865752, 0.06,
    ),
}  # fmt: skip


def levels_of(betas: Tensor) -> Tensor:
    """(K,) betas -> (K+1,) levels, 1 first."""
    return torch.cat([betas.new_ones(1), (1 - betas).cumprod(0).sqrt()])


def training_levels() -> Tensor:
    """(1001,) levels of the published training schedule, betas linspace(1e-6, 0.01, 1000)."""
    return levels_of(torch.linspace(1e-6, 0.01, 1000, dtype=torch.float64))


def placed_levels(num_steps: int, sigma_min: float = 0.03, power: float = 1.0) -> Tensor:
    """(K+1,) levels placed by noise level: even in log-SNR between the terminal level and `sigma_min`.

    `power` > 1 crowds them towards the noisy end, < 1 towards the clean end.
    """
    sigma_max = (1 - TERMINAL_LEVEL**2) ** 0.5
    low, high = (torch.tensor(s, dtype=torch.float64) for s in (sigma_min, sigma_max))

    def half_log_snr(sigma: Tensor) -> Tensor:
        return ((1 - sigma**2) / sigma**2).log() / 2

    start, end = half_log_snr(low), half_log_snr(high)
    where = torch.linspace(0, 1, num_steps, dtype=torch.float64) ** (1 / power) if num_steps > 1 else torch.ones(1)
    snr = start + (end - start) * where
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.sigmoid(2 * snr).sqrt()])


def named_levels(name: str, num_steps: int, tuned: Mapping[str, Sequence[float]]) -> Tensor:
    """Levels of schedule `name` with K = `num_steps`.

    `tuned`: the one found for this voice and K; `auto`: that one, else `placed`; `placed`: even in log-SNR; `linear`:
    betas linspace(1e-6, 0.01, 1000) subsampled to K levels; or a name of `BETAS`.

    Raises:
        ConfigError: no such name, a fixed schedule with another K, or no tuned one for this K.
    """
    found = tuned.get(str(num_steps))
    if name in ("auto", "tuned") and found is not None:
        return torch.tensor([1.0, *found], dtype=torch.float64)
    if name == "tuned":
        have = f"this voice has {', '.join(tuned)}" if tuned else "this voice has none"
        hint = f"{have}; find one with `rlzoo tune-schedule --steps {num_steps}`, or set schedule='auto'"
        raise ConfigError(f"no schedule was tuned for {num_steps} steps", hint)
    if name in ("auto", "placed"):
        return placed_levels(num_steps)
    if name == "linear":
        index = torch.linspace(1000 / num_steps, 1000, num_steps, dtype=torch.float64).round().long()
        return torch.cat([torch.ones(1, dtype=torch.float64), training_levels()[index]])
    if name in BETAS:
        if num_steps != len(BETAS[name]):
            raise ConfigError(
                f"schedule '{name}' has {len(BETAS[name])} steps, not {num_steps}",
                f"set num_steps={len(BETAS[name])}, or schedule='placed', which takes any number",
            )
        return levels_of(torch.tensor(BETAS[name], dtype=torch.float64))
    raise ConfigError(f"unknown schedule '{name}'", f"choose one of auto, tuned, placed, linear, {', '.join(BETAS)}")


def to_schedule(levels: Tensor) -> Schedule:
    """Levels, cleanest first -> times sigma = sqrt(1 - l^2), noisiest first. The last step has no density."""
    times = (1 - levels**2).clamp(min=0).sqrt().flip(0)
    stochastic = torch.ones(len(times) - 1, dtype=torch.bool)
    stochastic[-1] = False
    return Schedule(times, stochastic)
