"""DGPO: the gradient of the group's preference, the clip, and draws that a group shares."""

from __future__ import annotations

import pytest
import torch
from rlzoo_dgpo import DGPOOptions
from rlzoo_dgpo.algorithm import DGPO
from toy_contexts import TOYS, assert_ranks_agree, gradient, gradient_of, local


def squared(policy, x, cond, t, noise):
    mask = policy.mask(cond)
    prediction = policy.predict(policy.noisy(x, noise, t), t, cond)
    return ((prediction - policy.target(x, noise, t)) ** 2 * mask).sum(1) / mask.sum(1), prediction


def shared(ctx, traj, number, draws):
    """The first row's draw for every row of a group of four."""
    t, noise = ctx.draw(traj, "dgpo", number, draws)
    first = torch.tensor([0, 0, 0, 0, 4, 4, 4, 4])
    return t[first], noise[first]


@pytest.mark.parametrize("kind", TOYS)
def test_the_gradient_is_that_of_the_preference_between_the_parts_of_a_group(kind) -> None:
    """-log sigmoid(-z) / beta over whole groups, off the starting weights, with a penalty."""
    got = gradient(local(kind, shift=0.1), DGPO(DGPOOptions(beta=20.0, draws=2, kl=0.3)))
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout(keep="final")
    advantages, mask = ctx.score(traj).values, ctx.policy.mask(traj.cond)
    total = torch.zeros((), dtype=torch.float64)
    for number in range(2):
        there = (traj.final, traj.cond, *shared(ctx, traj, number, 2))
        (ours, prediction), (theirs, frozen) = squared(ctx.policy, *there), squared(ctx.reference, *there)
        z = 20.0 * (advantages * (ours - theirs.detach())).view(2, 4).mean(1)
        assert z.abs().max() > 0.1
        kl = ((prediction - frozen.detach()) ** 2 * mask).sum(1) / mask.sum(1)
        total = total + (-torch.nn.functional.logsigmoid(-z) / 20.0).mean() / 2 + 0.3 * kl.mean() / 2
    torch.testing.assert_close(got, gradient_of(total, ctx), atol=1e-9, rtol=1e-6)


def test_at_the_starting_weights_it_is_half_the_advantage_weighted_gradient() -> None:
    got = gradient(local(), DGPO(DGPOOptions(draws=1)))
    ctx = local()
    traj = ctx.rollout(keep="final")
    loss, _ = squared(ctx.policy, traj.final, traj.cond, *shared(ctx, traj, 0, 1))
    expected = gradient_of((0.5 * ctx.score(traj).values * loss).mean(), ctx)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-6)


def test_a_sample_that_has_gone_far_enough_its_way_teaches_no_more() -> None:
    """Second update after a push; groups are weighed anew, and who is beyond the clip has no gradient."""

    def context():
        ctx, calls = local(), []
        apply = ctx.apply_gradients

        def moved():
            calls.append(apply())
            with torch.no_grad():
                ctx.policy.bias.add_(0.02 if len(calls) == 1 else 0.0)
            return calls[-1]

        ctx.apply_gradients = moved
        return ctx

    got = gradient(context(), DGPO(DGPOOptions(beta=5.0, draws=1, updates=2, clip=(0.01, 0.005))))
    ctx = local()
    traj = ctx.rollout(keep="final")
    advantages, there = ctx.score(traj).values, (traj.final, traj.cond, *shared(ctx, traj, 0, 1))
    old = squared(ctx.policy, *there)[0].detach()
    with torch.no_grad():
        ctx.policy.bias.add_(0.02)
    loss = squared(ctx.policy, *there)[0]
    z = 5.0 * (advantages * (loss - old)).detach().view(2, 4).mean(1).repeat_interleave(4)
    ratio = (old - loss.detach()).exp()
    stopped = torch.where(advantages > 0, ratio > 1.005, ratio < 0.99)
    assert 0 < int(stopped.sum()) < 8
    expected = (z.sigmoid() * advantages * torch.where(stopped, loss.detach(), loss)).mean()
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)


def test_two_processes_learn_what_one_learns() -> None:
    assert_ranks_agree(lambda: DGPO(DGPOOptions(kl=0.1, updates=2)), steps=2)
