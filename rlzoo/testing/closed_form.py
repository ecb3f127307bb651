"""Exact values on the toys: expected reward, KL of trajectories, and the best objective that any policy can reach.

A toy's transition is affine in each element, x[k+1] = g_k x[k] + b_k + s_k noise, and its reward is quadratic, so means
and variances propagate exactly, and the best policy under reward - beta KL follows from a backward recursion (a linear
quadratic regulator whose control cost is the KL). N rows, D elements, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rlzoo.core.policy import Gaussian, Policy
from rlzoo.core.types import Batch, Prompt
from rlzoo.testing.specs import ToyRewardOptions


@dataclass(frozen=True)
class Chain:
    """`gain` (K, N, D), `shift` (K, N, D), `std` (K, N), `stochastic` (K,), `mask` (N, D), all float64."""

    gain: Tensor
    shift: Tensor
    std: Tensor
    stochastic: Tensor
    mask: Tensor


def chain(policy: Policy, prompts: Sequence[Prompt], *, deterministic: bool = False) -> Chain:
    """The default rollout of a toy, read off its own `transition` at states 0 and 1; with a graph to its weights.

    `deterministic`: the rollout without noise between its first state and its last.
    """
    cond, schedule = policy.condition(prompts), policy.schedule()
    if deterministic:
        schedule = replace(schedule, stochastic=torch.zeros_like(schedule.stochastic))
    mask = _mask(policy, cond)
    gains, shifts, stds = [], [], []
    dtype = next(policy.parameters()).dtype
    for k in range(len(schedule)):
        index = torch.full((len(cond),), k)
        at_zero = policy.transition(torch.zeros(mask.shape, dtype=dtype), index, cond, schedule)
        at_one = policy.transition(torch.ones(mask.shape, dtype=dtype), index, cond, schedule)
        assert isinstance(at_zero, Gaussian)
        gains.append((at_one.mode - at_zero.mode).double())
        shifts.append(at_zero.mode.double())
        stds.append(at_zero.std.double())
    return Chain(torch.stack(gains), torch.stack(shifts), torch.stack(stds), schedule.stochastic, mask)


@torch.no_grad()
def expected_reward(
    policy: Policy, prompts: Sequence[Prompt], reward: ToyRewardOptions, *, deterministic: bool = False
) -> float:
    """E[r] over the toy's rollouts, or over those without noise on the way, mean over the prompts."""
    steps = chain(policy, prompts, deterministic=deterministic)
    mean, variance = torch.zeros_like(steps.gain[0]), torch.ones_like(steps.gain[0])
    for k in range(len(steps.stochastic)):
        mean = steps.gain[k] * mean + steps.shift[k]
        variance = steps.gain[k] ** 2 * variance + steps.std[k][:, None] ** 2
    scores = reward.slope * mean - reward.curvature * ((mean - reward.target) ** 2 + variance)
    return float(_row_mean(scores, steps.mask).mean())


@torch.no_grad()
def trajectory_kl(policy: Policy, reference: Policy, prompts: Sequence[Prompt]) -> float:
    """E[ sum over stochastic k of KL( policy || reference ) ] in nats over the policy's rollouts, mean over prompts."""
    ours, theirs = chain(policy, prompts), chain(reference, prompts)
    mean, variance = torch.zeros_like(ours.gain[0]), torch.ones_like(ours.gain[0])
    total = torch.zeros(len(mean), dtype=torch.float64)
    for k in range(len(ours.stochastic)):
        if ours.stochastic[k]:
            gain, shift = ours.gain[k] - theirs.gain[k], ours.shift[k] - theirs.shift[k]
            distance = (gain * mean + shift) ** 2 + gain**2 * variance
            total += (distance * ours.mask).sum(1) / (2 * ours.std[k] ** 2)
        mean = ours.gain[k] * mean + ours.shift[k]
        variance = ours.gain[k] ** 2 * variance + ours.std[k][:, None] ** 2
    return float(total.mean())


def objective(
    policy: Policy, reference: Policy, prompts: Sequence[Prompt], reward: ToyRewardOptions, beta: float
) -> float:
    """E[r] - beta KL of trajectories, mean over the prompts."""
    penalty = beta * trajectory_kl(policy, reference, prompts) if beta else 0.0
    return expected_reward(policy, prompts, reward) - penalty


@torch.no_grad()
def best_objective(
    reference: Policy, prompts: Sequence[Prompt], reward: ToyRewardOptions, beta: float, *, last_step: bool = False
) -> float:
    """The largest `objective` of any policy with the reference's noise levels.

    The value of state x after step k is p x^2 + q x + c per element; a step may add any control u(x) to the reference's
    mean, which costs beta u^2 / (2 s^2). Deterministic steps have no density and are left as they are, except that
    `last_step` lets the last one be anything (methods that differentiate through the sampler train it). With beta = 0
    and nothing to pull back, a reward without curvature has no maximum.
    """
    steps = chain(reference, prompts)
    weight = steps.mask / steps.mask.sum(1, keepdim=True)  # the score is a mean over a row's elements
    p = -reward.curvature * weight
    q = (reward.slope + 2 * reward.curvature * reward.target) * weight
    c = -reward.curvature * reward.target**2 * weight
    if beta == 0 and reward.curvature == 0:
        raise ValueError("a linear reward without a penalty has no maximum")
    for k in reversed(range(len(steps.stochastic))):
        gain, shift, variance = steps.gain[k], steps.shift[k], steps.std[k][:, None] ** 2
        c = c + p * variance
        if steps.stochastic[k] or (last_step and k == len(steps.stochastic) - 1):
            free = beta == 0 or not steps.stochastic[k]
            # max over u of p (m + u)^2 + q (m + u) - kappa u^2, at m; kappa = 0 if the control is free.
            kappa = torch.zeros_like(p) if free else (beta / (2 * variance)).expand_as(p)
            left = (kappa - p).clamp(min=1e-300)
            p, q, c = p * kappa / left, q * kappa / left, c + q**2 / (4 * left)
        # m = gain x + shift
        p, q, c = p * gain**2, (2 * p * shift + q) * gain, p * shift**2 + q * shift + c
    # x[0] is standard normal.
    return float(((p + c) * steps.mask).sum(1).mean())


def _row_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(1) / mask.sum(1)


def _mask(policy: Policy, cond: Batch) -> Tensor:
    mask = policy.mask(cond)
    return torch.ones(len(cond), *policy.state_shape(cond)) if mask is None else mask.double()
