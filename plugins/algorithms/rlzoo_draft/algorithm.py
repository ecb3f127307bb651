"""DRaFT-K (arXiv:2309.17400) and AlignProp (arXiv:2310.03739): climb the reward through the last denoising steps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch

from rlzoo.api import Algorithm, TrainContext
from rlzoo.functional import checkpointed
from rlzoo_draft import DRaFTOptions


class DRaFT(Algorithm[DRaFTOptions]):
    """One step: sample with a graph, score, climb."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        steps = self.num_grad_steps(ctx)
        with checkpointed(ctx.policy) if self.options.checkpointing else nullcontext():
            traj = ctx.rollout(keep="final", grad_steps=steps)
            traj.mean(-ctx.score(traj, grad=True).values).backward()
        ctx.apply_gradients()
        return {"train/grad_steps": float(steps)}

    def num_grad_steps(self, ctx: TrainContext) -> int:
        """Number of the last denoising steps with a gradient in this optimisation step."""
        o = self.options
        steps = o.steps
        if o.form == "alignprop":
            steps = round(o.steps + o.spread * float(torch.randn((), generator=ctx.generator)))
        return min(max(steps, 1), ctx.num_steps)
