"""What the algorithms without a KL optimum should reach on the toys: exact objectives and fixed points.

Samples of a toy are Gaussian with independent elements, its network is affine and its losses are squares, so every
expectation below needs first and second moments only; times are integrated on a grid. All is differentiable in the
policy's weights, in float64. N prompts, D elements, K steps; "M0, M1, M2" are E[w], E[w x], E[w x^2] of samples x
with weights w, the first (N, 1), the others (N, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.core.policy import Policy
from rlzoo.core.types import Prompt
from rlzoo.functional import frozen_copy, implied_noise
from rlzoo.testing import closed_form
from rlzoo.testing.specs import ToyRewardOptions

Moments = tuple[Tensor, Tensor, Tensor]
TIMES = 100  # training times on a grid
VANISHED = 1e-5  # largest element of a gradient


@dataclass(frozen=True)
class Law:
    """The policy's samples: `mean`, `variance` and `mask`, (N, D) each."""

    mean: Tensor
    variance: Tensor
    mask: Tensor

    def row_mean(self, values: Tensor) -> Tensor:
        """(N, D) -> (N,) over the elements that are there."""
        return (values * self.mask).sum(1) / self.mask.sum(1)

    def linear_spread(self, reward: ToyRewardOptions) -> Tensor:
        """Standard deviation of a linear reward, (N,)."""
        assert reward.curvature == 0
        return reward.slope * (self.variance * self.mask).sum(1).sqrt() / self.mask.sum(1)

    def moments(self) -> Moments:
        """Every sample counts 1."""
        return torch.ones_like(self.mean[:, :1]), self.mean, self.mean**2 + self.variance


def law(policy: Policy, prompts: Sequence[Prompt]) -> Law:
    """Propagate a standard normal through the chain."""
    steps = closed_form.chain(policy, prompts)
    mean, variance = torch.zeros_like(steps.gain[0]), torch.ones_like(steps.gain[0])
    for gain, shift, std in zip(steps.gain, steps.shift, steps.std, strict=True):
        mean, variance = gain * mean + shift, gain**2 * variance + std[:, None] ** 2
    return Law(mean, variance, steps.mask)


# --- objectives ------------------------------------------------------------------------------------------------------


def expected_reward(samples: Law, reward: ToyRewardOptions) -> Tensor:
    """E[r] of each prompt, (N,)."""
    m, v = samples.mean, samples.variance
    return samples.row_mean(reward.slope * m - reward.curvature * ((m - reward.target) ** 2 + v))


def trajectory_diffusion_loss(policy: Policy, prompts: Sequence[Prompt]) -> Tensor:
    """E[ sum of L_k over the stochastic steps ], (N,): squared errors against what leads from x[K] to x[k]."""
    steps, cond, schedule = closed_form.chain(policy, prompts), policy.condition(prompts), policy.schedule()
    K, ones = len(schedule), torch.ones_like(steps.gain[0])
    # x[K] = gain x[k] + ... with variance `spread` given x[k]
    to_end: list[tuple[Tensor, Tensor, Tensor]] = [(ones, 0 * ones, 0 * ones)]
    for k in reversed(range(K)):
        gain, shift, spread = to_end[0]
        to_end.insert(
            0,
            (
                gain * steps.gain[k],
                gain * steps.shift[k] + shift,
                spread + (gain * steps.std[k][:, None]) ** 2,
            ),
        )
    mean, variance, total = 0 * ones, ones, 0.0
    for k in range(K):
        if steps.stochastic[k]:
            t = schedule.times[k].expand(len(ones)).to(ones)

            def error(x: Tensor, end: Tensor, t: Tensor = t) -> Tensor:
                return policy.predict(x, t, cond) - policy.target(end, implied_noise(policy, x, end, t), t)

            offset = error(0 * ones, 0 * ones)
            of_x, of_end = error(ones, 0 * ones) - offset, error(0 * ones, ones) - offset
            gain, shift, spread = to_end[k]
            slope = of_x + of_end * gain
            square = (slope * mean + of_end * shift + offset) ** 2 + slope**2 * variance + of_end**2 * spread
            total = total + (square * steps.mask).sum(1) / steps.mask.sum(1)
        mean, variance = (
            steps.gain[k] * mean + steps.shift[k],
            steps.gain[k] ** 2 * variance + steps.std[k][:, None] ** 2,
        )
    return torch.as_tensor(total)


def denoising_loss(policy: Policy, prompts: Sequence[Prompt], weighted: Moments) -> Tensor:
    """E[ w L(x, t, noise) ] at the policy's own training times, mean over prompts, a scalar."""
    zero, one, apply = _affine(policy, prompts)
    offset = apply(zero, zero)
    of_x, of_noise = apply(one, zero) - offset, apply(zero, one) - offset  # (T, N, D)
    M0, M1, M2 = weighted
    square = of_x**2 * M2 + 2 * of_x * offset * M1 + (offset**2 + of_noise**2) * M0
    return _mean(policy, prompts, square)


def prediction_distance(policy: Policy, other: Policy, prompts: Sequence[Prompt], samples: Moments) -> Tensor:
    """E[ |f - f_other|^2 ] at noised samples, mean over prompts, a scalar."""
    zero, one, ours = _affine(policy, prompts)
    _, _, theirs = _affine(other, prompts)

    def apply(x: Tensor, noise: Tensor) -> Tensor:
        return ours(x, noise) - theirs(x, noise)

    offset = apply(zero, zero)
    of_x, of_noise = apply(one, zero) - offset, apply(zero, one) - offset
    M0, M1, M2 = samples
    square = of_x**2 * M2 + 2 * of_x * offset * M1 + (offset**2 + of_noise**2) * M0
    return _mean(policy, prompts, square)


def _affine(policy: Policy, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """States 0 and 1, and the network's error as a function of clean state and noise, (T, N, D)."""
    cond = policy.condition(prompts)
    uniform = (torch.arange(TIMES, dtype=torch.float64) + 0.5) / TIMES
    t = policy.sample_times(uniform).repeat_interleave(len(prompts))
    many = type(cond)({name: tensor.repeat(TIMES, *[1] * (tensor.dim() - 1)) for name, tensor in cond.tensors.items()})
    zero = torch.zeros(len(t), *policy.state_shape(cond), dtype=torch.float64)

    def apply(x: Tensor, noise: Tensor) -> Tensor:
        error = policy.predict(policy.noisy(x, noise, t), t, many) - policy.target(x, noise, t)
        return error.view(TIMES, len(prompts), -1)

    return zero, torch.ones_like(zero), apply


def _mean(policy: Policy, prompts: Sequence[Prompt], square: Tensor) -> Tensor:
    mask = policy.mask(policy.condition(prompts))
    assert mask is not None
    return ((square * mask).sum(2) / mask.sum(1)).mean()


# --- weights of samples under the quadratic reward -------------------------------------------------------------------


def _standardised(samples: Law, reward: ToyRewardOptions) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the quadratic reward, (N, 1) both."""
    assert reward.slope == 0
    distance, v = samples.mean - reward.target, samples.variance
    count = samples.mask.sum(1)
    spread = ((2 * v**2 + 4 * v * distance**2) * samples.mask).sum(1) / count**2
    mean = expected_reward(samples, reward)
    return mean[:, None], (reward.curvature * spread.sqrt())[:, None]


def exponential_moments(samples: Law, reward: ToyRewardOptions, b: float) -> Moments:
    """RWR: w = exp(b A), A the reward in units of its group's deviation; a Gaussian tilted by a parabola."""
    mean, deviation = _standardised(samples, reward)
    rate = b * reward.curvature / (deviation * samples.mask.sum(1, keepdim=True))  # of (x - target)^2
    width = 1 + 2 * rate * samples.variance
    centre = (samples.mean + 2 * rate * samples.variance * reward.target) / width
    logarithm = -0.5 * width.log() - rate * (samples.mean - reward.target) ** 2 / width
    mass = ((logarithm * samples.mask).sum(1, keepdim=True) - b * mean / deviation).exp()
    mass = mass / mass.mean()
    return mass, mass * centre, mass * (centre**2 + samples.variance / width)


def advantage_moments(samples: Law, reward: ToyRewardOptions) -> Moments:
    """AWM: w = A, the reward in units of its group's deviation."""
    _, deviation = _standardised(samples, reward)
    m, v, a = samples.mean, samples.variance, reward.target
    factor = -reward.curvature / (deviation * samples.mask.sum(1, keepdim=True))
    first = 2 * v * (m - a)  # Cov( (x - a)^2, x )
    second = 2 * v**2 + 4 * v * m**2 - 4 * a * m * v  # Cov( (x - a)^2, x^2 )
    return torch.zeros_like(deviation), factor * first, factor * second


def best_of_moments(samples: Law, reward: ToyRewardOptions, N: int, groups: int = 10_000) -> Moments:
    """BoN: the best of N, by drawing; the same normals at every call, so that a fixed point is one."""
    z = torch.randn(groups, N, *samples.mean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = samples.mean + samples.variance.sqrt() * z
    score = (-reward.curvature * (x - reward.target) ** 2 * samples.mask).sum(3) / samples.mask.sum(1)
    best = x.gather(1, score.argmax(1)[:, None, :, None].expand(-1, 1, -1, x.shape[3]))[:, 0]
    return torch.ones_like(samples.mean[:, :1]), best.mean(0), (best**2).mean(0)


# --- where they rest -------------------------------------------------------------------------------------------------


def detached(moments: Moments) -> Moments:
    """Without a graph: learning one's own samples does not differentiate through having drawn them."""
    M0, M1, M2 = moments
    return M0.detach(), M1.detach(), M2.detach()


def on_own_samples(prompts: Sequence[Prompt], weigh: Callable[[Law], Moments]) -> Callable[[Policy], Tensor]:
    """The weighted denoising loss of the policy's own samples."""
    return lambda policy: denoising_loss(policy, prompts, detached(weigh(law(policy, prompts))))


def rest(start: Policy, loss: Callable[[Policy], Tensor], last_step: bool = True, steps: int = 1000) -> Policy | None:
    """Follow the gradient of `loss` from `start` to where it vanishes; what `loss` detaches is followed, not climbed.

    Without `last_step` the knot of the deterministic last step stays as it is: a policy gradient does not train it.
    None if the gradient does not vanish: whoever learns nothing but its own samples need not come to rest.
    """
    policy = frozen_copy(start).requires_grad_(True)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-4)
    steepest = math.inf
    for _ in range(steps):
        optimizer.zero_grad()
        loss(policy).backward()
        for parameter in policy.parameters():
            assert parameter.grad is not None
            if not last_step:
                parameter.grad[0] = 0
        steepest = max(float(p.grad.abs().max()) for p in policy.parameters() if p.grad is not None)
        optimizer.step()
        decay.step()
    return policy.requires_grad_(False) if steepest < VANISHED else None
