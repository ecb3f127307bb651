"""KLinR: maximise E[ alpha r ] - beta E[ sum_k KL( p_theta(.|x[k]) || p_pre(.|x[k]) ) ] with the KL inside the reward.

Suffixes: N rows, M transitions of a minibatch, K denoising steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory
from rlzoo.functional import RatioMeter, clip_elements, clipped_surrogate, kl_estimate, num_elements, per_row
from rlzoo_klinr import KLinROptions


class KLinR(Algorithm[KLinROptions]):
    """One step: sample, score, subtract the KL that each transition leads to, follow the policy gradient."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout()
        adv_N = ctx.advantages(ctx.score(traj), traj)
        kl_KN = self.divergence(ctx, traj)
        shaped_KN = o.alpha * adv_N - o.beta * self.penalty(ctx, kl_KN)
        ratios = RatioMeter(o.clip)
        for batch in ctx.minibatches(traj):
            for m in batch:
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                loss_M = clipped_surrogate(logp_M, m.log_prob, shaped_KN[m.k, m.row], o.clip, elements_M)
                if o.estimator == "exact":
                    with torch.no_grad():
                        reference = ctx.reference.transition(m.before, m.k, m.cond, traj.schedule)
                    loss_M = loss_M + o.beta * dist.kl(reference, ctx.logprob_reduction)
                batch.mean(loss_M).backward()
                ratios.add(logp_M, m.log_prob, elements_M)
            ctx.apply_gradients()
        return ratios.metrics() | {"policy/kl_trajectory": float(ctx.gather(kl_KN.sum(0)).mean())}

    @torch.no_grad()
    def divergence(self, ctx: TrainContext, traj: Trajectory) -> Tensor:
        """(K, N): the KL of each visited step under the sampling policy, zero at deterministic steps."""
        kl_KN = torch.zeros_like(traj.log_probs)
        means = ctx.logprob_reduction == "mean"
        elements_N = num_elements(traj.final, ctx.policy.mask(traj.cond)) if means else None
        for k in traj.schedule.stochastic.nonzero().flatten().tolist():
            for rows in ctx.micro_batches(len(traj)):
                there = (traj.state(k, rows), torch.full_like(rows, k), traj.cond[rows], traj.schedule)
                reference = ctx.reference.transition(*there)
                if self.options.estimator == "exact":
                    kl_KN[k, rows] = ctx.policy.transition(*there).kl(reference, ctx.logprob_reduction)
                else:
                    logp_ref = reference.log_prob(traj.state(k + 1, rows), ctx.logprob_reduction)
                    averaged_over = None if elements_N is None else elements_N[rows]
                    logp = traj.log_probs[k][rows]
                    kl_KN[k, rows] = kl_estimate(logp, logp_ref, self.options.estimator, averaged_over)
        return kl_KN

    def penalty(self, ctx: TrainContext, kl_KN: Tensor) -> Tensor:
        """(K, N): the KL that step k's draw leads to, centred over all ranks' rows.

        What lies before step k cannot be changed by its draw. The exact KL of step k itself is known before the draw
        and enters the loss directly; an estimate depends on the draw.
        """
        to_come_KN = kl_KN.flip(0).cumsum(0).flip(0)
        if self.options.estimator == "exact":
            to_come_KN = to_come_KN - kl_KN
        means_K = torch.stack([ctx.gather(kl_N).mean() for kl_N in to_come_KN])
        return to_come_KN - per_row(means_K, to_come_KN)
