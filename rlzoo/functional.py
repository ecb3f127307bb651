"""Pure tensor maths that several algorithms share; each function has a closed-form test in `tests/test_functional.py`.

Shapes as in `rlzoo.core.types`: N rows, M transitions, S one state's shape. Log-probabilities and KL are in nats.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlzoo.core.noise import draw_noise, generator_of, seed_of
from rlzoo.core.policy import Gaussian, Policy, length_mask, masked_reduce, per_row
from rlzoo.core.specs import Clip
from rlzoo.core.types import Reduction
from rlzoo.errors import ConfigError

Estimator = Literal["k1", "k2", "k3"]
M = TypeVar("M", bound=nn.Module)


# --- padding ---------------------------------------------------------------------------------------------------------


def with_backward(lstm: nn.LSTM) -> nn.LSTM:
    """The LSTM in the mode in which cuDNN has a backward pass for it: training, wherever gradients are kept.

    Without dropout between its layers, which ValueError refuses, both modes are one function.
    """
    if lstm.dropout:
        raise ValueError(f"an LSTM with dropout {lstm.dropout} is another function in training mode")
    return lstm.train(torch.is_grad_enabled())


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """(N, *S), bool (N, *S) -> (N,): mean over the valid elements of each row; None counts all of them."""
    return masked_reduce(x, mask, "mean")


def num_elements(x: Tensor, mask: Tensor | None) -> Tensor:
    """(N, *S), bool (N, *S) or None -> (N,) in x's dtype: how many elements of each row are not padding."""
    if mask is None:
        return torch.full((x.shape[0],), float(math.prod(x.shape[1:])), dtype=x.dtype, device=x.device)
    return mask.expand_as(x).sum(tuple(range(1, x.dim()))).to(x.dtype)


# --- advantages ------------------------------------------------------------------------------------------------------


def standardise(values: Tensor, mean: Tensor, std: Tensor, eps: float = 1e-4) -> Tensor:
    """(N,) scores -> (N,) (values - mean) / (std + eps); mean and std are scalars or (N,)."""
    return (values - mean) / (std + eps)


def group_statistics(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) scores, (N,) int64 group ids -> each row's own group's mean and std, (N,) both.

    Population std: with two samples per group the sample std would shrink every advantage by sqrt(2).
    """
    _, index = torch.unique(group, return_inverse=True)
    size = int(index.max()) + 1 if len(index) else 0
    zeros = torch.zeros(size, dtype=values.dtype, device=values.device)
    count = zeros.index_add(0, index, torch.ones_like(values))
    mean = (zeros.index_add(0, index, values) / count)[index]
    # Two passes: the one-pass variance of scores such as 4.31, 4.32 loses its digits in float32.
    variance = zeros.index_add(0, index, (values - mean) ** 2) / count
    return mean, variance.sqrt()[index]


def group_advantages(values: Tensor, group: Tensor, eps: float = 1e-4) -> Tensor:
    """(N,) scores, (N,) group ids -> (N,) scores standardised inside each group.

    A group whose scores are all equal gets zeros: it carries no preference.
    """
    return standardise(values, *group_statistics(values, group), eps)


def batch_advantages(values: Tensor, eps: float = 1e-4) -> Tensor:
    """(N,) scores -> (N,) scores standardised over all rows."""
    return standardise(values, values.mean(), values.std(correction=0), eps)


def prompt_statistics(
    values: Tensor,
    keys: Sequence[str],
    history: Mapping[str, Sequence[float]],
    *,
    capacity: int = 32,
    min_count: int = 16,
) -> tuple[Tensor, Tensor, dict[str, list[float]]]:
    """Running statistics per prompt (Black et al., arXiv:2305.13301, appendix D).

    (N,) scores, their N prompt ids -> each row's mean and std (N,), and the new history: the last `capacity` scores of
    every prompt. The batch enters the history first. A prompt with fewer than `min_count` scores uses the batch's own.
    """
    scores = [float(value) for value in values]
    updated = {key: list(past) for key, past in history.items()}
    for key, score in zip(keys, scores, strict=True):
        updated[key] = [*updated.get(key, []), score][-capacity:]
    mean, std = values.mean().expand_as(values).clone(), values.std(correction=0).expand_as(values).clone()
    for row, key in enumerate(keys):
        if len(updated[key]) >= min_count:
            past = torch.tensor(updated[key], dtype=torch.float64)
            mean[row], std[row] = past.mean().to(values), past.std(correction=0).to(values)
    return mean, std, updated


# --- policy gradients ------------------------------------------------------------------------------------------------


def ratio_bounds(clip: Clip, elements: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Lower and upper bound of the ratio: 1 -+ clip for log-probabilities averaged over elements.

    A pair of clips is that below and that above 1 (DAPO, arXiv:2503.14476). Log-probabilities summed over `elements`
    (M,) elements have log-ratios that many times larger, so the same trust region is (1 -+ clip) ** elements.
    """
    below, above = clip if isinstance(clip, tuple) else (clip, clip)
    scale = torch.ones(()) if elements is None else elements
    return (scale * math.log1p(-below)).exp(), (scale * math.log1p(above)).exp()


def step_std(distribution: object) -> Tensor:
    """(M,) standard deviations of Gaussian steps, for objectives that weigh by them.

    Where elements differ in theirs, the root of the mean variance of the elements that count.

    Raises:
        ConfigError: the policy's steps are not Gaussian.
    """
    step = _gaussian(distribution)
    if step.std.dim() == 1:
        return step.std
    return masked_reduce(step.std**2, step.mask, "mean").sqrt()


def element_std(distribution: object) -> Tensor:
    """Standard deviations of Gaussian steps, (M, 1, ...) or (M, *S), to broadcast over their states (M, *S).

    Raises:
        ConfigError: the policy's steps are not Gaussian.
    """
    step = _gaussian(distribution)
    return step.std if step.std.dim() > 1 else per_row(step.std, step.mean)


def _gaussian(distribution: object) -> Gaussian:
    if not isinstance(distribution, Gaussian):
        raise ConfigError(
            f"this objective needs Gaussian steps; the policy's are {type(distribution).__name__}",
            "choose another algorithm, or grpo with algorithm.ratio = 'density'",
        )
    return distribution


def clip_elements(reduction: Reduction, x: Tensor, mask: Tensor | None) -> Tensor | None:
    """Argument `elements` of `clipped_surrogate` for log-probabilities of states x (M, *S) in this reduction."""
    return num_elements(x, mask) if reduction == "sum" else None


def clipped_surrogate(
    logp: Tensor, logp_old: Tensor, advantages: Tensor, clip: Clip, elements: Tensor | None = None
) -> Tensor:
    """(M,) each -> (M,) loss max(-A rho, -A clip(rho)), rho = exp(logp - logp_old) (PPO, arXiv:1707.06347, Eq. 7).

    `elements` (M,) where log-probabilities are sums (see `ratio_bounds`), None if they are means.
    """
    ratio = (logp - logp_old).exp()
    low, high = _bounds(ratio, clip, elements)
    costs = -advantages
    return torch.maximum(costs * ratio, costs * torch.minimum(torch.maximum(ratio, low), high))


def _bounds(ratio: Tensor, clip: Clip, elements: Tensor | None) -> tuple[Tensor, Tensor]:
    """`ratio_bounds` in the dtype of `ratio`. A single number stays on the CPU, where every device can use it."""
    low, high = ratio_bounds(clip, torch.ones((), dtype=ratio.dtype) if elements is None else elements)
    return low.to(ratio.dtype), high.to(ratio.dtype)


def _read(values: list[Tensor]) -> list[float]:
    """Scalars of one device as numbers: one wait for all of them."""
    return torch.stack(values).tolist() if values else []


class RatioMeter:
    """Collects, over one step, how far the trained policy is from the one that sampled."""

    def __init__(self, clip: Clip | None = None) -> None:
        self._clip = clip
        # Tensors until they are asked for: reading one would wait for a GPU at every piece.
        self._largest, self._clipped, self._count = list[Tensor](), list[Tensor](), 0

    def add(self, logp: Tensor, logp_old: Tensor, elements: Tensor | None = None) -> None:
        """(M,) log-probabilities of one piece; `elements` as in `ratio_bounds`."""
        ratio = (logp - logp_old).detach().exp()
        if not len(ratio):
            return
        self._largest.append(ratio.max())
        self._count += len(ratio)
        if self._clip is not None:
            low, high = _bounds(ratio, self._clip, elements)
            self._clipped.append(((ratio < low) | (ratio > high)).sum())

    def metrics(self) -> dict[str, float]:
        """`policy/ratio_max` and, with a clip, `policy/clip_fraction`: the same names whatever was added."""
        largest = _read(self._largest)
        # max would let a NaN pass for 1.
        metrics = {"policy/ratio_max": math.nan if any(map(math.isnan, largest)) else max([1.0, *largest])}
        if self._clip is not None:
            metrics["policy/clip_fraction"] = sum(_read(self._clipped)) / max(self._count, 1)
        return metrics


class MeanMeter:
    """Collects the mean of one quantity over one step; 0 if nothing was added."""

    def __init__(self) -> None:
        self._totals, self._count = list[Tensor](), 0

    def add(self, values: Tensor) -> None:
        """(M,) values of one piece."""
        self._totals.append(values.detach().double().sum())
        self._count += values.numel()

    @property
    def mean(self) -> float:
        """Over everything that was added."""
        return sum(_read(self._totals)) / max(self._count, 1)


def kl_estimate(logp: Tensor, logp_other: Tensor, estimator: Estimator, averaged_over: Tensor | None = None) -> Tensor:
    """Log-probabilities (M,) of draws from the first density -> (M,) estimates of KL(first || other).

    With r = other / first (J. Schulman, "Approximating KL divergence", 2020): k1 = -log r, unbiased, any sign;
    k2 = (log r)^2 / 2, biased, never negative, its gradient is unbiased; k3 = r - 1 - log r, unbiased, never negative.

    `averaged_over` (M,): how many elements the log-probabilities are means over, None if they are sums. k2 and k3
    are not linear in the log-ratio, so it is multiplied out first; the estimate is then per element, as they are.
    """
    log_r = (logp_other - logp) * (1 if averaged_over is None else averaged_over)
    if estimator == "k1":
        estimate = -log_r
    elif estimator == "k2":
        estimate = 0.5 * log_r**2
    else:
        estimate = torch.expm1(log_r) - log_r
    return estimate if averaged_over is None else estimate / averaged_over


# --- weights of samples ----------------------------------------------------------------------------------------------


def softmax_weights(values: Tensor, all_values: Tensor, inverse_temperature: float) -> Tensor:
    """(N,) scores of this rank, (N',) of all ranks -> (N,) weights exp(b r) / mean over all of exp(b r), mean 1."""
    shift = all_values.max()
    normaliser = (inverse_temperature * (all_values - shift)).exp().mean()
    return (inverse_temperature * (values - shift)).exp() / normaliser


def effective_fraction(weights: Tensor, mass: float = 0.9) -> float:
    """Share of the (N,) non-negative weights that carries `mass` of their sum; near 0: a few samples teach alone."""
    ordered = weights.sort(descending=True).values.cumsum(0)
    if ordered[-1] <= 0:
        return 0.0
    return float((ordered < mass * ordered[-1]).sum() + 1) / len(weights)


# --- noise -----------------------------------------------------------------------------------------------------------


def row_noise(
    seeds: Sequence[int | str], purpose: str, shape: Sequence[int], lengths: Sequence[int] | None = None
) -> Tensor:
    """N seeds -> standard normal noise (N, *shape) on the CPU; a row depends on its own seed and `purpose` only.

    `lengths`: valid extents of the last axis. Without them a row of a wider batch has other noise.
    """
    generators = [generator_of(seed_of(purpose, seed)) for seed in seeds]
    return draw_noise(generators, shape, [shape[-1]] * len(seeds) if lengths is None else lengths)


def row_uniform(seeds: Sequence[int | str], purpose: str) -> Tensor:
    """N seeds -> uniform draws (N,) in [0, 1) on the CPU; a row depends on its own seed and `purpose` only."""
    return torch.tensor([float(torch.rand((), generator=generator_of(seed_of(purpose, seed)))) for seed in seeds])


def implied_noise(policy: Policy, x_t: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """The noise (N, *S) that leads from clean (N, *S) to the visited state x_t (N, *S) at times t (N,).

    Every forward process here is affine in its noise, x_t = a clean + s noise; for a Gaussian diffusion this is
    (x_t - sqrt(alpha_bar) clean) / sqrt(1 - alpha_bar).
    """
    zero = torch.zeros_like(clean)
    return (x_t - policy.noisy(clean, zero, t)) / policy.noisy(zero, torch.ones_like(clean), t)


@contextmanager
def checkpointed(module: nn.Module) -> Iterator[None]:
    """Inside, `module.forward` keeps no activations and runs again in the backward pass: less memory, more time."""
    forward = module.forward
    module.forward = partial(checkpoint, forward, use_reentrant=False)
    try:
        yield
    finally:
        del module.forward


# --- copies of a policy ----------------------------------------------------------------------------------------------


def frozen_copy(module: M) -> M:
    """An independent copy whose parameters take no gradient, in eval mode."""
    twin = copy.deepcopy(module)
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def ema_update(target: nn.Module, source: nn.Module, decay: float) -> None:
    """target <- decay target + (1 - decay) source, in place; buffers are copied; decay 0 copies everything."""
    for old, new in zip(target.parameters(), source.parameters(), strict=True):
        old.lerp_(new.to(old), 1.0 - decay)
    for old_buffer, new_buffer in zip(target.buffers(), source.buffers(), strict=True):
        old_buffer.copy_(new_buffer)


# --- low-rank adapters -----------------------------------------------------------------------------------------------


def chosen_convolutions(network: nn.Module, layers: str) -> dict[str, nn.Conv1d]:
    """The convolutions whose name has a match of the regular expression `layers`, by name; empty: all of them.

    Raises:
        ConfigError: `layers` is not a regular expression, or none of the convolutions matches.
    """
    try:
        wanted = re.compile(layers)
    except re.error as error:
        raise ConfigError(f"policy.lora_layers = '{layers}' is not a regular expression: {error}") from error
    found = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv1d)}
    chosen = {name: module for name, module in found.items() if wanted.search(name)}
    if not chosen:
        first, *_, last = found
        raise ConfigError(
            f"policy.lora_layers = '{layers}' matches none of the denoiser's {len(found)} convolutions",
            f"their names are like '{first}' and '{last}'",
        )
    return chosen


__all__ = [
    "Estimator",
    "MeanMeter",
    "RatioMeter",
    "batch_advantages",
    "checkpointed",
    "chosen_convolutions",
    "clip_elements",
    "clipped_surrogate",
    "effective_fraction",
    "element_std",
    "ema_update",
    "frozen_copy",
    "group_advantages",
    "group_statistics",
    "implied_noise",
    "kl_estimate",
    "length_mask",
    "masked_mean",
    "num_elements",
    "per_row",
    "prompt_statistics",
    "ratio_bounds",
    "row_noise",
    "row_uniform",
    "softmax_weights",
    "standardise",
    "step_std",
    "with_backward",
]
