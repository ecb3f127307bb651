"""KLinR: what each step is charged, and which estimators give the gradient of the penalised objective."""

from __future__ import annotations

import pytest
import torch
from rlzoo_klinr import KLinROptions
from rlzoo_klinr.algorithm import KLinR
from toy_contexts import TOYS, gradient, gradient_of, local, log_probs, steps_of, transition, z_scores


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


def objective_gradient(kind, seed: int, beta: float):
    """The pathwise gradient of E[r] - beta E[sum KL], from a rollout with its graph."""
    ctx = local(kind, samples=200, seed=seed, shift=0.1)
    traj = ctx.rollout(grad_steps=len(ctx.policy.schedule()))
    kl = sum(transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k), "sum") for k in steps_of(traj))
    return gradient_of((ctx.score(traj, grad=True).values - beta * kl).mean(), ctx), ctx


def z_of(kind, estimator: str, beta: float, assumed: float, batches: int = 25):
    estimates, truths = [], []
    for seed in range(batches):
        ctx = local(kind, samples=200, seed=seed, shift=0.1, logprob_reduction="sum")
        steps = len(ctx.policy.schedule()) - 1
        estimates.append(-steps * gradient(ctx, KLinR(KLinROptions(estimator=estimator, beta=beta))))
        truth, ctx = objective_gradient(kind, 1000 + seed, assumed)
        truths.append(truth)
    return z_scores(estimates, truths, ctx)


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("estimator", ["k1", "exact"])
def test_k1_and_exact_are_the_gradient_of_the_penalised_objective(kind, estimator: str) -> None:
    z = z_of(kind, estimator, 0.3, 0.3)
    assert z.pow(2).mean() < 1.9
    assert z.abs().max() < 5


def test_the_test_above_would_see_a_missing_penalty() -> None:
    assert z_of(TOYS[1], "exact", 1.0, 0.0).pow(2).mean() > 3
