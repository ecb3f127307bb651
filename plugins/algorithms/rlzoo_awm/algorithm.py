"""AWM (arXiv:2509.25050): a policy gradient whose log-probability is minus the matching loss at fresh noise.

Suffixes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Algorithm, DenoisingBatch, Policy, TrainContext
from rlzoo.functional import MeanMeter, RatioMeter, clipped_surrogate, ema_update, frozen_copy, masked_mean
from rlzoo_awm import AWMOptions


class AWM(Algorithm[AWMOptions]):
    """One step: sample, score, weigh the matching loss of each sample by its advantage."""

    anchor: Policy | None = None

    def setup(self, ctx: TrainContext) -> None:
        """The moving average starts as the policy."""
        self.anchor = frozen_copy(ctx.policy) if self.options.anchor == "ema" else None

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout(keep="final")
        adv_N = ctx.advantages(ctx.score(traj).values, traj)
        old = [self.matching(ctx, batch)[0] for batch in ctx.denoising_batches(traj, "awm", draws=o.draws)]
        ratios, losses, kls = RatioMeter(o.clip), MeanMeter(), MeanMeter()
        for _ in range(o.updates):
            for batch, before in zip(ctx.denoising_batches(traj, "awm", draws=o.draws), old, strict=True):
                loss, kl = self.matching(ctx, batch, grad=True)
                surrogate = clipped_surrogate(-loss, -before, adv_N[batch.rows], o.clip)
                traj.mean((surrogate + o.kl * kl) / o.draws).backward()
                ratios.add(-loss, -before)
                losses.add(loss)
                kls.add(kl)
            ctx.apply_gradients()
        if self.anchor is not None:
            ema_update(self.anchor, ctx.policy, o.anchor_decay)
        return ratios.metrics() | {"policy/diffusion_loss": losses.mean, "policy/prediction_shift": kls.mean}

    def matching(self, ctx: TrainContext, batch: DenoisingBatch, grad: bool = False) -> tuple[Tensor, Tensor]:
        """(n,) squared matching loss of this batch, and squared distance to the anchor's prediction."""
        clean, t, cond = batch.clean, batch.t, batch.cond
        mask, x_t = ctx.policy.mask(cond), ctx.policy.noisy(clean, batch.noise, t)
        with torch.set_grad_enabled(grad):
            prediction = ctx.policy.predict(x_t, t, cond)
            loss = masked_mean((prediction - ctx.policy.target(clean, batch.noise, t)) ** 2, mask)
        if not (grad and self.options.kl):
            return loss, torch.zeros_like(loss)
        with torch.no_grad():
            anchored = (self.anchor or ctx.reference).predict(x_t, t, cond)
        return loss, masked_mean((prediction - anchored) ** 2, mask)

    def state_dict(self) -> dict[str, Any]:
        """The moving average, where there is one."""
        return {} if self.anchor is None else {"anchor": self.anchor.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        if self.anchor is not None:
            self.anchor.load_state_dict(state["anchor"])
