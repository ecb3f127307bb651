"""Continued supervised training, as a control: the pretraining loss on the same budget of updates.

Suffixes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rlzoo.api import Algorithm, Batch, TrainContext
from rlzoo.functional import MeanMeter, row_noise, row_uniform
from rlzoo_sft import SFTOptions

PIECE = 16  # recordings through the network at once: bounds memory, changes no result


class SFT(Algorithm[SFTOptions]):
    """One step: take data for the next prompts, lower its denoising loss."""

    uses_reward = False

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        return self.from_recordings(ctx) if self.options.source == "recordings" else self.from_reference(ctx)

    def from_reference(self, ctx: TrainContext) -> Mapping[str, float]:
        """Samples of the starting weights, G for each prompt."""
        traj = ctx.rollout(keep="final", policy=ctx.reference)
        losses, o = MeanMeter(), self.options
        for update in range(o.updates):
            for batch in ctx.denoising_batches(traj, "sft", update=update, updates=o.updates, draws=o.draws):
                loss = ctx.policy.denoising_loss(batch.clean, batch.cond, batch.t, batch.noise)
                traj.mean(loss / o.draws).backward()
                losses.add(loss)
            ctx.apply_gradients()
        return {"policy/diffusion_loss": losses.mean}

    def from_recordings(self, ctx: TrainContext) -> Mapping[str, float]:
        """The recordings of the prompts; DataError if the prompt set has none."""
        prompts = ctx.next_prompts()
        # Drawn by all ranks alike, so that a recording's noise does not depend on which rank has it.
        seed = int(torch.randint(2**62, (1,), generator=ctx.generator))
        mine = ctx.share(prompts)
        with torch.no_grad():
            x, cond = ctx.policy.supervise(mine, ctx.recordings(mine))
        x = x.to(next(ctx.policy.parameters()))
        losses, draws = MeanMeter(), self.options.draws
        for part in range(self.options.updates * draws):
            keys = [f"{seed}/{part}/{prompt.id}" for prompt in mine]
            uniform_N = row_uniform(keys, "time").to(x)
            noise = row_noise(keys, "noise", x.shape[1:], ctx.policy.lengths(cond).tolist()).to(x)
            for rows in torch.arange(len(mine), device=x.device).split(PIECE):
                seeds = [keys[row] for row in rows.tolist()]
                cropped, (clean, drawn) = ctx.crop("sft", seeds, cond[rows], x[rows], noise[rows])
                loss = self.loss(ctx, clean, cropped, uniform_N[rows], drawn)
                (loss.sum() / (len(prompts) * draws)).backward()
                losses.add(loss)
            if (part + 1) % draws == 0:
                ctx.apply_gradients()
        return {"policy/diffusion_loss": losses.mean}

    def loss(self, ctx: TrainContext, x: Tensor, cond: Batch, uniform_N: Tensor, noise: Tensor) -> Tensor:
        """(N,) pretraining loss at the times that belong to these uniform draws."""
        return ctx.policy.denoising_loss(x, cond, ctx.times(uniform_N), noise)
