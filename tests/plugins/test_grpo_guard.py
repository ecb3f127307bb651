"""GRPO-Guard: the normalised ratio, written out, off the policy that sampled."""

from __future__ import annotations

import pytest
import torch
from rlzoo_grpo_guard import GRPOGuardOptions
from rlzoo_grpo_guard.algorithm import GRPOGuard
from toy_contexts import (
    TOYS,
    assert_ranks_agree,
    drifted,
    gradient,
    gradient_of,
    local,
    log_probs,
    steps_of,
    transition,
)

from rlzoo.functional import frozen_copy


def after_a_push(kind, **table):
    """A step whose policy is pushed after it has sampled, before its first gradient: as in a second update."""
    ctx, traj = drifted(kind, by=0.0, **table)
    minibatches = ctx.minibatches

    def pushed(trajectory):
        with torch.no_grad():
            ctx.policy.bias.add_(0.05)
        yield from minibatches(trajectory)

    ctx.minibatches = pushed
    return ctx, traj


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("reweight", [True, False])
def test_the_loss_is_the_equation(kind, reduction: str, reweight: bool) -> None:
    options = GRPOGuardOptions(clip=(0.004, 0.001), reweight=reweight)
    got = gradient(after_a_push(kind, logprob_reduction=reduction)[0], GRPOGuard(options))
    ctx, traj = after_a_push(kind, logprob_reduction=reduction)
    old = frozen_copy(ctx.policy)
    with torch.no_grad():
        ctx.policy.bias.add_(0.05)
    scores, mask = ctx.score(traj).values, ctx.policy.mask(traj.cond)
    elements = mask.sum(1) if reduction == "sum" else torch.ones(len(traj))
    losses, clipped = [], 0
    for k in steps_of(traj):
        ours, theirs = transition(ctx.policy, traj, k), transition(old, traj, k)
        # (mu - mu_old) times the standard normal that was drawn, from the stored states.
        noise = (traj.states[k + 1] - theirs.mean) / theirs.std[:, None]
        log_ratio = ((ours.mean - theirs.mean) * noise * mask).sum(1)
        ratio = (log_ratio / (1 if reduction == "sum" else mask.sum(1))).exp()
        bounded = torch.minimum(torch.maximum(ratio, 0.996**elements), 1.001**elements)
        clipped += int((ratio != bounded).sum())
        length = float(traj.schedule.times[k] - traj.schedule.times[k + 1]) if reweight else 1.0
        losses.append(torch.maximum(-scores * ratio, -scores * bounded) / length)
    assert 0 < clipped < len(losses) * len(traj)
    torch.testing.assert_close(got, gradient_of(torch.stack(losses).mean(), ctx), atol=1e-9, rtol=1e-6)


def test_the_normalised_ratio_is_centred_where_the_plain_one_is_not() -> None:
    """Means over 4000 rows: the plain log-ratio lies below 0 by the divergence, the normalised one at 0."""
    ctx, traj = drifted(TOYS[1], by=0.0, samples=2000)
    old = frozen_copy(ctx.policy)
    with torch.no_grad():
        ctx.policy.bias.add_(0.5)
        plain = log_probs(ctx.policy, traj) - log_probs(old, traj)
        for row, k in enumerate(steps_of(traj)):
            ours, theirs = transition(ctx.policy, traj, k), transition(old, traj, k)
            normal = ours.std * (plain[row] + ours.kl(theirs))
            error = float(normal.std()) / len(traj) ** 0.5
            assert abs(float(normal.mean())) < 4 * error
            assert float((ours.std * plain[row]).mean()) < -4 * error


def test_the_weights_that_sampled_are_those_of_this_step() -> None:
    """In the second step the first update is again one of ratio 1, whatever the first step has done."""
    ctx, algorithm = local(update=True, learning_rate=0.05, minibatch=8), GRPOGuard(GRPOGuardOptions())
    algorithm.setup(ctx)
    algorithm.step(ctx)
    first = []
    transition = algorithm.old.transition

    def heard(*args):
        first.append(
            [torch.equal(a, b) for a, b in zip(*map(list, (sampled, algorithm.old.parameters())), strict=True)]
        )
        return transition(*args)

    sampled = [p.detach().clone() for p in ctx.policy.parameters()]
    algorithm.old.transition = heard
    algorithm.step(ctx)
    assert len(first) > 1
    assert all(all(same) for same in first)
    assert not any(torch.equal(a, b) for a, b in zip(sampled, ctx.policy.parameters(), strict=True))


def test_two_processes_learn_what_one_learns() -> None:
    assert_ranks_agree(lambda: GRPOGuard(GRPOGuardOptions(clip=0.1)), steps=2)
