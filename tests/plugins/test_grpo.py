"""GRPO: the loss written out, and what tells its three forms apart."""

from __future__ import annotations

import pytest
import torch
from plain.chains import ddim_step, mean_log_density
from rlzoo_grpo import GRPOOptions
from rlzoo_grpo.algorithm import GRPO
from toy_contexts import TOYS, gradient, gradient_of, local, log_probs, steps_of, transition

from rlzoo.errors import ConfigError
from rlzoo.testing.toys import FlowToy


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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Five steps, four with noise: a window of two has the places 0, 1, 2.
        ({}, [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]),
        ({"at_end": "restart"}, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]),
        ({"stride": 2}, [0, 0, 2, 2, 2, 2, 2, 2, 2, 2]),
        ({"stride": 3}, [0, 0, 2, 2, 2, 2, 2, 2, 2, 2]),
        ({"stride": 2, "at_end": "restart"}, [0, 0, 2, 2, 0, 0, 2, 2, 0, 0]),
    ],
)
def test_the_window_slides_from_the_noisiest_step(options: dict, expected: list[int]) -> None:
    ctx, algorithm = local(), GRPO(GRPOOptions(form="mix", window=2, shift_every=2, **options))
    starts = []
    for step in range(10):
        ctx.step = step
        window = algorithm.window(ctx)
        assert len(window) == 2
        starts.append(window.start)
    assert starts == expected


def test_a_window_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="window = 5"):
        GRPO(GRPOOptions(form="mix", window=5)).window(local())


def test_dance_on_a_flow_with_constant_noise_is_the_published_step() -> None:
    """Log-probabilities, ratio and clip of arXiv:2505.07818 on its own SDE, written out; half a group is clipped."""

    def drifted():
        ctx = local(FlowToy, advantage="group")
        ctx.policy.noise_form, ctx.policy.noise_level = "constant", 0.3
        traj = GRPO(GRPOOptions(form="dance")).sample(ctx)
        with torch.no_grad():
            ctx.policy.bias.add_(0.02)
        ctx.rollout = lambda **_: traj
        return ctx, traj

    ctx, _ = drifted()
    got = gradient(ctx, GRPO(GRPOOptions(form="dance", clip=0.01)))
    ctx, traj = drifted()
    advantages = ctx.advantages(ctx.score(traj).values, traj)
    losses, clipped = [], 0
    for k in steps_of(traj):
        t, s = float(traj.schedule.times[k]), float(traj.schedule.times[k + 1])
        x = traj.states[k]
        v = ctx.policy.predict(x, torch.full((len(traj),), t, dtype=x.dtype), traj.cond)
        score = -(x - (1 - t) * (x - t * v)) / t**2
        mean, std = x - (t - s) * v + (t - s) * 0.3**2 / 2 * score, 0.3 * (t - s) ** 0.5
        for row in range(len(traj)):
            logp = mean_log_density(traj.states[k + 1, row], mean[row], std, int(traj.samples.lengths[row]))
            ratio = (logp - traj.log_probs[k, row]).exp()
            bounded = ratio.clamp(0.99, 1.01)
            clipped += not 0.99 < float(ratio.detach()) < 1.01
            losses.append(torch.maximum(-advantages[row] * ratio, -advantages[row] * bounded))
    assert 0 < clipped < len(losses)
    torch.testing.assert_close(got, gradient_of(torch.stack(losses).mean(), ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("kind", TOYS)
def test_mix_is_the_ode_outside_its_window_and_the_clipped_step_inside(kind) -> None:
    """arXiv:2507.21802: Euler or DDIM steps outside; the loss is the mean over the window's transitions."""
    options = GRPOOptions(form="mix", window=2, shift_every=1, clip=0.01)
    ctx = local(kind, advantage="group")
    ctx.step = 1
    got = gradient(ctx, GRPO(options))
    ctx = local(kind, advantage="group")
    ctx.step = 1
    traj = GRPO(options).sample(ctx)
    for k in (0, 3, 4):
        t, s = float(traj.schedule.times[k]), float(traj.schedule.times[k + 1])
        with torch.no_grad():
            output = ctx.policy.predict(traj.states[k], torch.full((len(traj),), t, dtype=torch.float64), traj.cond)
        after = traj.states[k] - (t - s) * output if kind is FlowToy else ddim_step(traj.states[k], output, t, s)
        torch.testing.assert_close(traj.states[k + 1], after)
    advantages = ctx.advantages(ctx.score(traj).values, traj)
    loss = (-advantages * log_probs(ctx.policy, traj)).mean()  # at ratio 1 nothing is clipped
    assert len(steps_of(traj)) == 2
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("form", ["dance", "mix"])
def test_only_flow_has_a_penalty(form: str) -> None:
    without, huge = (gradient(local(shift=0.1), GRPO(GRPOOptions(form=form, beta=beta))) for beta in (0.0, 99.0))
    assert torch.equal(without, huge)
