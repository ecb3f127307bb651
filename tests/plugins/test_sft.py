"""SFT: the pretraining loss, of samples of the starting weights or of recordings, and nothing else."""

from __future__ import annotations

import pytest
import torch
from rlzoo_sft import SFTOptions
from rlzoo_sft.algorithm import SFT
from toy_contexts import PROMPTS, TOYS, gradient, gradient_of, local

from rlzoo.api import Samples
from rlzoo.errors import DataError
from rlzoo.functional import row_noise, row_uniform


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("kind", TOYS)
def test_the_reference_teaches(kind, draws) -> None:
    got = gradient(local(kind, shift=0.1), SFT(SFTOptions(updates=1, draws=draws)))
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout(keep="final", policy=ctx.reference)
    drawn = [ctx.draw(traj, "sft", part, draws) for part in range(draws)]
    loss = torch.stack([ctx.policy.denoising_loss(traj.final, traj.cond, *one) for one in drawn]).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("draws", [1, 2])
@pytest.mark.parametrize("kind", TOYS)
def test_recordings_teach(kind, draws) -> None:
    """All draws of an update, and none of another update's."""
    got = gradient(local(kind, recordings=True), SFT(SFTOptions(source="recordings", updates=1, draws=draws)))
    ctx = local(kind, recordings=True)
    seed = int(torch.randint(2**62, (1,), generator=ctx.generator))
    x, cond = ctx.policy.supervise(PROMPTS, ctx.recordings(PROMPTS))
    losses = []
    for part in range(draws):
        keys = [f"{seed}/{part}/{prompt.id}" for prompt in PROMPTS]
        t = ctx.policy.sample_times(row_uniform(keys, "time").double())
        noise = row_noise(keys, "noise", x.shape[1:], ctx.policy.lengths(cond).tolist()).double()
        losses.append(ctx.policy.denoising_loss(x.double(), cond, t, noise))
    torch.testing.assert_close(got, gradient_of(torch.stack(losses).mean(), ctx), atol=1e-9, rtol=1e-6)


def test_recordings_are_required_where_they_are_asked_for() -> None:
    with pytest.raises(DataError, match="no recordings"):
        SFT(SFTOptions(source="recordings")).step(local())


def test_recordings_of_other_lengths_than_the_policy_plans_are_refused() -> None:
    ctx = local(recordings=True)
    recordings = ctx.recordings(PROMPTS)
    ctx.recordings = lambda prompts: Samples(recordings.data, recordings.lengths - 1, recordings.media)
    with pytest.raises(DataError, match=r"gives these prompts the lengths \[3, 4\].*have \[2, 3\]"):
        SFT(SFTOptions(source="recordings")).step(ctx)


def test_scores_have_no_influence() -> None:
    algorithm = SFT(SFTOptions())
    assert not algorithm.uses_reward
    ctx = local()
    ctx.score = None  # calling it would raise
    algorithm.step(ctx)
