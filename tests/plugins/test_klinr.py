"""KLinR: what each step is charged. Which estimators are unbiased: `tests/test_unbiased.py`."""

from __future__ import annotations

import pytest
import torch
from rlzoo_klinr import KLinROptions
from rlzoo_klinr.algorithm import KLinR
from toy_contexts import (
    TOYS,
    assert_ranks_agree,
    drifted,
    gradient,
    gradient_of,
    local,
    log_probs,
    steps_of,
    transition,
)


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_divergence_is_the_formula(kind, estimator: str) -> None:
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout()
    got = KLinR(KLinROptions(estimator=estimator)).divergence(ctx, traj)
    # Of the whole state, in nats; what is charged is per element, as the ratio is.
    ours, theirs = (log_probs(policy, traj, "sum").detach() for policy in (ctx.policy, ctx.reference))
    log_ratio, elements = ours - theirs, ctx.policy.mask(traj.cond).sum(1)
    expected = {
        "k1": log_ratio / elements,
        "k2": log_ratio**2 / 2 / elements,
        "k3": ((-log_ratio).exp() - 1 + log_ratio) / elements,
        "exact": torch.stack(
            [transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k)).detach() for k in steps_of(traj)]
        ),
    }[estimator]
    torch.testing.assert_close(got[:-1], expected)
    assert not got[-1].any()  # the deterministic last step


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_estimates_agree_with_the_exact_kl_in_either_reduction(kind, estimator: str) -> None:
    for reduction in ("mean", "sum"):
        means = {}
        for name in (estimator, "exact"):
            ctx = local(kind, shift=0.3, samples=1500, logprob_reduction=reduction)
            means[name] = KLinR(KLinROptions(estimator=name)).divergence(ctx, ctx.rollout())[:-1]
        error = means[estimator].std(1) / means[estimator].shape[1] ** 0.5
        difference = (means[estimator] - means["exact"]).mean(1).abs()
        assert (difference < 4 * error + 1e-12).all()
        assert (error < 0.2 * means["exact"].mean(1)).all()  # small enough to see a value that is half or less


def test_a_step_is_charged_for_what_comes_after_it() -> None:
    kl = torch.tensor([[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]])
    ctx = local()
    k1 = KLinR(KLinROptions(estimator="k1")).penalty(ctx, kl)
    assert k1.tolist() == [[1.0, -1.0], [2.0, -2.0], [2.0, -2.0]]  # sums 7,5 / 6,2 / 4,0 less their means
    exact = KLinR(KLinROptions(estimator="exact")).penalty(ctx, kl)
    assert exact.tolist() == [[2.0, -2.0], [2.0, -2.0], [0.0, 0.0]]  # sums 6,2 / 4,0 / 0,0: not its own


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_off_the_sampling_policy_the_loss_is_the_equation(reduction: str) -> None:
    """alpha, beta, ratio and clip all differ from where they would not show."""
    options = KLinROptions(alpha=2.5, beta=0.4, estimator="exact", clip=(0.004, 0.008))
    table = {"by": 0.03, "shift": 0.1, "logprob_reduction": reduction}
    ctx, _ = drifted(**table)
    got = gradient(ctx, KLinR(options))
    ctx, traj = drifted(**table)
    algorithm = KLinR(options)
    charge = algorithm.penalty(ctx, algorithm.divergence(ctx, traj))[:-1]
    shaped = 2.5 * ctx.score(traj).values - 0.4 * charge
    elements = ctx.policy.mask(traj.cond).sum(1) if reduction == "sum" else torch.ones(len(traj))
    ratio = (log_probs(ctx.policy, traj, reduction) - traj.log_probs[:-1]).exp()
    bounded = torch.minimum(torch.maximum(ratio, 0.996**elements), 1.008**elements)
    assert 0 < (ratio != bounded).sum() < ratio.numel()
    exact = [transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k), reduction) for k in steps_of(traj)]
    loss = (torch.maximum(-shaped * ratio, -shaped * bounded) + 0.4 * torch.stack(exact)).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3", "exact"])
def test_two_processes_charge_what_one_charges(estimator: str) -> None:
    assert_ranks_agree(lambda: KLinR(KLinROptions(estimator=estimator, beta=0.5)), steps=2)
