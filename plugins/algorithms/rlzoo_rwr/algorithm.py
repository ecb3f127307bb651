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
        losses, o = MeanMeter(), self.options
        for update in range(o.updates):
            for batch in ctx.denoising_batches(traj, "rwr", update=update, updates=o.updates, draws=o.draws):
                loss = ctx.policy.denoising_loss(batch.clean, batch.cond, batch.t, batch.noise)
                traj.mean(weight_N[batch.rows] * loss / o.draws).backward()
                losses.add(loss)
            ctx.apply_gradients()
        return {
            "policy/diffusion_loss": losses.mean,
            "train/effective_fraction": effective_fraction(ctx.gather(weight_N)),
        }

    def weights(self, ctx: TrainContext, values_N: Tensor) -> Tensor:
        """(N,) values -> (N,) weights with mean 1 over the samples of all ranks."""
        all_values = ctx.gather(values_N)
        if self.options.weighting == "exponential":
            return softmax_weights(values_N, all_values, self.options.inverse_temperature)
        count = max(1, round(self.options.keep * len(all_values)))
        threshold = all_values.sort(descending=True).values[count - 1]
        kept = (all_values >= threshold).sum()  # more than `count` where scores are tied
        return (values_N >= threshold).to(values_N) * len(all_values) / kept
