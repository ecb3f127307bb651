"""GRPO-Guard (arXiv:2510.22319): Flow-GRPO with a ratio whose mean is 1 and whose spread is the same at every step.

Suffixes: N rows, M transitions of a minibatch, K denoising steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rlzoo.api import Algorithm, Policy, TrainContext
from rlzoo.functional import RatioMeter, clip_elements, clipped_surrogate, ema_update, frozen_copy, step_std
from rlzoo_grpo_guard import GRPOGuardOptions


class GRPOGuard(Algorithm[GRPOGuardOptions]):
    """One step: sample groups, compare inside each, follow the clipped surrogate of the normalised ratio."""

    old: Policy

    def setup(self, ctx: TrainContext) -> None:
        """A place for the weights that sampled; every step fills it again."""
        self.old = frozen_copy(ctx.policy)

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout()
        adv_N = ctx.advantages(ctx.score(traj), traj)
        ema_update(self.old, ctx.policy, 0.0)
        lengths_K = -traj.schedule.times.diff()
        ratios = RatioMeter(o.clip)
        for batch in ctx.minibatches(traj):
            for m in batch:
                there = (m.before, m.k, m.cond, traj.schedule)
                dist = ctx.policy.transition(*there)
                with torch.no_grad():
                    sampled = self.old.transition(*there)
                # The mean of the log-ratio under the old policy is minus this divergence, |mu - mu_old|^2 / (2 std^2).
                bias_M = dist.kl(sampled, ctx.logprob_reduction)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                log_ratio_M = step_std(dist) * (logp_M - m.log_prob + bias_M)
                elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                zero_M = torch.zeros_like(log_ratio_M)
                loss_M = clipped_surrogate(log_ratio_M, zero_M, adv_N[m.row], o.clip, elements_M)
                batch.mean(loss_M / lengths_K.to(loss_M)[m.k] if o.reweight else loss_M).backward()
                ratios.add(log_ratio_M, zero_M, elements_M)
            ctx.apply_gradients()
        return ratios.metrics()
