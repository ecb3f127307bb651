"""AWM: the first gradient, the ratio between updates, the anchor."""

from __future__ import annotations

import pytest
import torch
from rlzoo_awm import AWMOptions
from rlzoo_awm.algorithm import AWM
from toy_contexts import TOYS, gradient, gradient_of, local


@pytest.mark.parametrize("anchor", ["reference", "ema"])
def test_off_the_sampling_policy_the_ratio_the_clip_and_the_anchor_are_the_equations(anchor) -> None:
    """Second update of a step, with an average that has left the starting weights: all parts differ."""

    def prepared():
        ctx = local(shift=0.1, samples=16)
        algorithm = AWM(AWMOptions(draws=1, updates=2, kl=0.3, anchor=anchor, clip=(0.001, 0.0005)))
        algorithm.setup(ctx)
        if algorithm.anchor is not None:
            with torch.no_grad():
                algorithm.anchor.bias.sub_(0.2)
        algorithm.setup = lambda ctx: None
        apply, calls = ctx.apply_gradients, []

        def moved() -> float:  # the first update is a fixed push
            calls.append(apply())
            with torch.no_grad():
                ctx.policy.bias.add_(0.01 if len(calls) == 1 else 0.0)
            return calls[-1]

        ctx.apply_gradients = moved
        return ctx, algorithm

    got = gradient(*prepared())
    ctx, algorithm = prepared()
    traj = ctx.rollout(keep="final")
    advantages, mask = ctx.score(traj).values, ctx.policy.mask(traj.cond)
    t, noise = ctx.draw(traj, "awm", 0, 1)
    x_t, target = ctx.policy.noisy(traj.final, noise, t), ctx.policy.target(traj.final, noise, t)

    def distance(a, b):
        return ((a - b) ** 2 * mask).sum(1) / mask.sum(1)

    old = distance(ctx.policy.predict(x_t, t, traj.cond), target).detach()
    with torch.no_grad():
        ctx.policy.bias.add_(0.01)
    prediction = ctx.policy.predict(x_t, t, traj.cond)
    ratio = (old - distance(prediction, target)).exp()
    clipped = ratio.clamp(0.999, 1.0005)
    assert (ratio < 0.999).any()
    assert (ratio > 1.0005).any()
    assert (clipped == ratio).any()
    kl = distance(prediction, (algorithm.anchor or ctx.reference).predict(x_t, t, traj.cond).detach())
    loss = (torch.maximum(-advantages * ratio, -advantages * clipped) + 0.3 * kl).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("kind", TOYS)
def test_the_first_update_is_the_advantage_weighted_matching_loss(kind) -> None:
    got = gradient(local(kind, shift=0.1), AWM(AWMOptions(draws=2, kl=0.3)))
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout(keep="final")
    advantages, mask = ctx.score(traj).values, ctx.policy.mask(traj.cond)
    total = torch.zeros((), dtype=torch.float64)
    for draw in range(2):
        t, noise = ctx.draw(traj, "awm", draw, 2)
        x_t = ctx.policy.noisy(traj.final, noise, t)
        prediction = ctx.policy.predict(x_t, t, traj.cond)
        error = (prediction - ctx.policy.target(traj.final, noise, t)) ** 2
        shift = (prediction - ctx.reference.predict(x_t, t, traj.cond)) ** 2
        matching, kl = (((part * mask).sum(1) / mask.sum(1)) for part in (error, shift))
        total = total + (advantages * matching + 0.3 * kl).mean() / 2
    torch.testing.assert_close(got, gradient_of(total, ctx), atol=1e-9, rtol=1e-6)


def test_the_ratio_leaves_one_with_the_second_update_and_is_then_clipped() -> None:
    metrics = {}
    for updates in (1, 3):
        ctx = local(update=True, learning_rate=0.01, weight=-1.0)  # positive scores: everything is learnt
        metrics[updates] = AWM(AWMOptions(updates=updates, clip=1e-4)).step(ctx)
    assert metrics[1] | {"policy/ratio_max": 1.0, "policy/clip_fraction": 0.0} == metrics[1]
    assert metrics[3]["policy/ratio_max"] > 1.00001
    assert metrics[3]["policy/clip_fraction"] > 0


def test_the_anchor_follows_slowly_and_survives_a_checkpoint() -> None:
    ctx, algorithm = local(update=True), AWM(AWMOptions(anchor="ema", anchor_decay=0.75, kl=0.1))
    algorithm.setup(ctx)
    start = ctx.policy.bias.detach().clone()
    algorithm.step(ctx)
    torch.testing.assert_close(algorithm.anchor.bias, 0.75 * start + 0.25 * ctx.policy.bias.detach())
    resumed = AWM(AWMOptions(anchor="ema"))
    resumed.setup(local())
    resumed.load_state_dict(algorithm.state_dict())
    assert torch.equal(resumed.anchor.bias, algorithm.anchor.bias)
    assert AWM(AWMOptions()).state_dict() == {}
