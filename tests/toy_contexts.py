"""What the algorithms' tests share: an in-memory context on a toy in float64, and the gradient of one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Policy, Trajectory
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.testing.context import LocalContext
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


def gradient(ctx: LocalContext, algorithm: Any) -> Tensor:
    """What one step would follow, flat, in the order of the policy's parameters."""
    algorithm.setup(ctx)
    algorithm.step(ctx)
    return torch.cat([ctx.gradients[name].flatten() for name, _ in ctx.policy.named_parameters()])


def gradient_of(loss: Tensor, ctx: LocalContext) -> Tensor:
    """The gradient of a loss that a test has written out."""
    grads = torch.autograd.grad(loss, list(ctx.policy.parameters()))
    return torch.cat([g.flatten() for g in grads])


def steps_of(traj: Trajectory) -> list[int]:
    """The stochastic steps."""
    return [int(k) for k in traj.schedule.stochastic.nonzero()[:, 0]]


def transition(policy: Policy, traj: Trajectory, k: int) -> Any:
    """The policy's distribution at step k of every row."""
    return policy.transition(traj.states[k], torch.full((len(traj),), k), traj.cond, traj.schedule)


def log_probs(policy: Policy, traj: Trajectory, reduction: Any = "mean") -> Tensor:
    """(steps, N) log-probabilities of the stored transitions, with a graph."""
    return torch.stack([transition(policy, traj, k).log_prob(traj.states[k + 1], reduction) for k in steps_of(traj)])
