"""Best-of-N: which samples are learnt, and that only they are."""

from __future__ import annotations

import pytest
import torch
from rlzoo_bon import BoNOptions
from rlzoo_bon.algorithm import BoN
from toy_contexts import TOYS, assert_ranks_agree, gradient, gradient_of, local

from rlzoo.errors import ConfigError


def test_the_best_of_each_prompt_are_chosen_and_the_first_where_scores_are_tied() -> None:
    traj = local(samples=3).rollout()
    values = torch.tensor([1.0, 3.0, 2.0, 7.0, 7.0, 5.0])
    assert BoN(BoNOptions()).choose(values, traj).tolist() == [False, True, False, True, False, False]
    assert BoN(BoNOptions(best=2)).choose(values, traj).tolist() == [False, True, True, True, True, False]


def test_choosing_all_is_refused() -> None:
    traj = local(samples=2).rollout()
    with pytest.raises(ConfigError, match="chooses nothing"):
        BoN(BoNOptions(best=2)).choose(torch.zeros(4), traj)


@pytest.mark.parametrize("kind", TOYS)
def test_the_step_is_the_denoising_loss_of_the_best(kind) -> None:
    got = gradient(local(kind), BoN(BoNOptions(updates=1)))
    ctx = local(kind)
    traj = ctx.rollout(keep="final")
    scores = ctx.score(traj).values
    rows = [int(scores[:4].argmax()), 4 + int(scores[4:].argmax())]
    t, noise = ctx.draw(traj, "bon")
    loss = ctx.policy.denoising_loss(traj.final[rows], traj.cond[rows], t[rows], noise[rows]).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


def test_two_processes_learn_what_one_learns() -> None:
    """Three prompts, so that one process has two of the best and the other one."""
    assert_ranks_agree(lambda: BoN(BoNOptions(updates=1)))
