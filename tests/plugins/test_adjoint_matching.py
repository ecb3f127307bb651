"""Adjoint Matching: adjoints against automatic differentiation of the whole chain, the loss written out."""

from __future__ import annotations

import pytest
import torch
from rlzoo_adjoint_matching import AdjointMatchingOptions
from rlzoo_adjoint_matching.algorithm import AdjointMatching
from toy_contexts import PROMPTS, TOYS, assert_ranks_agree, gradient, gradient_of, local, steps_of, transition

from rlzoo.testing import closed_form
from rlzoo.testing.specs import ToyRewardOptions

REWARD = ToyRewardOptions()  # quadratic


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_adjoints_are_the_gradient_of_the_score_through_the_steps_that_follow(kind, reduction: str) -> None:
    """At the starting weights lean and full adjoint agree: differentiate the rest of the chain with its noise held."""
    ctx = local(kind, reward=REWARD, logprob_reduction=reduction)
    traj = ctx.rollout()
    found = AdjointMatching(AdjointMatchingOptions(beta=0.2)).adjoints(ctx, traj)
    mask, steps = ctx.policy.mask(traj.cond), len(traj.schedule)
    elements = mask.sum(1, keepdim=True) if reduction == "mean" else 1.0
    assert sorted(found) == steps_of(traj)
    for k in steps_of(traj):
        x = start = traj.states[k + 1].clone().requires_grad_()
        for later in range(k + 1, steps):
            drawn = traj.states[later + 1] - transition(ctx.policy, traj, later).mode.detach()
            index = torch.full((len(traj),), later)
            x = ctx.policy.transition(x, index, traj.cond, traj.schedule).mode + drawn
        score = (-((x - REWARD.target) ** 2) * mask).sum(1) / mask.sum(1)
        (expected,) = torch.autograd.grad(score.sum(), start)
        torch.testing.assert_close(found[k], expected * elements / 0.2, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("kind", TOYS)
def test_the_loss_is_the_equation_and_its_adjoint_is_lean(kind) -> None:
    """A policy that has left its starting weights: their Jacobians carry the gradient back, not its own."""
    got = gradient(local(kind, shift=0.1), AdjointMatching(AdjointMatchingOptions(beta=0.2)))
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout()
    found = AdjointMatching(AdjointMatchingOptions(beta=0.2)).adjoints(ctx, traj)
    theirs, mine = (closed_form.chain(policy, PROMPTS) for policy in (ctx.reference, ctx.policy))
    rows = torch.arange(2).repeat_interleave(4)
    for k in steps_of(traj)[:-1]:
        torch.testing.assert_close(found[k], theirs.gain[k + 1][rows] * found[k + 1], atol=1e-9, rtol=1e-6)
        assert not torch.allclose(theirs.gain[k + 1], mine.gain[k + 1])
    losses, mask = [], ctx.policy.mask(traj.cond)
    for k in steps_of(traj):
        ours, base = transition(ctx.policy, traj, k), transition(ctx.reference, traj, k)
        std = ours.std[:, None]
        difference = (ours.mean - base.mean.detach()) / std - std * found[k]
        losses.append((difference**2 * mask).sum(1) / mask.sum(1))
    torch.testing.assert_close(got, gradient_of(torch.stack(losses).mean(), ctx), atol=1e-9, rtol=1e-6)


def test_some_steps_may_stand_for_all_and_the_last_is_always_among_them() -> None:
    ctx, algorithm = local(), AdjointMatching(AdjointMatchingOptions(steps=2))
    chosen = [algorithm.matched(ctx, ctx.rollout()) for _ in range(30)]
    assert all(len(steps) == 2 and steps[-1] == 3 for steps in chosen)
    assert {steps[0] for steps in chosen} == {0, 1, 2}
    assert AdjointMatching(AdjointMatchingOptions()).matched(ctx, ctx.rollout()) == [0, 1, 2, 3]


def test_two_processes_learn_what_one_learns() -> None:
    assert_ranks_agree(lambda: AdjointMatching(AdjointMatchingOptions(steps=2)), steps=2)
