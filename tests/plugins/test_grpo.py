"""GRPO: the loss written out, and what tells its three forms apart."""

from __future__ import annotations

import pytest
import torch
from rlzoo_grpo import GRPOOptions
from rlzoo_grpo.algorithm import GRPO
from toy_contexts import TOYS, gradient, gradient_of, local, log_probs, steps_of, transition

from rlzoo.errors import ConfigError


@pytest.mark.parametrize("kind", TOYS)
def test_flow_is_group_advantages_plus_kl(kind) -> None:
    got = gradient(local(kind, shift=0.1, advantage="group"), GRPO(GRPOOptions(beta=0.3)))
    ctx = local(kind, shift=0.1, advantage="group")
    traj = ctx.rollout()
    scores = ctx.score(traj).values.view(2, 4)  # two prompts of four samples
    spread = scores.std(1, keepdim=True, correction=0)
    advantages = ((scores - scores.mean(1, keepdim=True)) / (spread + 1e-4)).flatten()
    kl = torch.stack([transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k)) for k in steps_of(traj)])
    loss = (-advantages * log_probs(ctx.policy, traj) + 0.3 * kl).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


def test_dance_starts_a_group_from_one_noise_and_draws_the_steps_apart() -> None:
    traj = GRPO(GRPOOptions(form="dance")).sample(local())
    mask = traj.cond.get("mask")
    first, second = traj.states[0].view(2, 4, -1), traj.states[1].view(2, 4, -1)
    for group in range(2):
        assert (first[group] == first[group][0]).all()
        assert len(second[group].unique(dim=0)) == 4
    assert not torch.equal(first[0][0] * mask[0] * mask[4], first[1][0] * mask[0] * mask[4])


@pytest.mark.parametrize("kind", TOYS)
def test_mix_draws_and_trains_its_window_only(kind) -> None:
    ctx = local(kind)
    algorithm = GRPO(GRPOOptions(form="mix", window=2))
    traj = algorithm.sample(ctx)
    assert traj.schedule.stochastic.tolist() == [True, True, False, False, False]
    assert not traj.log_probs[2:].any()
    trained = {int(k) for batch in ctx.minibatches(traj) for m in batch for k in m.k}
    assert trained == {0, 1}
    ctx.policy.schedule().stochastic[:] = True
    assert ctx.policy.schedule().stochastic.tolist() == [True] * 4 + [False]  # the policy's own schedule is untouched


def test_the_window_slides_from_the_noisiest_step_and_round_again() -> None:
    ctx, algorithm = local(), GRPO(GRPOOptions(form="mix", window=2, shift_every=2))
    starts = []
    for step in range(10):
        ctx.step = step
        window = algorithm.window(ctx)
        assert len(window) == 2
        starts.append(window.start)
    assert starts == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]  # four steps have noise: three places


def test_a_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="window = 5"):
        GRPO(GRPOOptions(form="mix", window=5)).window(local())


@pytest.mark.parametrize("form", ["dance", "mix"])
def test_only_flow_has_a_penalty(form: str) -> None:
    without, huge = (gradient(local(shift=0.1), GRPO(GRPOOptions(form=form, beta=beta))) for beta in (0.0, 99.0))
    assert torch.equal(without, huge)
