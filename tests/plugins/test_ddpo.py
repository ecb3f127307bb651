"""DDPO's step against a plain float64 reference; `tests/test_unbiased.py` has its expectation."""

from __future__ import annotations

import math

import pytest
import torch
from plain.chains import ddpm_step, flow_step, mean_log_density
from rlzoo_ddpo import DDPOOptions
from rlzoo_ddpo.algorithm import DDPO
from toy_contexts import TOYS, drifted, gradient, gradient_of, local, log_probs

from rlzoo.testing.toys import GaussianToy


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("clip", [0.01, 0.05])
def test_the_whole_step_is_the_plain_reference(kind, clip: float) -> None:
    """Sampled by one policy, trained by another: ratios on both sides of the clip, one transition at a time."""

    def drifted():
        ctx = local(kind, seed=3)
        traj = ctx.rollout()
        with torch.no_grad():
            for i, parameter in enumerate(ctx.policy.parameters()):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        ctx.rollout = lambda: traj
        return ctx, traj

    ctx, _ = drifted()
    got = gradient(ctx, DDPO(DDPOOptions(clip=clip)))

    ctx, traj = drifted()
    scores = ctx.score(traj).values
    total, count, clipped = torch.zeros((), dtype=torch.float64), 0, 0
    for k in range(len(traj.schedule) - 1):
        t, s = float(traj.schedule.times[k]), float(traj.schedule.times[k + 1])
        output = ctx.policy.predict(traj.states[k], torch.full((len(traj),), t, dtype=torch.float64), traj.cond)
        if kind is GaussianToy:
            mean, std = ddpm_step(traj.states[k], output, t, s)
        else:
            left = 1 - (t if t < 1 else float(traj.schedule.times[1]))
            mean, std = flow_step(traj.states[k], output, t, s, 0.7 * math.sqrt(t / left))
        for row in range(len(traj)):
            logp = mean_log_density(traj.states[k + 1, row], mean[row], std, int(traj.samples.lengths[row]))
            ratio = (logp - traj.log_probs[k, row]).exp()
            bounded = ratio if 1 - clip < float(ratio.detach()) < 1 + clip else ratio.detach().clamp(1 - clip, 1 + clip)
            clipped += bounded is not ratio
            total = total + torch.maximum(-scores[row] * ratio, -scores[row] * bounded)
            count += 1
    assert 0 < clipped < count
    torch.testing.assert_close(got, gradient_of(total / count, ctx), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", TOYS)
def test_both_estimators_agree_at_the_policy_that_sampled(kind) -> None:
    importance = gradient(local(kind), DDPO(DDPOOptions(estimator="is")))
    score = gradient(local(kind), DDPO(DDPOOptions(estimator="sf")))
    torch.testing.assert_close(importance, score, atol=1e-12, rtol=1e-9)
    assert score.norm() > 0


def test_sums_of_log_probabilities_clip_where_means_do() -> None:
    """The same drift is clipped in the same transitions, whichever way log-probabilities are reduced."""
    fractions = []
    for reduction in ("mean", "sum"):
        ctx = local(GaussianToy, logprob_reduction=reduction)
        traj = ctx.rollout()
        with torch.no_grad():
            ctx.policy.bias.add_(0.01)
        ctx.rollout = lambda traj=traj: traj
        fractions.append(DDPO(DDPOOptions(clip=0.01)).step(ctx)["policy/clip_fraction"])
    assert fractions[0] == fractions[1]
    assert 0 < fractions[0] < 1


def test_sums_are_clipped_where_means_are_and_each_row_by_its_own_size() -> None:
    """(1 -+ clip) ** elements, off the sampling policy: an unscaled clip would stop every transition of a long row."""
    table = {"by": 0.02, "logprob_reduction": "sum"}
    ctx, _ = drifted(**table)
    got = gradient(ctx, DDPO(DDPOOptions(clip=(0.004, 0.002))))
    ctx, traj = drifted(**table)
    logp, scores = log_probs(ctx.policy, traj, "sum"), ctx.score(traj).values
    elements = ctx.policy.mask(traj.cond).sum(1)
    assert len(elements.unique()) == 2
    ratio = (logp - traj.log_probs[: len(logp)]).exp()
    bounded = torch.minimum(torch.maximum(ratio, 0.996**elements), 1.002**elements)
    assert (ratio != bounded).any()
    assert (ratio == bounded).any()
    assert ((ratio == bounded) & ((ratio < 0.996) | (ratio > 1.002))).any()
    loss = torch.maximum(-scores * ratio, -scores * bounded).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)
