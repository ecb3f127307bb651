"""OnlyDL (arXiv:2508.03123): the diffusion loss, negated, is the reward of a policy gradient; no score enters.

Suffixes: N rows, M transitions of a minibatch, S one state's shape, K denoising steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory
from rlzoo.functional import RatioMeter, clip_elements, clipped_surrogate, implied_noise, masked_mean, per_row
from rlzoo_onlydl import OnlyDLOptions


class OnlyDL(Algorithm[OnlyDLOptions]):
    """One step: sample, measure the diffusion loss of every visited step, make the good denoisings more likely."""

    uses_reward = False

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout()
        if o.monitor:
            ctx.score(traj)
        loss_KN = self.diffusion_losses(ctx, traj)
        means_K = torch.stack([ctx.gather(loss_N).mean() for loss_N in loss_KN])
        reward_KN = -o.beta * (loss_KN - per_row(means_K, loss_KN))
        ratios = RatioMeter(o.clip)
        for batch in ctx.minibatches(traj):
            for m in batch:
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                loss_M = clipped_surrogate(logp_M, m.log_prob, reward_KN[m.k, m.row], o.clip, elements_M)
                batch.mean(loss_M).backward()
                ratios.add(logp_M, m.log_prob, elements_M)
            ctx.apply_gradients()
        return ratios.metrics() | {"policy/diffusion_loss": float(means_K[traj.schedule.stochastic].mean())}

    @torch.no_grad()
    def diffusion_losses(self, ctx: TrainContext, traj: Trajectory) -> Tensor:
        """(K, N): distance between prediction and what leads from the policy's own sample to each visited state."""
        policy, norm = ctx.policy, self.options.norm
        norm = policy.loss_norm if norm == "policy" else norm
        loss_KN = torch.zeros_like(traj.log_probs)
        for k in traj.schedule.stochastic.nonzero().flatten().tolist():
            for rows in ctx.micro_batches(len(traj), traj):
                x_NS, clean_NS, cond = traj.state(k, rows), traj.final[rows], traj.cond[rows]
                t_N = traj.schedule.times[k].to(x_NS).expand(len(rows))
                target_NS = policy.target(clean_NS, implied_noise(policy, x_NS, clean_NS, t_N), t_N)
                difference_NS = policy.predict(x_NS, t_N, cond) - target_NS
                distance_NS = difference_NS.abs() if norm == "l1" else difference_NS**2
                loss_KN[k, rows] = masked_mean(distance_NS, policy.mask(cond))
        return loss_KN
