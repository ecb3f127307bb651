"""GRPO over denoising steps: Flow-GRPO (arXiv:2505.05470), DanceGRPO (2505.07818) and MixGRPO (2507.21802).

Suffixes: N rows, M transitions of a minibatch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rlzoo.api import Algorithm, TrainContext, Trajectory
from rlzoo.errors import ConfigError
from rlzoo.functional import MeanMeter, RatioMeter, clip_elements, clipped_surrogate, step_std
from rlzoo_grpo import GRPOOptions


class GRPO(Algorithm[GRPOOptions]):
    """One step: sample groups, compare inside each, follow the clipped surrogate."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = self.sample(ctx)
        adv_N = ctx.advantages(ctx.score(traj), traj)
        beta = o.beta if o.form == "flow" else 0.0
        lengths_K = -traj.schedule.times.diff()
        ratios, kls = RatioMeter(o.clip), MeanMeter()
        for batch in ctx.minibatches(traj):
            for m in batch:
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                logp_M, old_M = dist.log_prob(m.after, ctx.logprob_reduction), m.log_prob
                if o.ratio == "distance":
                    scale_M = 2 * step_std(dist) ** 2
                    logp_M, old_M = scale_M * logp_M, scale_M * old_M
                elements_M = clip_elements(ctx.logprob_reduction, m.before, ctx.policy.mask(m.cond))
                loss_M = clipped_surrogate(logp_M, old_M, adv_N[m.row], o.clip, elements_M)
                if beta:
                    with torch.no_grad():
                        reference = ctx.reference.transition(m.before, m.k, m.cond, traj.schedule)
                    kl_M = dist.kl(reference, ctx.logprob_reduction)
                    if o.kl == "rate":
                        kl_M = kl_M * lengths_K.to(kl_M)[m.k]
                    loss_M = loss_M + beta * kl_M
                    kls.add(kl_M)
                batch.mean(loss_M).backward()
                ratios.add(logp_M, old_M, elements_M)
            ctx.apply_gradients()
        return ratios.metrics() | ({"policy/kl_loss": kls.mean} if beta else {})

    def sample(self, ctx: TrainContext) -> Trajectory:
        """The rollout of this form."""
        o = self.options
        same = o.form == "dance" if o.init_same_noise is None else o.init_same_noise
        if o.form != "mix":
            return ctx.rollout(shared_prior=same)
        window = self.window(ctx)
        return ctx.rollout(deterministic=[k for k in range(ctx.num_steps) if k not in window], shared_prior=same)

    def window(self, ctx: TrainContext) -> range:
        """The denoising steps that are drawn in this optimisation step."""
        o = self.options
        possible = ctx.policy.schedule(ctx.num_steps).stochastic.nonzero().flatten().tolist()
        if o.window_range is not None:
            possible = [k for k in possible if o.window_range[0] <= k < o.window_range[1]]
        if o.window > len(possible):
            raise ConfigError(
                f"algorithm.window = {o.window}, but only {len(possible)} denoising steps there have noise",
                "lower algorithm.window, widen algorithm.window_range or raise rollout.num_steps",
            )
        last, moves = len(possible) - o.window, ctx.step // o.shift_every
        if o.place == "random":
            first = int(torch.randint(last + 1, (1,), generator=ctx.generator))
            return range(possible[first], possible[first + o.window - 1] + 1)
        # "stay" is l <- min(l + s, T - w) of the paper; its authors' code can also go back to the first place.
        first = min(moves * o.stride, last) if o.at_end == "stay" else moves % (last // o.stride + 1) * o.stride
        return range(possible[first], possible[first + o.window - 1] + 1)
