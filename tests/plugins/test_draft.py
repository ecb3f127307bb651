"""DRaFT and AlignProp: the chain written out, checkpointing, random depths."""

from __future__ import annotations

import pytest
import torch
from rlzoo_draft import DRaFTOptions
from rlzoo_draft.algorithm import DRaFT
from toy_contexts import TOYS, gradient, gradient_of, local


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_gradient_is_that_of_the_last_steps(kind, steps: int) -> None:
    got = gradient(local(kind), DRaFT(DRaFTOptions(steps=steps)))
    ctx = local(kind)
    traj = ctx.rollout()
    x = traj.states[5 - steps]
    for k in range(5 - steps, 5):
        dist = ctx.policy.transition(x, torch.full((len(traj),), k), traj.cond, traj.schedule)
        if traj.schedule.stochastic[k]:  # the noise that the rollout drew, read off its stored states
            with torch.no_grad():
                stored = ctx.policy.transition(traj.states[k], torch.full((len(traj),), k), traj.cond, traj.schedule)
                noise = (traj.states[k + 1] - stored.mean) / stored.std[:, None]
            x = dist.rsample(noise)
        else:
            x = dist.mode
    mask = ctx.policy.mask(traj.cond)
    score = ((0.3 * x - (x - 1) ** 2) * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(got, gradient_of(-score.mean(), ctx), atol=1e-9, rtol=1e-6)
    assert got.norm() > 1e-3


def test_checkpointing_changes_nothing_and_is_gone_afterwards() -> None:
    ctx = local()
    with_it = gradient(ctx, DRaFT(DRaFTOptions(steps=4)))
    without = gradient(local(), DRaFT(DRaFTOptions(steps=4, checkpointing=False)))
    torch.testing.assert_close(with_it, without, atol=1e-12, rtol=1e-12)
    assert "forward" not in vars(ctx.policy)


def test_alignprop_draws_its_depth_from_the_runs_generator_and_stays_in_range() -> None:
    options = DRaFTOptions(form="alignprop", steps=3, spread=2.0)
    ctx, draw = local(), local().generator
    depths = [DRaFT(options).num_grad_steps(ctx) for _ in range(40)]
    drawn = [round(3 + 2.0 * float(torch.randn((), generator=draw))) for _ in range(40)]
    assert depths == [min(max(depth, 1), 5) for depth in drawn]
    assert set(depths) == {1, 2, 3, 4, 5}
    assert DRaFT(DRaFTOptions(steps=99)).num_grad_steps(local()) == 5
