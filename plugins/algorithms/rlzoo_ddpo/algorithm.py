"""DDPO (arXiv:2305.13301, section 4.3): denoising is a K-step decision process whose reward comes at its end.

Suffixes: N rows, M transitions of a minibatch.
"""

from __future__ import annotations

from collections.abc import Mapping

from rlzoo.api import Algorithm, TrainContext
from rlzoo.functional import RatioMeter, clip_elements, clipped_surrogate
from rlzoo_ddpo import DDPOOptions


class DDPO(Algorithm[DDPOOptions]):
    """One step: sample, score, follow the policy gradient of every transition."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout()
        adv_N = ctx.advantages(ctx.score(traj), traj)
        ratios = RatioMeter(o.clip if o.estimator == "is" else None)
        for batch in ctx.minibatches(traj):
            for m in batch:
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                if o.estimator == "is":
                    loss_M = clipped_surrogate(logp_M, m.log_prob, adv_N[m.row], o.clip, elements_M)
                else:
                    loss_M = -adv_N[m.row] * logp_M
                batch.mean(loss_M).backward()
                ratios.add(logp_M, m.log_prob, elements_M)
            ctx.apply_gradients()
        return ratios.metrics()
