"""Adjoint Matching (arXiv:2409.08861): each step's mean is regressed on where the reward's gradient would push it.

Suffixes: N rows, K denoising steps, S one state's shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from rlzoo.api import Algorithm, TrainContext, Trajectory
from rlzoo.functional import MeanMeter, element_std, masked_mean, num_elements, per_row
from rlzoo_adjoint_matching import AdjointMatchingOptions


class AdjointMatching(Algorithm[AdjointMatchingOptions]):
    """One step: sample, take the reward's gradient at the samples, carry it back, match it at every step."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; see `Algorithm.step`."""
        traj = ctx.rollout()
        adjoint_KNS = self.adjoints(ctx, traj)
        steps = self.matched(ctx, traj)
        losses = MeanMeter()
        for k in steps:
            for rows in ctx.micro_batches(len(traj), traj):
                there = (traj.state(k, rows), torch.full_like(rows, k), traj.cond[rows], traj.schedule)
                dist = ctx.policy.transition(*there)
                with torch.no_grad():
                    base = ctx.reference.transition(*there)
                std = element_std(dist)
                control = (dist.mode - base.mode) / std
                loss = masked_mean((control - std * adjoint_KNS[k][rows]) ** 2, ctx.policy.mask(traj.cond[rows]))
                traj.mean(loss / len(steps)).backward()
                losses.add(loss)
        ctx.apply_gradients()
        return {"policy/matching_loss": losses.mean}

    def adjoints(self, ctx: TrainContext, traj: Trajectory) -> dict[int, Tensor]:
        """By step k with a density, (N, *S): the gradient of r / beta at x[K], carried back to x[k + 1].

        Lean: carried through the starting weights' steps, not the policy's. A step without a density cannot be
        controlled, so it is taken as it is.
        """
        adjoint = self.reward_gradient(ctx, traj)
        found: dict[int, Tensor] = {}
        stochastic = traj.schedule.stochastic.tolist()
        for k in reversed(range(stochastic.index(True), len(stochastic))):
            if stochastic[k]:
                found[k] = adjoint
            if k == stochastic.index(True):
                break
            through = ctx.reference if stochastic[k] else ctx.policy
            pieces = []
            for rows in ctx.micro_batches(len(traj), traj):
                x = traj.state(k, rows).detach().requires_grad_()
                with torch.enable_grad():
                    mode = through.transition(x, torch.full_like(rows, k), traj.cond[rows], traj.schedule).mode
                pieces.append(torch.autograd.grad(mode, x, adjoint[rows].to(mode))[0])
            adjoint = torch.cat(pieces)
        return found

    def reward_gradient(self, ctx: TrainContext, traj: Trajectory) -> Tensor:
        """(N, *S): the gradient of r / beta at the clean states; with log-probabilities per element, so is beta."""
        x = traj.final.detach().requires_grad_()
        with torch.enable_grad():
            samples = ctx.policy.decode(x, traj.cond)
            scores = ctx.score(replace(traj, samples=samples), grad=True).values
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        mask = ctx.policy.mask(traj.cond)
        gradient = gradient / self.options.beta
        if ctx.logprob_reduction == "mean":
            gradient = gradient * per_row(num_elements(x, mask), x)
        return gradient if mask is None else gradient * mask

    def matched(self, ctx: TrainContext, traj: Trajectory) -> list[int]:
        """The steps of this optimisation step, the same for all rows."""
        steps: list[int] = traj.schedule.stochastic.nonzero().flatten().tolist()
        count = self.options.steps
        if count is None or count >= len(steps):
            return steps
        order = torch.randperm(len(steps) - 1, generator=ctx.generator)[: count - 1]
        return sorted([*(steps[index] for index in order.tolist()), steps[-1]])
