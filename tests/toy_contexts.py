"""What the algorithms' tests share: an in-memory context on a toy in float64, and the gradient of one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Policy, Trajectory
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.testing.context import LocalContext
from rlzoo.testing.ranks import RankContext, step_on_ranks
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward

TOYS = [GaussianToy, FlowToy]
PROMPTS = ToyPrompts(ToyPromptOptions(train=2)).train()  # of different lengths: padding is part of every test


def local(
    kind: type[Policy] = GaussianToy,
    *,
    samples: int = 4,
    seed: int = 0,
    shift: float = 0.0,
    reward: ToyRewardOptions | None = None,
    update: bool = False,
    recordings: bool = False,
    weight: float = 1.0,
    **table: Any,
) -> LocalContext:
    """A context whose policy is float64 and, with `shift`, has left its reference. Equal arguments: equal rollouts."""
    policy = kind(ToyPolicyOptions()).double()  # type: ignore[call-arg]
    ctx = LocalContext(
        policy,
        ToyReward(reward or ToyRewardOptions(slope=0.3)),
        PROMPTS,
        rollout=RolloutTable(prompts_per_step=2, samples_per_prompt=samples),
        train=TrainTable(**{"advantage": "none", "advantage_clip": 1e9, "grad_clip": 1e9} | table),
        recordings=ToyPrompts(ToyPromptOptions(train=2)).recordings(PROMPTS) if recordings else None,
        seed=seed,
        update=update,
        weight=weight,
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(shift)
    return ctx


def drifted(kind: type[Policy] = GaussianToy, by: float = 0.05, **arguments: Any) -> tuple[LocalContext, Trajectory]:
    """A context whose policy has moved since it sampled the trajectory that every rollout of it gives."""
    ctx = local(kind, **arguments)
    traj = ctx.rollout()
    with torch.no_grad():
        ctx.policy.bias.add_(by)  # type: ignore[union-attr, operator]
    ctx.rollout = lambda *_, **__: traj  # type: ignore[method-assign]
    return ctx, traj


def on_ranks(make: Any, ranks: int, steps: int = 1, *, prompts: int = 3, **table: Any) -> list[RankContext]:
    """Contexts of processes that share the prompts' rows, after `steps` steps; three prompts part unequally."""
    everyone = ToyPrompts(ToyPromptOptions(train=prompts))

    def context() -> RankContext:
        return RankContext(
            GaussianToy(ToyPolicyOptions()).double(),
            ToyReward(ToyRewardOptions()),
            everyone.train(),
            rollout=RolloutTable(prompts_per_step=prompts, samples_per_prompt=4),
            train=TrainTable(**{"learning_rate": 0.02} | table),
            recordings=everyone.recordings(everyone.train()),
        )

    return step_on_ranks(make, context, ranks, steps)


def assert_ranks_agree(make: Any, steps: int = 1, **table: Any) -> None:
    """The last gradient of two processes is that of one."""
    (one,), two = (on_ranks(make, ranks, steps, **table) for ranks in (1, 2))
    for ctx in two:
        for name, expected in one.gradients.items():
            torch.testing.assert_close(ctx.gradients[name], expected, rtol=1e-6, atol=1e-9)


def gradient(ctx: LocalContext, algorithm: Any) -> Tensor:
    """What one step would follow, flat, in the order of the policy's parameters."""
    algorithm.setup(ctx)
    algorithm.step(ctx)
    return torch.cat([ctx.gradients[name].flatten() for name, _ in ctx.policy.named_parameters()])


def gradient_of(loss: Tensor, ctx: LocalContext) -> Tensor:
    """The gradient of a loss that a test has written out."""
    grads = torch.autograd.grad(loss, list(ctx.policy.parameters()))
    return torch.cat([g.flatten() for g in grads])


def bounded(ratio: Tensor, ctx: LocalContext, traj: Trajectory, below: float, above: float) -> Tensor:
    """(..., N) ratios in [1 - below, 1 + above]; with sums each bound is taken to the power of the row's elements."""
    summed = ctx.logprob_reduction == "sum"
    elements = ctx.policy.mask(traj.cond).sum(1) if summed else torch.ones(len(traj))  # type: ignore[union-attr]
    return torch.minimum(torch.maximum(ratio, (1 - below) ** elements), (1 + above) ** elements)


def surrogate(
    ratio: Tensor, advantages: Tensor, ctx: LocalContext, traj: Trajectory, below: float, above: float
) -> Tensor:
    """(..., N) PPO's clipped loss. The fixture must tell its parts: both sides clip, and so do sums by their size."""
    inside = bounded(ratio, ctx, traj, below, above)
    loss = torch.maximum(-advantages * ratio, -advantages * inside)
    assert ((ratio > inside) & (advantages > 0)).any(), "nothing is clipped from above"
    assert ((ratio < inside) & (advantages < 0)).any(), "nothing is clipped from below"
    if ctx.logprob_reduction == "sum":
        unscaled = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - below, 1 + above))
        assert not torch.equal(loss, unscaled), "bounds of single elements would clip the same transitions"
    return loss


def steps_of(traj: Trajectory) -> list[int]:
    """The stochastic steps."""
    return [int(k) for k in traj.schedule.stochastic.nonzero()[:, 0]]


def transition(policy: Policy, traj: Trajectory, k: int) -> Any:
    """The policy's distribution at step k of every row."""
    return policy.transition(traj.states[k], torch.full((len(traj),), k), traj.cond, traj.schedule)


def log_probs(policy: Policy, traj: Trajectory, reduction: Any = "mean") -> Tensor:
    """(steps, N) log-probabilities of the stored transitions, with a graph."""
    return torch.stack([transition(policy, traj, k).log_prob(traj.states[k + 1], reduction) for k in steps_of(traj)])
