"""DGPO (arXiv:2510.08425): DPO between the part of a group above its mean and the part below, weighed by advantages.

Needs no log-probability and no stored trajectory. Suffixes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo.api import Algorithm, Policy, TrainContext, Trajectory
from rlzoo.functional import MeanMeter, masked_mean, ratio_bounds
from rlzoo_dgpo import DGPOOptions


@dataclass(frozen=True)
class Draw:
    """One time and noise for each group, and what sampling policy and starting weights lose there."""

    number: int
    t_N: Tensor
    noise: Tensor
    old_N: Tensor
    reference_N: Tensor


class DGPO(Algorithm[DGPOOptions]):
    """One step: sample groups, compare inside each, learn every sample as its advantage and its group say."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        o = self.options
        traj = ctx.rollout(keep="final")
        adv_N = ctx.advantages(ctx.score(traj), traj)
        draws = [self.draw(ctx, traj, number) for number in range(o.draws)]
        weights, losses, kls = MeanMeter(), MeanMeter(), MeanMeter()
        for update in range(o.updates):
            for draw in draws:
                now_N = draw.old_N if update == 0 else self.losses(ctx, ctx.policy, traj, draw)
                weight_N = self.weight(traj, adv_N, now_N - draw.reference_N)
                weights.add(weight_N)
                for rows in ctx.micro_batches(len(traj), traj):
                    loss, kl = self.matching(ctx, ctx.policy, traj, rows, draw, grad=True)
                    low, high = (bound.to(loss) for bound in ratio_bounds(o.clip))
                    ratio = (draw.old_N[rows] - loss.detach()).exp()
                    free = torch.where(adv_N[rows] > 0, ratio <= high, ratio >= low)
                    direct = weight_N[rows] * adv_N[rows] * torch.where(free, loss, loss.detach())
                    traj.mean((direct + o.kl * kl) / o.draws).backward()
                    losses.add(loss)
                    kls.add(kl)
            ctx.apply_gradients()
        return {
            "policy/diffusion_loss": losses.mean,
            "policy/group_weight": weights.mean,
            "policy/prediction_shift": kls.mean,
        }

    def weight(self, traj: Trajectory, adv_N: Tensor, worse_N: Tensor) -> Tensor:
        """(N,) advantages, by how much each sample's loss exceeds the starting weights' -> (N,) weight of each group.

        One half where nothing has been learnt, less where the group is preferred already. A group lies on one process.
        """
        _, index = torch.unique(traj.group, return_inverse=True)
        groups = torch.zeros(int(index.max()) + 1, dtype=worse_N.dtype, device=worse_N.device)
        size = groups.index_add(0, index, torch.ones_like(worse_N))
        margin = groups.index_add(0, index, self.options.beta * adv_N.to(worse_N) * worse_N) / size
        return margin.sigmoid()[index]

    def draw(self, ctx: TrainContext, traj: Trajectory, number: int) -> Draw:
        """Time and noise of each group's first row, for all of its rows: samples of one prompt have one shape."""
        t_N, noise = ctx.draw(traj, "dgpo", number, self.options.draws)
        first = torch.stack([(traj.group == group).nonzero()[0, 0] for group in traj.group]).to(t_N.device)
        zero_N = torch.zeros_like(t_N)
        draw = Draw(number, t_N[first], noise[first], zero_N, zero_N)
        old, reference = (self.losses(ctx, policy, traj, draw) for policy in (ctx.policy, ctx.reference))
        return Draw(number, draw.t_N, draw.noise, old, reference)

    def losses(self, ctx: TrainContext, policy: Policy, traj: Trajectory, draw: Draw) -> Tensor:
        """(N,) squared matching losses of all rows."""
        return torch.cat(
            [self.matching(ctx, policy, traj, rows, draw)[0] for rows in ctx.micro_batches(len(traj), traj)]
        )

    def matching(
        self, ctx: TrainContext, policy: Policy, traj: Trajectory, rows: Tensor, draw: Draw, grad: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(n,) squared matching loss of these rows, and squared distance to the starting weights' prediction."""
        seeds, whole, t = traj.seeds_of(rows), (traj.final[rows], draw.noise[rows]), draw.t_N[rows]
        cond, (clean, drawn) = ctx.crop(f"dgpo {draw.number}", seeds, traj.cond[rows], *whole)
        mask, x_t = policy.mask(cond), policy.noisy(clean, drawn, t)
        with torch.set_grad_enabled(grad):
            prediction = policy.predict(x_t, t, cond)
            loss = masked_mean((prediction - policy.target(clean, drawn, t)) ** 2, mask)
        if not (grad and self.options.kl):
            return loss, torch.zeros_like(loss)
        with torch.no_grad():
            frozen = ctx.reference.predict(x_t, t, cond)
        return loss, masked_mean((prediction - frozen) ** 2, mask)
