"""Best-of-N fine-tuning (as RAFT, arXiv:2304.06767): sample N per prompt, learn the best ones.

Suffixes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory
from rlzoo.errors import ConfigError
from rlzoo.functional import MeanMeter
from rlzoo_bon import BoNOptions


class BoN(Algorithm[BoNOptions]):
    """One step: sample, score, keep the best of each prompt, learn them."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        traj = ctx.rollout(keep="final")
        values_N = ctx.score(traj).values
        chosen_N = self.choose(values_N, traj)
        count = int(ctx.gather(chosen_N).sum())
        rows, losses, o = chosen_N.nonzero().flatten(), MeanMeter(), self.options
        for update in range(o.updates):
            for batch in ctx.denoising_batches(traj, "bon", update=update, updates=o.updates, draws=o.draws, rows=rows):
                loss = ctx.policy.denoising_loss(batch.clean, batch.cond, batch.t, batch.noise)
                (loss.sum() / (count * o.draws)).backward()
                losses.add(loss)
            ctx.apply_gradients()
        best = ctx.gather(values_N)[ctx.gather(chosen_N)]
        return {"policy/diffusion_loss": losses.mean, "reward/chosen": float(best.mean())}

    def choose(self, values_N: Tensor, traj: Trajectory) -> Tensor:
        """(N,) scores -> (N,) bool: the best `best` of each prompt's samples; the first ones where scores are tied."""
        chosen_N = torch.zeros_like(values_N, dtype=torch.bool)
        for group in traj.group.unique():
            rows = (traj.group == group).nonzero().flatten()
            if len(rows) <= self.options.best:
                raise ConfigError(
                    f"algorithm.best = {self.options.best} of {len(rows)} samples per prompt chooses nothing",
                    "set rollout.samples_per_prompt higher",
                )
            order = values_N[rows].argsort(descending=True, stable=True)
            chosen_N[rows[order[: self.options.best]]] = True
        return chosen_N
