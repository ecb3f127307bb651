"""DiffusionNFT (arXiv:2509.16117): contrast an implicit positive and negative policy on the forward process.

Needs no log-probability and no stored trajectory. Suffixes: N rows, S one state's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Algorithm, Batch, Policy, TrainContext
from rlzoo.functional import MeanMeter, ema_update, frozen_copy, masked_mean, per_row
from rlzoo_nft import NFTOptions


class NFT(Algorithm[NFTOptions]):
    """One step: sample from the old policy, score, contrast, let the old policy follow."""

    old: Policy

    def setup(self, ctx: TrainContext) -> None:
        """The old policy starts as the policy."""
        self.old = frozen_copy(ctx.policy)

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout(keep="final", policy=self.old)
        adv_N = ctx.advantages(ctx.score(traj).values, traj)
        good_N = (adv_N / (2 * o.advantage_max) + 0.5).clamp(0, 1)
        losses, kls = MeanMeter(), MeanMeter()
        for update in range(o.updates):
            for batch in ctx.denoising_batches(traj, "nft", update=update, updates=o.updates, draws=o.draws):
                rows, clean, t, cond = batch.rows, batch.clean, batch.t, batch.cond
                x_t = ctx.policy.noisy(clean, batch.noise, t)
                v = ctx.policy.predict(x_t, t, cond)
                with torch.no_grad():
                    v_old = self.old.predict(x_t, t, cond)
                    v_ref = ctx.reference.predict(x_t, t, cond)
                positive = o.beta * v + (1 - o.beta) * v_old
                negative = (1 + o.beta) * v_old - o.beta * v
                loss = good_N[rows] * self.distance(ctx.policy, x_t, positive, t, clean, cond)
                loss = loss + (1 - good_N[rows]) * self.distance(ctx.policy, x_t, negative, t, clean, cond)
                kl = masked_mean((v - v_ref) ** 2, ctx.policy.mask(cond))
                traj.mean((loss * o.advantage_max / o.beta + o.kl * kl) / o.draws).backward()
                losses.add(loss)
                kls.add(kl)
            ctx.apply_gradients()
        decay = min(o.decay_rate * ctx.step, o.decay_max)
        ema_update(self.old, ctx.policy, decay)
        return {"policy/nft_loss": losses.mean, "policy/prediction_shift": kls.mean, "train/old_decay": decay}

    def distance(self, policy: Policy, x_t: Tensor, v: Tensor, t: Tensor, clean: Tensor, cond: Batch) -> Tensor:
        """(N,) squared distance of the implied clean state to the sample, over its own detached mean distance."""
        difference = policy.clean(x_t, v, t) - clean
        mask = policy.mask(cond)
        weight_N = masked_mean(difference.detach().abs(), mask).clamp(min=1e-5)
        return masked_mean(difference**2 / per_row(weight_N, difference), mask)

    def state_dict(self) -> dict[str, Any]:
        """The old policy's weights."""
        return {"old": self.old.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.old.load_state_dict(state["old"])
