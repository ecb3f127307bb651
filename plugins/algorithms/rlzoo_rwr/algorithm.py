"""RWR (arXiv:2305.13301, section 4.2): the diffusion loss on the policy's own samples, each weighted by its score.

Suffixes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from rlzoo.api import Algorithm, TrainContext
from rlzoo.functional import MeanMeter, effective_fraction, softmax_weights
from rlzoo_rwr import RWROptions


class RWR(Algorithm[RWROptions]):
    """One step: sample, score, weigh, regress."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        traj = ctx.rollout(keep="final")
        weight_N = self.weights(ctx, ctx.advantages(ctx.score(traj), traj))
        losses, draws = MeanMeter(), self.options.draws
        for part in range(parts := self.options.updates * draws):
            t_N, noise = ctx.draw(traj, "rwr", part, parts)
            for rows in ctx.pieces(traj):
                seeds, whole = traj.seeds_of(rows), (traj.final[rows], noise[rows])
                cond, (clean, drawn) = ctx.crop(f"rwr {part}", seeds, traj.cond[rows], *whole)
                loss = ctx.policy.denoising_loss(clean, cond, t_N[rows], drawn)
                (((weight_N[rows] * loss).sum()) / (traj.size * draws)).backward()
                losses.add(loss)
            if (part + 1) % draws == 0:
                ctx.apply_gradients()
        return {
            "policy/diffusion_loss": losses.mean,
            "train/effective_fraction": effective_fraction(ctx.gather(weight_N)),
        }

    def weights(self, ctx: TrainContext, values_N: Tensor) -> Tensor:
        """(N,) values -> (N,) weights with mean 1 over the samples of all ranks."""
        everyone = ctx.gather(values_N)
        if self.options.weighting == "exponential":
            return softmax_weights(values_N, everyone, self.options.inverse_temperature)
        count = max(1, round(self.options.keep * len(everyone)))
        threshold = everyone.sort(descending=True).values[count - 1]
        kept = (everyone >= threshold).sum()  # more than `count` where scores are tied
        return (values_N >= threshold).to(values_N) * len(everyone) / kept
