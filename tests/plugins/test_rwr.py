"""RWR: weights against softmax and a sorted list, and the step against the weighted sum of single-sample losses."""

from __future__ import annotations

import pytest
import torch
from rlzoo_rwr import RWROptions
from rlzoo_rwr.algorithm import RWR
from toy_contexts import TOYS, gradient, gradient_of, local


def test_exponential_weights_are_n_times_the_softmax() -> None:
    values = torch.tensor([1.0, -2.0, 0.5])
    weights = RWR(RWROptions(inverse_temperature=0.7)).weights(local(), values)
    torch.testing.assert_close(weights, 3 * torch.softmax(0.7 * values, 0))


@pytest.mark.parametrize(
    ("keep", "values", "weights"),
    [
        (0.25, [1.0, 4.0, 2.0, 3.0], [0, 4, 0, 0]),
        (0.5, [1.0, 4.0, 2.0, 3.0], [0, 2, 0, 2]),
        (0.25, [5.0, 4.0, 5.0, 3.0], [2, 0, 2, 0]),  # a tie is kept whole, and the mean weight stays 1
        (0.01, [1.0, 4.0, 2.0, 3.0], [0, 4, 0, 0]),  # at least one
    ],
)
def test_sparse_weights_keep_the_best(keep: float, values: list[float], weights: list[float]) -> None:
    got = RWR(RWROptions(weighting="sparse", keep=keep)).weights(local(), torch.tensor(values))
    assert got.tolist() == weights


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("weighting", ["exponential", "sparse"])
def test_the_step_is_the_weighted_denoising_loss(kind, weighting: str) -> None:
    options = RWROptions(weighting=weighting, updates=1, inverse_temperature=0.5, keep=0.25)
    got = gradient(local(kind), RWR(options))
    ctx = local(kind)
    traj = ctx.rollout(keep="final")
    t, noise = ctx.draw(traj, "rwr")
    scores = ctx.score(traj).values
    weights = torch.softmax(0.5 * scores, 0) if weighting == "exponential" else (scores >= scores.sort().values[-2]) / 2
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(traj)):
        index = [row]
        loss = ctx.policy.denoising_loss(traj.final[index], traj.cond[index], t[index], noise[index])
        total = total + weights[row] * loss[0]
    torch.testing.assert_close(got, gradient_of(total, ctx), atol=1e-9, rtol=1e-6)


def test_updates_are_counted_and_use_fresh_noise() -> None:
    ctx = local(update=True)
    applied = []
    apply = ctx.apply_gradients
    ctx.apply_gradients = lambda: applied.append(apply()) or applied[-1]
    RWR(RWROptions(updates=3)).step(ctx)
    assert len(set(applied)) == 3
