"""Algorithms with one bug each; all but the bug is a clipped policy gradient."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory, Transitions
from rlzoo.functional import clipped_surrogate
from rlzoo.plugin import Options
from rlzoo.testing.toy_runs import PolicyGradient


class GradientOptions(Options):
    """Options of the gradient below."""

    clip: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Half-width of the ratio's trust region."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL to the starting weights."""


class Gradient(Algorithm[GradientOptions]):
    """A sound policy gradient; each bug below changes one of its parts."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        traj = ctx.rollout()
        adv_N = self.advantages(ctx, traj, ctx.score(traj).values)
        for batch in ctx.minibatches(traj):
            for m in batch:
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                loss_M = self.loss(ctx, traj, m, logp_M, adv_N[m.row])
                if self.options.beta:
                    loss_M = loss_M + self.options.beta * self.penalty(ctx, traj, m, dist)
                batch.mean(loss_M).backward()
            ctx.apply_gradients()
        return self.metrics(ctx)

    def advantages(self, ctx: TrainContext, traj: Trajectory, values_N: Tensor) -> Tensor:
        return ctx.advantages(values_N, traj)

    def loss(self, ctx: TrainContext, traj: Trajectory, m: Transitions, logp_M: Tensor, adv_M: Tensor) -> Tensor:
        return clipped_surrogate(logp_M, m.log_prob, adv_M, self.options.clip)

    def penalty(self, ctx: TrainContext, traj: Trajectory, m: Transitions, dist: Any) -> Tensor:
        with torch.no_grad():
            reference = ctx.reference.transition(m.before, m.k, m.cond, traj.schedule)
        return dist.kl(reference, ctx.logprob_reduction)

    def metrics(self, ctx: TrainContext) -> dict[str, float]:
        return {}


class Unseeded(Gradient):
    """Draws from a generator that no seed reaches."""

    def advantages(self, ctx: TrainContext, traj: Trajectory, values_N: Tensor) -> Tensor:
        return ctx.advantages(values_N, traj) * (1 + random.Random().random())


class MovesTheReference(Gradient):
    """Lets the reference follow the policy."""

    def metrics(self, ctx: TrainContext) -> dict[str, float]:
        ctx.reference.load_state_dict(ctx.policy.state_dict())
        return {}


class UnsavedTracker(Gradient):
    """Keeps a running mean of the scores that no checkpoint has."""

    baseline = 0.0

    def advantages(self, ctx: TrainContext, traj: Trajectory, values_N: Tensor) -> Tensor:
        self.baseline = 0.5 * self.baseline + 0.5 * float(ctx.gather(values_N).mean())
        return values_N - self.baseline


class ClampedDifference(Gradient):
    """The slip of the released DLPO code: a difference of log-probabilities where their ratio belongs, clamped."""

    def loss(self, ctx: TrainContext, traj: Trajectory, m: Transitions, logp_M: Tensor, adv_M: Tensor) -> Tensor:
        ratio_M = (logp_M - m.log_prob).clamp(1 - 1e-4, 1 + 1e-4)
        return -ratio_M * adv_M + 0.1 * logp_M  # something else to train, as the diffusion loss was there


class RatioIsNotOne(Gradient):
    """Scales the log-ratio by a wrong number of elements, so that the clip bites from the start."""

    def loss(self, ctx: TrainContext, traj: Trajectory, m: Transitions, logp_M: Tensor, adv_M: Tensor) -> Tensor:
        return clipped_surrogate(logp_M + 3.0, m.log_prob, adv_M.abs(), self.options.clip)


class TurnedSign(Gradient):
    """Climbs down."""

    def loss(self, ctx: TrainContext, traj: Trajectory, m: Transitions, logp_M: Tensor, adv_M: Tensor) -> Tensor:
        return clipped_surrogate(logp_M, m.log_prob, -adv_M, self.options.clip)


class UnnamedNeed(Gradient):
    """Uses the denoising loss, which its needs do not name."""

    def advantages(self, ctx: TrainContext, traj: Trajectory, values_N: Tensor) -> Tensor:
        t_N, noise = ctx.draw(traj, "leash")
        with torch.no_grad():
            leash_N = ctx.policy.denoising_loss(traj.final, traj.cond, t_N, noise)
        return ctx.advantages(values_N - leash_N, traj)


class OwnRowsOnly(Gradient):
    """Standardises over this process's rows instead of all."""

    def advantages(self, ctx: TrainContext, traj: Trajectory, values_N: Tensor) -> Tensor:
        return (values_N - values_N.mean()) / (values_N.std(correction=0) + 1e-4)


class OwnSizeOnly(Gradient):
    """Divides the loss by this process's rows instead of all."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        traj = ctx.rollout()
        adv_N = ctx.advantages(ctx.score(traj).values, traj)
        for batch in ctx.minibatches(traj):
            for m in batch:
                logp_M = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule).log_prob(m.after)
                # A sum over processes of their means: the gradient grows with their number.
                (-adv_N[m.row] * logp_M).mean().backward()
            ctx.apply_gradients()
        return {}


class KLInsideNoGrad(Gradient):
    """Its penalty has a value and no gradient."""

    def penalty(self, ctx: TrainContext, traj: Trajectory, m: Transitions, dist: Any) -> Tensor:
        return super().penalty(ctx, traj, m, dist).detach()


class Sibling(PolicyGradient):
    """Inherits from another algorithm."""


BROKEN = [
    ("same_seed_same_run", Unseeded),
    ("updates_the_policy_only", MovesTheReference),
    ("resumes_exactly", UnsavedTracker),
    ("first_step_passes_the_self_checks", ClampedDifference),
    ("follows_the_reward", RatioIsNotOne),
    ("follows_the_reward", TurnedSign),
    ("needs_are_sufficient", UnnamedNeed),
    ("ranks_agree", OwnRowsOnly),
    ("ranks_agree", OwnSizeOnly),
    ("penalty_pulls_back", KLInsideNoGrad),
    ("stands_alone", Sibling),
]
