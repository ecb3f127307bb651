"""OnlyDL: the gradient written out, and scores without influence."""

from __future__ import annotations

import pytest
import torch
from rlzoo_onlydl import OnlyDLOptions
from rlzoo_onlydl.algorithm import OnlyDL
from toy_contexts import TOYS, drifted, gradient, gradient_of, local, log_probs, steps_of, surrogate

from rlzoo.testing.toys import GaussianToy


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_step_is_the_equation(kind, norm: str) -> None:
    got = gradient(local(kind), OnlyDL(OnlyDLOptions(norm=norm, beta=0.6)))
    ctx = local(kind)
    traj = ctx.rollout()
    mask, losses = ctx.policy.mask(traj.cond), []
    for k in steps_of(traj):
        t, x, clean = float(traj.schedule.times[k]), traj.states[k], traj.final
        wanted = (x - (1 - t**2) ** 0.5 * clean) / t if kind is GaussianToy else (x - (1 - t) * clean) / t - clean
        prediction = ctx.policy.predict(x, torch.full((len(traj),), t, dtype=torch.float64), traj.cond)
        distance = (prediction - wanted).abs() if norm == "l1" else (prediction - wanted) ** 2
        losses.append((distance * mask).sum(1) / mask.sum(1))
    loss = torch.stack(losses).detach()
    expected = (0.6 * (loss - loss.mean(1, keepdim=True)) * log_probs(ctx.policy, traj)).mean()
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)
    assert got.norm() > 1e-4


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_off_the_sampling_policy_the_ratio_is_clipped_on_both_sides(reduction: str) -> None:
    table = {"by": 0.03, "logprob_reduction": reduction}
    got = gradient(drifted(**table)[0], OnlyDL(OnlyDLOptions(beta=0.6, clip=(0.004, 0.008))))
    ctx, traj = drifted(**table)
    steps = steps_of(traj)
    losses = OnlyDL(OnlyDLOptions()).diffusion_losses(ctx, traj)[steps]
    reward = -0.6 * (losses - losses.mean(1, keepdim=True))
    ratio = (log_probs(ctx.policy, traj, reduction) - traj.log_probs[steps]).exp()
    loss = surrogate(ratio, reward, ctx, traj, 0.004, 0.008).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


def test_scores_have_no_influence() -> None:
    algorithm = OnlyDL(OnlyDLOptions())
    assert not algorithm.uses_reward
    assert torch.equal(gradient(local(), algorithm), gradient(local(weight=-3.0), algorithm))


def test_nothing_is_scored_when_nobody_watches() -> None:
    ctx = local()
    ctx.score = None  # calling it would raise
    OnlyDL(OnlyDLOptions(monitor=False)).step(ctx)
