"""DLPO (arXiv:2508.03123): maximise E[ alpha r(x0, c) - beta sum_k L_k ] over denoising trajectories.

L_k is the diffusion loss of the network at step k. Suffixes: N rows, M transitions of a minibatch, K denoising steps,
S one state's shape. Equations and what is ours: README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.api import Algorithm, Batch, Policy, TrainContext, Trajectory, Transitions
from rlzoo.functional import (
    MeanMeter,
    RatioMeter,
    clip_elements,
    clipped_surrogate,
    implied_noise,
    masked_mean,
    per_row,
    ratio_bounds,
    row_noise,
)
from rlzoo_dlpo import DLPOOptions


@dataclass(frozen=True)
class Target:
    """Clean states (N, *S) that the diffusion loss compares with, and the conditioning that belongs to them."""

    clean: Tensor
    cond: Batch
    own: bool  # the policy's own samples: then the loss is taken at the states of the trajectory


class DLPO(Algorithm[DLPOOptions]):
    """One step: sample, score, subtract the diffusion loss, follow the clipped policy gradient."""

    def __init__(self, options: DLPOOptions) -> None:
        super().__init__(options)
        self.uses_reward = options.estimator != "released"  # it looks at the score, to no effect: see README Eq. 7

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout()
        scores = ctx.score(traj)
        # The released code multiplies by the raw score; everything else takes the run's advantage.
        reward_N = scores.values if o.estimator == "released" else ctx.advantages(scores, traj)
        target = self.denoising_target(ctx, traj)
        penalty_KN = self.penalty(ctx, traj, target)

        ratios, losses = RatioMeter(o.clip), MeanMeter()
        for batch in ctx.minibatches(traj):
            for m in batch:
                time_M = traj.schedule.to(m.before.device).times[m.k].to(m.before.dtype)
                prediction_MS = ctx.policy.predict(m.before, time_M, m.cond)
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule, prediction_MS)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                loss_M = self.diffusion_loss(ctx.policy, traj, target, m, prediction_MS)
                batch.mean(self.objective(ctx, traj, m, logp_M, reward_N[m.row], loss_M, penalty_KN)).backward()
                ratios.add(logp_M, m.log_prob, self.elements(ctx, m))
                losses.add(loss_M)
            ctx.apply_gradients()
        return ratios.metrics() | {"policy/diffusion_loss": losses.mean}

    def objective(
        self,
        ctx: TrainContext,
        traj: Trajectory,
        m: Transitions,
        logp_M: Tensor,
        reward_M: Tensor,
        loss_M: Tensor,
        penalty_KN: Tensor | None,
    ) -> Tensor:
        """(M,) loss of the transitions: what the options call the estimator, README Eq. 4-7."""
        o = self.options
        if o.estimator == "released":
            with torch.no_grad():
                reference = ctx.reference.transition(m.before, m.k, m.cond, traj.schedule)
            difference_M = logp_M - reference.log_prob(m.after, ctx.logprob_reduction)
            # A difference of log-probabilities where a ratio belongs: it is near 0, so the clamp is constant.
            low, high = (bound.to(difference_M) for bound in ratio_bounds(o.clip))
            ratio_M = difference_M.minimum(high).maximum(low)
            return -ratio_M * (o.alpha * reward_M - o.beta * loss_M)
        shaped_M = o.alpha * reward_M
        if penalty_KN is not None:
            shaped_M = shaped_M - o.beta * penalty_KN[m.k, m.row]
        surrogate_M = clipped_surrogate(logp_M, m.log_prob, shaped_M, o.clip, self.elements(ctx, m))
        return surrogate_M if o.estimator == "scalar" else surrogate_M + o.beta * loss_M

    def denoising_target(self, ctx: TrainContext, traj: Trajectory) -> Target:
        """The clean states x0_hat of README Eq. 3; DataError for `data` where the prompt set has no recordings."""
        if self.options.target == "own":
            return Target(traj.final.detach(), traj.cond, own=True)
        with torch.no_grad():
            return Target(*ctx.policy.supervise(traj.prompts, ctx.recordings(traj.prompts)), own=False)

    def diffusion_loss(
        self, policy: Policy, traj: Trajectory, target: Target, m: Transitions, prediction_MS: Tensor | None = None
    ) -> Tensor:
        """(M,) L_k of each transition. `prediction_MS` is the network at `m.before`, where it is known already."""
        time_M = traj.schedule.to(m.before.device).times[m.k].to(m.before.dtype)
        if target.own:
            clean_MS, cond = m.cut(target.clean), m.cond
            noise_MS = implied_noise(policy, m.before, clean_MS, time_M)
            if prediction_MS is None:
                prediction_MS = policy.predict(m.before, time_M, cond)
        else:
            clean_MS, cond = target.clean[m.row], target.cond[m.row]
            seeds = [f"{traj.seeds[row]}/{k}" for row, k in zip(m.row.tolist(), m.k.tolist(), strict=True)]
            noise_MS = row_noise(seeds, "dlpo", clean_MS.shape[1:], policy.lengths(cond).tolist()).to(clean_MS)
            prediction_MS = policy.predict(policy.noisy(clean_MS, noise_MS, time_M), time_M, cond)
        difference_MS = prediction_MS - policy.target(clean_MS, noise_MS, time_M)
        norm = policy.loss_norm if self.options.norm == "policy" else self.options.norm
        return masked_mean(difference_MS.abs() if norm == "l1" else difference_MS**2, policy.mask(cond))

    @torch.no_grad()
    def penalty(self, ctx: TrainContext, traj: Trajectory, target: Target) -> Tensor | None:
        """(K, N): the diffusion loss in the penalty of step k of row n, under the sampling policy. None: no penalty."""
        o = self.options
        if o.estimator in ("additive", "released") or o.beta == 0:
            return None
        loss_KN = torch.zeros_like(traj.log_probs)
        for k in traj.schedule.stochastic.nonzero().flatten().tolist():
            for rows in ctx.micro_batches(len(traj), traj):
                before, after, cond = traj.state(k, rows), traj.state(k + 1, rows), traj.cond[rows]
                m = Transitions(rows, torch.full_like(rows, k), before, after, cond, traj.log_probs[k][rows])
                loss_KN[k, rows] = self.diffusion_loss(ctx.policy, traj, target, m)
        if o.credit == "trajectory":
            loss_KN = loss_KN.sum(0, keepdim=True).expand_as(loss_KN)
        if o.centre:
            means_K = torch.stack([ctx.gather(loss_N).mean() for loss_N in loss_KN])
            loss_KN = loss_KN - per_row(means_K, loss_KN)
        return loss_KN

    def elements(self, ctx: TrainContext, m: Transitions) -> Tensor | None:
        """(M,) by which the clip is scaled where log-probabilities are sums."""
        return clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
