"""GRPO: the loss written out, and what tells its three forms apart."""

from __future__ import annotations

import pytest
import torch
from plain.chains import ddim_step, mean_log_density
from rlzoo_grpo import GRPOOptions
from rlzoo_grpo.algorithm import GRPO
from toy_contexts import TOYS, drifted, gradient, gradient_of, local, log_probs, steps_of, surrogate, transition

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


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kl", ["step", "rate"])
def test_off_the_sampling_policy_clip_and_kl_are_those_of_the_reduction(reduction: str, kl: str) -> None:
    table = {"by": 0.02, "shift": 0.1, "advantage": "batch", "logprob_reduction": reduction}
    got = gradient(drifted(**table)[0], GRPO(GRPOOptions(beta=0.4, kl=kl, clip=(0.004, 0.008))))
    ctx, traj = drifted(**table)
    steps, advantages = steps_of(traj), ctx.advantages(ctx.score(traj), traj)
    ratio = (log_probs(ctx.policy, traj, reduction) - traj.log_probs[steps]).exp()
    kls = [transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k), reduction) for k in steps]
    lengths = -traj.schedule.times.diff()[steps] if kl == "rate" else torch.ones(len(steps))
    clipped = surrogate(ratio, advantages, ctx, traj, 0.004, 0.008)
    loss = (clipped + 0.4 * torch.stack(kls) * lengths[:, None]).mean()
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


def test_the_first_step_the_kl_and_the_advantage_are_those_of_flow_grpo_s_code() -> None:
    """Restated in plain arithmetic: noise 0.7 sqrt(t / (1 - next t at t = 1)), the squared distance of the means over
    2 sigma^2 without the step's length, advantages over the batch's deviation; then the whole loss."""
    options = GRPOOptions(beta=0.04, kl="rate", clip=1e-4)
    table = {"advantage": "group", "advantage_std": "batch", "shift": 0.1}
    got = gradient(local(FlowToy, **table), GRPO(options))
    ctx = local(FlowToy, **table)
    traj = ctx.rollout()
    scores = ctx.score(traj).values
    batch = (sum((float(r) - float(scores.mean())) ** 2 for r in scores) / len(scores)) ** 0.5
    losses = []
    for k in steps_of(traj):
        t, s = float(traj.schedule.times[k]), float(traj.schedule.times[k + 1])
        sigma = 0.7 * (t / (1 - (float(traj.schedule.times[1]) if t == 1 else t))) ** 0.5
        assert t < 1 or sigma == pytest.approx(0.7 * (1 / 0.2) ** 0.5)
        means = []
        for policy in (ctx.policy, ctx.reference):
            v = policy.predict(traj.states[k], torch.full((len(traj),), t, dtype=torch.float64), traj.cond)
            x = traj.states[k]
            means.append(x * (1 + sigma**2 / (2 * t) * (s - t)) + v * (1 + sigma**2 * (1 - t) / (2 * t)) * (s - t))
        for row in range(len(traj)):
            length = int(traj.samples.lengths[row])
            group = scores[row // 4 * 4 : row // 4 * 4 + 4]
            advantage = float((scores[row] - group.mean()) / (batch + 1e-4))
            std = sigma * (t - s) ** 0.5
            logp = mean_log_density(traj.states[k + 1, row], means[0][row], std, length)
            assert float(traj.log_probs[k, row]) == pytest.approx(float(logp.detach()), abs=1e-6)
            kl = ((means[0][row] - means[1][row].detach()) ** 2)[:length].mean() / (2 * sigma**2)
            losses.append(-advantage * (logp - traj.log_probs[k, row]).exp() + 0.04 * kl)
    torch.testing.assert_close(got, gradient_of(torch.stack(losses).mean(), ctx), atol=1e-9, rtol=1e-6)


def test_the_ratio_of_distances_is_that_of_flow_cps_s_code() -> None:
    """exp(-(|x - mu|^2 - |x - mu_old|^2)), means over elements, off the policy that sampled."""
    options = GRPOOptions(form="dance", ratio="distance", clip=(0.002, 0.004))
    ctx, _ = drifted(FlowToy, by=0.05)
    got = gradient(ctx, GRPO(options))
    ctx, traj = drifted(FlowToy, by=0.05)
    scores, mask = ctx.score(traj).values, ctx.policy.mask(traj.cond)
    losses, clipped = [], 0
    for k in steps_of(traj):
        ours, old = transition(ctx.policy, traj, k), transition(ctx.reference, traj, k)

        def distance(dist, after=traj.states[k + 1]):
            return ((after - dist.mean) ** 2 * mask).sum(1) / mask.sum(1)

        ratio = (distance(old).detach() - distance(ours)).exp()
        bounded = ratio.clamp(0.998, 1.004)
        clipped += int((ratio != bounded).sum())
        losses.append(torch.maximum(-scores * ratio, -scores * bounded))
    assert 0 < clipped < 32
    torch.testing.assert_close(got, gradient_of(torch.stack(losses).mean(), ctx), atol=1e-9, rtol=1e-6)


def test_a_random_window_lies_anywhere_in_its_range_and_nowhere_else() -> None:
    ctx = local()
    for wanted, expected in ((None, {0, 1, 2}), ((1, 4), {1, 2}), ((0, 2), {0})):
        algorithm = GRPO(GRPOOptions(form="mix", place="random", window=2, window_range=wanted))
        assert {algorithm.window(ctx).start for _ in range(60)} == expected
    slides = GRPO(GRPOOptions(form="mix", window=1, shift_every=1, window_range=(1, 3)))
    starts = []
    for ctx.step in range(4):
        starts.append(slides.window(ctx).start)
    assert starts == [1, 2, 2, 2]
    with pytest.raises(ConfigError, match="window_range"):
        GRPO(GRPOOptions(form="mix", window=2, window_range=(3, 4))).window(ctx)


@pytest.mark.parametrize("form", ["flow", "dance", "mix"])
def test_one_noise_for_a_group_is_an_option_of_every_form(form: str) -> None:
    for same in (True, False):
        first = GRPO(GRPOOptions(form=form, init_same_noise=same)).sample(local()).states[0].view(2, 4, -1)
        assert all(len(group.unique(dim=0)) == (1 if same else 4) for group in first)
