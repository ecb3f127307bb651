"""D3PO (arXiv:2311.13231): DPO whose choices are denoising steps, with the densities that the sampler has.

Suffixes: N rows, M transitions of a minibatch, K denoising steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory
from rlzoo.errors import ConfigError
from rlzoo.functional import MeanMeter, clip_elements, ratio_bounds, row_uniform
from rlzoo_d3po import D3POOptions


class D3PO(Algorithm[D3POOptions]):
    """One step: sample, pair the samples of each prompt, prefer the steps of the better one."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        traj = ctx.rollout()
        partner_N, wins_N = self.pair(ctx, traj, ctx.advantages(ctx.score(traj), traj))
        count = int(ctx.gather(wins_N).abs().sum())
        margins = MeanMeter()
        for batch in ctx.minibatches(traj) if count else ():
            pull_KN = self.pull(ctx, traj, partner_N, wins_N, margins)
            for m in batch:
                dist = ctx.policy.transition(m.before, m.k, m.cond, traj.schedule)
                logp_M = dist.log_prob(m.after, ctx.logprob_reduction)
                # The gradient of -log sigmoid(margin) with the margin's own factor taken out: see README Eq. 3.
                batch.mean(-pull_KN[m.k, m.row] * logp_M).backward()
            ctx.apply_gradients()
        return {"policy/margin": margins.mean, "train/pairs": count / 2}

    @torch.no_grad()
    def pull(
        self, ctx: TrainContext, traj: Trajectory, partner_N: Tensor, wins_N: Tensor, margins: MeanMeter
    ) -> Tensor:
        """(K, N): how strongly each step is made more (winners) or less (losers) likely."""
        o = self.options
        gain_KN, inside_KN = self.gains(ctx, traj)
        if o.credit == "trajectory":
            gain_KN = gain_KN.sum(0, keepdim=True).expand_as(gain_KN)
        margin_KN = o.beta * wins_N * (gain_KN - gain_KN[:, partner_N])  # the winner's less the loser's
        margins.add(margin_KN[traj.schedule.stochastic.to(margin_KN.device)][:, wins_N > 0])
        return o.beta * wins_N * (-margin_KN).sigmoid() * inside_KN

    def gains(self, ctx: TrainContext, traj: Trajectory) -> tuple[Tensor, Tensor]:
        """(K, N) log-ratio of each step to the starting weights, inside its bounds, and whether it is inside."""
        gain_KN = torch.zeros_like(traj.log_probs)
        inside_KN = torch.ones_like(gain_KN)
        for k in traj.schedule.stochastic.nonzero().flatten().tolist():
            for rows in ctx.micro_batches(len(traj), traj):
                before, after, cond = traj.state(k, rows), traj.state(k + 1, rows), traj.cond[rows]
                there = (before, torch.full_like(rows, k), cond, traj.schedule)
                ours, theirs = (
                    policy.transition(*there).log_prob(after, ctx.logprob_reduction)
                    for policy in (ctx.policy, ctx.reference)
                )
                gain = ours - theirs
                if self.options.eps is not None:
                    elements = clip_elements(ctx.logprob_reduction, before, ctx.policy.mask(cond))
                    low, high = (bound.log().to(gain) for bound in ratio_bounds(self.options.eps, elements))
                    inside_KN[k, rows] = ((gain >= low) & (gain <= high)).to(inside_KN)
                    gain = gain.minimum(high).maximum(low)
                gain_KN[k, rows] = gain
        return gain_KN, inside_KN

    def pair(self, ctx: TrainContext, traj: Trajectory, adv_N: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) advantages -> (N,) each row's partner, and 1 for a winner, -1 for a loser, 0 for a tie or an odd row.

        Samples of a prompt are paired as they come, the first with the second, so that pairs are independent.
        """
        partner_N, wins_N = torch.arange(len(traj), device=adv_N.device), torch.zeros_like(adv_N)
        uniform_N = row_uniform(traj.seeds, "d3po").to(adv_N)
        for group in traj.group.unique():
            rows = (traj.group == group).nonzero().flatten()
            if len(rows) < 2:
                raise ConfigError("one sample per prompt makes no pair", "set rollout.samples_per_prompt to 2 or more")
            for a, b in rows[: len(rows) // 2 * 2].view(-1, 2).tolist():
                difference = float(adv_N[a] - adv_N[b])
                if self.options.preference == "bradley-terry":
                    won = 1.0 if float(uniform_N[a]) < 1 / (1 + math.exp(-difference)) else -1.0
                else:
                    won = float((difference > 0) - (difference < 0))
                partner_N[a], partner_N[b], wins_N[a], wins_N[b] = b, a, won, -won
        return partner_N, wins_N
