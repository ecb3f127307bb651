"""TempFlow-GRPO (arXiv:2508.04324): all noise of a group lies in one step, so that its scores tell that step's worth.

Suffixes: N rows, M transitions of a minibatch, K denoising steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlzoo.api import Algorithm, Prompt, TrainContext, Trajectory
from rlzoo.errors import ConfigError
from rlzoo.functional import MeanMeter, RatioMeter, clip_elements, clipped_surrogate, step_std
from rlzoo_tempflow import TempFlowOptions


class TempFlow(Algorithm[TempFlowOptions]):
    """One step: sample groups that branch at one step each, compare inside each, follow the weighted surrogate."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        prompts = ctx.next_prompts()
        trajs = [self.branch(ctx, prompts, k) for k in self.places(ctx)]
        advs = [ctx.advantages(ctx.score(traj), traj) for traj in trajs]
        weight_K = self.weight(ctx, trajs[0])
        ratios, kls = RatioMeter(o.clip), MeanMeter()
        for batches in zip(*(ctx.minibatches(traj) for traj in trajs), strict=True):
            for traj, adv_N, batch in zip(trajs, advs, batches, strict=True):
                for m in batch:
                    dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                    logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                    elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                    loss_M = clipped_surrogate(logp_M, m.log_prob, adv_N[m.row], o.clip, elements_M)
                    loss_M = weight_K.to(loss_M)[m.k] * loss_M
                    if o.beta:
                        with torch.no_grad():
                            reference = ctx.reference.transition(m.before, m.k, m.cond, traj.schedule)
                        kl_M = dist.kl(reference, ctx.logprob_reduction)
                        loss_M = loss_M + o.beta * kl_M
                        kls.add(kl_M)
                    (batch.mean(loss_M) / len(trajs)).backward()
                    ratios.add(logp_M, m.log_prob, elements_M)
            ctx.apply_gradients()
        return ratios.metrics() | ({"policy/kl_loss": kls.mean} if o.beta else {})

    def branch(self, ctx: TrainContext, prompts: list[Prompt], k: int) -> Trajectory:
        """Samples of a prompt start from one noise and are one until step k, where each takes a draw of its own."""
        others = [other for other in range(ctx.num_steps) if other != k]
        return ctx.rollout(prompts, deterministic=others, shared_prior=True)

    def places(self, ctx: TrainContext) -> list[int]:
        """The steps of this optimisation step: different ones, at random among those that have noise."""
        possible = self.possible(ctx)
        chosen = torch.randperm(len(possible), generator=ctx.generator)[: self.options.branches]
        return sorted(possible[index] for index in chosen.tolist())

    def possible(self, ctx: TrainContext) -> list[int]:
        """Steps that have noise."""
        steps = ctx.policy.schedule(ctx.num_steps).stochastic.nonzero().flatten().tolist()
        if not steps:
            raise ConfigError("no denoising step has noise to branch with", "raise rollout.num_steps")
        return steps

    @torch.no_grad()
    def weight(self, ctx: TrainContext, traj: Trajectory) -> Tensor:
        """(K,): each step's noise over the mean of all steps' noise; 1 at steps without."""
        weight_K = torch.ones(ctx.num_steps, device=traj.final.device)
        if self.options.weights == "none":
            return weight_K
        schedule, steps = ctx.policy.schedule(ctx.num_steps), self.possible(ctx)
        # What the network says does not matter to a step's noise, so it is not asked.
        x, cond = traj.final[:1], traj.cond[:1]
        for k in steps:
            index = torch.full((1,), k, device=x.device)
            weight_K[k] = step_std(ctx.policy.transition(x, index, cond, schedule, torch.zeros_like(x)))[0]
        weight_K[steps] /= weight_K[steps].mean()
        return weight_K
