"""D3PO: pairs, margins, the clamp, and the gradient of the loss as the paper writes it."""

from __future__ import annotations

import math

import pytest
import torch
from rlzoo_d3po import D3POOptions
from rlzoo_d3po.algorithm import D3PO
from toy_contexts import TOYS, assert_ranks_agree, gradient, gradient_of, local, log_probs

from rlzoo.errors import ConfigError


def pairs_of(scores):
    """(winner, loser) of rows (0, 1), (2, 3) and so on."""
    return [(a, a + 1) if scores[a] > scores[a + 1] else (a + 1, a) for a in range(0, len(scores), 2)]


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("credit", ["step", "trajectory"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("eps", [None, 0.02])
def test_the_gradient_is_that_of_the_loss(kind, credit: str, reduction: str, eps: float | None) -> None:
    table = {"shift": 0.03, "logprob_reduction": reduction}
    got = gradient(local(kind, **table), D3PO(D3POOptions(beta=2.0, credit=credit, eps=eps)))
    ctx = local(kind, **table)
    traj = ctx.rollout()
    gains = log_probs(ctx.policy, traj, reduction) - log_probs(ctx.reference, traj, reduction).detach()
    if eps is not None:
        elements = ctx.policy.mask(traj.cond).sum(1) if reduction == "sum" else torch.ones(len(traj))
        low, high = elements * math.log1p(-eps), elements * math.log1p(eps)
        bounded = torch.minimum(torch.maximum(gains, low), high)
        assert 0 < int((bounded != gains).sum()) < gains.numel()
        gains = bounded
    if credit == "trajectory":
        gains = gains.sum(0, keepdim=True)
    losses = [
        -torch.nn.functional.logsigmoid(2.0 * (gains[:, w] - gains[:, l])) for w, l in pairs_of(ctx.score(traj).values)
    ]
    # Every transition is one of a pair's two, and the mean runs over all of them.
    steps = len(traj.log_probs) - 1
    loss = torch.stack(losses).sum() / (len(traj) * steps)
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-8, rtol=1e-6)
    assert got.norm() > 1e-4


def test_ties_and_odd_rows_teach_nothing_and_one_sample_is_no_pair() -> None:
    ctx = local(samples=3)
    values = torch.tensor([1.0, 2.0, 9.0, 5.0, 5.0, 0.0])
    partner, wins = D3PO(D3POOptions()).pair(ctx, ctx.rollout(), values)
    assert wins.tolist() == [-1, 1, 0, 0, 0, 0]
    assert partner.tolist()[:2] == [1, 0]
    alone = local(samples=1)
    with pytest.raises(ConfigError, match="no pair"):
        D3PO(D3POOptions()).pair(alone, alone.rollout(), torch.zeros(2))


def test_people_s_choices_have_the_odds_of_their_advantages() -> None:
    ctx = local(samples=4000)
    traj = ctx.rollout()
    values = torch.tensor([0.0, 1.2]).repeat(4000)
    algorithm = D3PO(D3POOptions(preference="bradley-terry"))
    wins = algorithm.pair(ctx, traj, values)[1].view(-1, 2)
    assert (wins[:, 0] == -wins[:, 1]).all()
    share, expected = float((wins[:, 1] > 0).double().mean()), 1 / (1 + math.exp(-1.2))
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5)


def test_two_processes_learn_what_one_learns() -> None:
    for options in ({}, {"credit": "trajectory", "preference": "bradley-terry", "eps": None}):
        assert_ranks_agree(lambda options=options: D3PO(D3POOptions(**options)), steps=2)
