"""KLinR: what each step is charged. Which estimators are unbiased: `tests/test_unbiased.py`."""

from __future__ import annotations

import pytest
import torch
from rlzoo_klinr import KLinROptions
from rlzoo_klinr.algorithm import KLinR
from toy_contexts import TOYS, local, log_probs, steps_of, transition


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_divergence_is_the_formula(kind, estimator: str) -> None:
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout()
    got = KLinR(KLinROptions(estimator=estimator)).divergence(ctx, traj)
    ours, theirs = (log_probs(policy, traj).detach() for policy in (ctx.policy, ctx.reference))
    log_ratio = ours - theirs
    expected = {
        "k1": log_ratio,
        "k2": log_ratio**2 / 2,
        "k3": (-log_ratio).exp() - 1 + log_ratio,
        "exact": torch.stack(
            [transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k)).detach() for k in steps_of(traj)]
        ),
    }[estimator]
    torch.testing.assert_close(got[:-1], expected)
    assert not got[-1].any()  # the deterministic last step


def test_a_step_is_charged_for_what_comes_after_it() -> None:
    kl = torch.tensor([[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]])
    ctx = local()
    k1 = KLinR(KLinROptions(estimator="k1")).charge(ctx, kl)
    assert k1.tolist() == [[1.0, -1.0], [2.0, -2.0], [2.0, -2.0]]  # sums 7,5 / 6,2 / 4,0 less their means
    exact = KLinR(KLinROptions(estimator="exact")).charge(ctx, kl)
    assert exact.tolist() == [[2.0, -2.0], [2.0, -2.0], [0.0, 0.0]]  # sums 6,2 / 4,0 / 0,0: not its own
