"""Closed forms of the two families of policies: densities, steps, and what they keep."""

from __future__ import annotations

import math

import pytest
import torch
from plain.chains import ddim_step, ddpm_step, flow_step, mean_log_density
from torch import Tensor

from rlzoo.api import Batch, Gaussian, Prompt, RectifiedFlowForm, Schedule
from rlzoo.errors import DataError
from rlzoo.testing.specs import ToyPolicyOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, length_of

PROMPTS = [Prompt("a", "a"), Prompt("b", "bb"), Prompt("c", "ccc")]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def build(kind):
    policy = kind(ToyPolicyOptions(pretrain_steps=0)).double()
    with torch.no_grad():
        policy.gain.copy_(random(*policy.gain.shape))
        policy.bias.copy_(random(*policy.bias.shape))
    return policy


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_log_prob_is_that_of_torch_distributions(reduction) -> None:
    mean, x, std = random(3, 2, 4), random(3, 2, 4) + 1, torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64)
    density = torch.distributions.Normal(mean, std.view(3, 1, 1)).log_prob(x)
    got = Gaussian(mean, std).log_prob(x, reduction)
    torch.testing.assert_close(got, getattr(density, reduction)((1, 2)))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_kl_is_that_of_torch_distributions(reduction) -> None:
    a = Gaussian(random(3, 4), torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64))
    b = Gaussian(random(3, 4) + 2, torch.tensor([0.3, 1.0, 0.7], dtype=torch.float64))
    p, q = (torch.distributions.Normal(g.mean, g.std[:, None]) for g in (a, b))
    torch.testing.assert_close(a.kl(b, reduction), getattr(torch.distributions.kl_divergence(p, q), reduction)(1))


def test_kl_of_shifted_gaussians_is_half_the_squared_distance() -> None:
    one = torch.ones(1, 5, dtype=torch.float64)
    a, b = Gaussian(0 * one, torch.tensor([2.0])), Gaussian(3 * one, torch.tensor([2.0]))
    assert a.kl(b).item() == pytest.approx(0.5 * (3 / 2) ** 2)
    assert a.kl(b, "sum").item() == pytest.approx(5 * 0.5 * (3 / 2) ** 2)


def test_padding_is_left_out_of_every_reduction() -> None:
    mask = torch.tensor([[True, True, False]])
    whole = Gaussian(torch.tensor([[1.0, 2.0, 99.0]]), torch.tensor([0.5]), mask)
    cut = Gaussian(torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]))
    x = torch.tensor([[0.0, 1.0, float("nan")]])
    for reduction in ("mean", "sum"):
        assert torch.equal(whole.log_prob(x, reduction), cut.log_prob(x[:, :2], reduction))
        assert torch.equal(whole.kl(whole, reduction), torch.zeros(1))
    assert whole.rsample(torch.ones(1, 3)).tolist() == [[1.5, 2.5, 0.0]]


def test_the_density_of_a_draw_integrates_to_one() -> None:
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    step = Gaussian(torch.full((20001, 1), 0.7, dtype=torch.float64), torch.full((20001,), 1.3, dtype=torch.float64))
    assert torch.trapezoid(step.log_prob(x[:, None]).exp(), x).item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("k", range(5))
def test_the_diffusion_step_is_that_of_ho_et_al(k: int) -> None:
    policy = build(GaussianToy)
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    x = random(3, 4) * cond.get("mask")
    t, s = float(schedule.times[k]), float(schedule.times[k + 1])
    eps = policy.predict(x, torch.full((3,), t, dtype=torch.float64), cond)
    mean, std = ddpm_step(x, eps, t, s)
    step = policy.transition(x, torch.full((3,), k), cond, schedule)
    torch.testing.assert_close(step.mean, mean)
    assert step.std.tolist() == pytest.approx([std] * 3)
    again = policy.transition(x, torch.full((3,), k), cond, schedule, prediction=eps)
    assert torch.equal(again.mean, step.mean)


def test_deterministic_diffusion_steps_are_ddim() -> None:
    policy = build(GaussianToy)
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    schedule = Schedule(schedule.times, torch.tensor([True, False, False, True, False]))
    x = random(3, 4) * cond.get("mask")
    k = torch.tensor([0, 1, 2])  # steps may be mixed in a batch
    step = policy.transition(x, k, cond, schedule)
    for row in range(3):
        t, s = float(schedule.times[row]), float(schedule.times[row + 1])
        eps = policy.predict(x, torch.full((3,), t, dtype=torch.float64), cond)
        wanted = ddpm_step(x, eps, t, s)[0] if row == 0 else ddim_step(x, eps, t, s)
        torch.testing.assert_close(step.mean[row], wanted[row])
        assert (step.std[row] > 0) == (row == 0)


def test_the_clean_estimate_is_clipped_where_asked_and_its_gradient_ends_there() -> None:
    policy = build(GaussianToy)
    policy.clip_clean = 0.5
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    x = (random(3, 4) * 9 * cond.get("mask")).requires_grad_(True)
    last = torch.full((3,), 4)
    mode = policy.transition(x, last, cond, schedule).mode  # the last step is the clean estimate itself
    assert mode.abs().max() <= 0.5 + 1e-12
    outside = mode.abs() >= 0.5 - 1e-12
    (slope,) = torch.autograd.grad(mode.sum(), x)
    assert outside.any()
    assert not slope[outside].any()


@pytest.mark.parametrize("k", range(5))
def test_the_flow_step_is_that_of_flow_grpo(k: int) -> None:
    policy = build(FlowToy)
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    x = random(3, 4) * cond.get("mask")
    t, s = float(schedule.times[k]), float(schedule.times[k + 1])
    # At t = 1 the authors' code takes the next time in the denominator and leaves the numerator alone.
    sigma = 0.7 * math.sqrt(t / (1 - (t if t < 1 else float(schedule.times[1])))) if k < 4 else 0.0
    v = policy.predict(x, torch.full((3,), t, dtype=torch.float64), cond)
    mean, std = flow_step(x, v, t, s, sigma)
    step = policy.transition(x, torch.full((3,), k), cond, schedule)
    torch.testing.assert_close(step.mean, mean)
    assert step.std.tolist() == pytest.approx([std] * 3)


@pytest.mark.parametrize("k", range(5))
def test_constant_noise_is_the_step_of_dancegrpo(k: int) -> None:
    """Euler step of the ODE plus half the score of q(x_t | clean state that the velocity implies), arXiv:2505.07818."""
    policy = build(FlowToy)
    policy.noise_form, policy.noise_level = "constant", 0.3
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    x = random(3, 4) * cond.get("mask")
    t, s = float(schedule.times[k]), float(schedule.times[k + 1])
    v = policy.predict(x, torch.full((3,), t, dtype=torch.float64), cond)
    score = -(x - (1 - t) * (x - t * v)) / t**2
    eta = 0.3 if k < 4 else 0.0  # the last step has no density
    step = policy.transition(x, torch.full((3,), k), cond, schedule)
    torch.testing.assert_close(step.mean, x - (t - s) * v + (t - s) * eta**2 / 2 * score)
    assert step.std.tolist() == pytest.approx([eta * math.sqrt(t - s)] * 3)


def test_without_noise_the_flow_is_the_ode() -> None:
    policy = build(FlowToy)
    policy.noise_level = 0.0
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    x = random(3, 4) * cond.get("mask")
    v = policy.predict(x, torch.full((3,), 0.6, dtype=torch.float64), cond)
    step = policy.transition(x, torch.full((3,), 2), cond, schedule)
    torch.testing.assert_close(step.mean, x - 0.2 * v)
    assert not step.std.any()


class ExactFlow(FlowToy):
    """The true velocity of recordings N(m, v): what a perfect network would say."""

    mean, variance = 0.8, 0.3

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        time = t[:, None]
        scale = (1 - time) ** 2 * self.variance + time**2
        clean = self.mean + (1 - time) * self.variance / scale * (x_t - (1 - time) * self.mean)
        noise = time / scale * (x_t - (1 - time) * self.mean)
        return (noise - clean) * cond.get("mask")


class ConstantNoise(ExactFlow):
    """The same with DanceGRPO's noise."""

    noise_form = "constant"


class ExactDiffusion(GaussianToy):
    """The true noise prediction for recordings N(m, v)."""

    mean, variance = 0.8, 0.3

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        sigma = t[:, None]
        abar = 1 - sigma**2
        return sigma / (abar * self.variance + sigma**2) * (x_t - abar.sqrt() * self.mean) * cond.get("mask")


@pytest.mark.parametrize(("kind", "tolerance"), [(ExactFlow, 0.01), (ConstantNoise, 0.01), (ExactDiffusion, 0.01)])
@pytest.mark.parametrize("random_steps", [True, False])
def test_many_exact_steps_end_in_the_recordings_density(kind, tolerance: float, random_steps: bool) -> None:
    """Stochastic and deterministic steps keep the marginals: mean and variance of the recordings come out."""
    policy = kind(ToyPolicyOptions(pretrain_steps=0)).double()
    policy.noise_level = 0.7
    cond, schedule = policy.condition([Prompt("c", "aa")]), policy.schedule(600)
    if not random_steps:
        schedule = Schedule(schedule.times, torch.zeros_like(schedule.stochastic))
    mean, variance = 0.0, 1.0
    width = policy.state_shape(cond)[0]
    with torch.no_grad():
        for k in range(len(schedule)):
            zero = policy.transition(torch.zeros(1, width, dtype=torch.float64), torch.tensor([k]), cond, schedule)
            one = policy.transition(torch.ones(1, width, dtype=torch.float64), torch.tensor([k]), cond, schedule)
            gain, shift, std = float(one.mode[0, 0] - zero.mode[0, 0]), float(zero.mode[0, 0]), float(zero.std[0])
            mean, variance = gain * mean + shift, gain**2 * variance + std**2
    # The diffusion toy starts at alpha_bar = 0.025 instead of 0, which leaves it a little short of the mean.
    assert mean == pytest.approx(0.8, abs=0.15 if kind is ExactDiffusion and not random_steps else tolerance)
    assert variance == pytest.approx(0.3, rel=0.02)


def test_supervise_refuses_recordings_of_another_length() -> None:
    policy = build(GaussianToy)
    from rlzoo.testing.specs import ToyPromptOptions
    from rlzoo.testing.toys import ToyPrompts

    prompts = ToyPrompts(ToyPromptOptions()).train()[:2]
    recordings = ToyPrompts(ToyPromptOptions()).recordings(prompts)
    x, _ = policy.supervise(prompts, recordings)
    assert x.shape == recordings.data.shape
    with pytest.raises(DataError, match="lengths"):
        policy.supervise(prompts[::-1], recordings)


@pytest.mark.parametrize("k", range(5))
def test_cps_is_the_step_of_flow_cps(k: int) -> None:
    """arXiv:2509.05952, restated: implied clean state and noise, of which a share is drawn anew."""
    policy = build(FlowToy)
    policy.noise_form, policy.noise_level = "cps", 0.8
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    x = random(3, 4) * cond.get("mask")
    t, s = float(schedule.times[k]), float(schedule.times[k + 1])
    v = policy.predict(x, torch.full((3,), t, dtype=torch.float64), cond)
    std = s * math.sin(0.8 * math.pi / 2) if k < 4 else 0.0
    clean, noise = x - t * v, x + (1 - t) * v
    step = policy.transition(x, torch.full((3,), k), cond, schedule)
    torch.testing.assert_close(step.mean, (1 - s) * clean + math.sqrt(s**2 - std**2) * noise)
    assert step.std.tolist() == pytest.approx([std] * 3)


@pytest.mark.parametrize("level", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("steps", [3, 40])
def test_cps_keeps_the_noise_of_every_time_however_few_the_steps(level: float, steps: int) -> None:
    """For recordings that are one point, the state at time s is N((1 - s) point, s^2); the SDE is that in the limit."""

    class OnePoint(ExactFlow):
        variance = 0.0
        noise_form = "cps"

    policy = OnePoint(ToyPolicyOptions(pretrain_steps=0)).double()
    policy.noise_level = level
    cond, schedule = policy.condition([Prompt("c", "aa")]), policy.schedule(steps)
    width = policy.state_shape(cond)[0]
    mean, variance = 0.0, 1.0
    for k in range(steps - 1):
        zero, one = (
            policy.transition(torch.full((1, width), x, dtype=torch.float64), torch.tensor([k]), cond, schedule)
            for x in (0.0, 1.0)
        )
        gain, shift, std = float(one.mode[0, 0] - zero.mode[0, 0]), float(zero.mode[0, 0]), float(zero.std[0])
        mean, variance = gain * mean + shift, gain**2 * variance + std**2
        s = float(schedule.times[k + 1])
        assert mean == pytest.approx((1 - s) * 0.8)
        assert variance == pytest.approx(s**2)


# --- one set of weights, two processes -------------------------------------------------------------------------------


class ToyAsFlow(RectifiedFlowForm, GaussianToy):
    """The Gaussian toy, run as a rectified flow."""


class NearlyPure(ExactDiffusion):
    """The exact diffusion from next to no signal on: rollouts begin with none."""

    def schedule(self, num_steps: int | None = None) -> Schedule:
        steps = num_steps or 5
        angles = torch.linspace(0.4999 * math.pi, 0.0, steps + 1, dtype=torch.float64)
        return Schedule(angles.sin(), torch.arange(steps) < steps - 1)


class ExactAsFlow(RectifiedFlowForm, NearlyPure):
    """The exact diffusion, run as a rectified flow."""


def both():
    diffusion, flow = build(GaussianToy), ToyAsFlow(ToyPolicyOptions(pretrain_steps=0)).double()
    flow.load_state_dict(diffusion.state_dict())
    flow._knots.copy_(diffusion._knots)  # a toy builds its network around its schedule
    return diffusion, flow


def size(sigma: Tensor | float) -> Tensor:
    """alpha + sigma: what a diffusion's state is divided by."""
    level = torch.as_tensor(sigma, dtype=torch.float64)
    return level + (1 - level**2).sqrt()


@pytest.mark.parametrize("steps", [2, 5, 60])
def test_without_noise_both_forms_are_one_sampler(steps: int) -> None:
    """From the same state at the same levels, step by step: DDIM on one scale is Euler's method on the other."""
    diffusion, flow = both()
    cond = diffusion.condition(PROMPTS)
    levels = diffusion.schedule(steps).times
    still = torch.zeros(steps, dtype=torch.bool)
    x = random(3, 4) * cond.get("mask")
    y = x / size(levels[0])
    times = levels / size(levels)
    for k in range(steps):
        index = torch.full((3,), k)
        x = diffusion.transition(x, index, cond, Schedule(levels, still)).mode
        y = flow.transition(y, index, cond, Schedule(times, still)).mode
        torch.testing.assert_close(y * size(levels[k + 1]), x)


def test_a_rollout_of_the_flow_begins_at_pure_noise_and_ends_in_the_same_density() -> None:
    """600 exact steps: mean and variance of the recordings, with noise of each form and without."""
    for form, level in (("flow", 0.7), ("constant", 0.7), ("flow", 0.0)):
        flow = ExactAsFlow(ToyPolicyOptions(pretrain_steps=0)).double()
        flow.noise_form, flow.noise_level = form, level
        cond, schedule = flow.condition([Prompt("c", "aa")]), flow.schedule(600)
        assert float(schedule.times[0]) == 1.0
        assert (schedule.times.diff() < 0).all()
        mean, variance, width = 0.0, 1.0, flow.state_shape(cond)[0]
        for k in range(600):
            zero, one = (
                flow.transition(torch.full((1, width), x, dtype=torch.float64), torch.tensor([k]), cond, schedule)
                for x in (0.0, 1.0)
            )
            gain, shift, std = float(one.mode[0, 0] - zero.mode[0, 0]), float(zero.mode[0, 0]), float(zero.std[0])
            mean, variance = gain * mean + shift, gain**2 * variance + std**2
        assert mean == pytest.approx(0.8, abs=0.02), form
        assert variance == pytest.approx(0.3, rel=0.06), form


@torch.no_grad()
@pytest.mark.parametrize("form", ["flow", "constant", "cps"])
def test_log_probabilities_of_the_flow_form_are_those_of_its_steps_written_out(form) -> None:
    """From the diffusion's own prediction: clean state, velocity, published step, normal density; one row at a time."""
    diffusion, flow = both()
    flow.noise_form, flow.noise_level = form, 0.6
    cond, schedule = flow.condition(PROMPTS), flow.schedule()
    levels = diffusion.schedule().times
    for k in range(4):
        t, s = float(schedule.times[k]), float(schedule.times[k + 1])
        x, after = random(3, 4) * cond.get("mask"), random(3, 4) + k
        level = min(t / math.hypot(t, 1 - t), float(levels[0]))
        eps = diffusion.predict(x / math.hypot(t, 1 - t), torch.full((3,), level, dtype=torch.float64), cond)
        clean = (x / math.hypot(t, 1 - t) - level * eps) / math.sqrt(1 - level**2)
        v = (x - clean) / t
        if form == "cps":
            std = s * math.sin(0.6 * math.pi / 2)
            mean = (1 - s) * clean + math.sqrt(s**2 - std**2) * (x + (1 - t) * v)
        else:
            left = 1 - (t if t < 1 else float(schedule.times[1]))
            mean, std = flow_step(x, v, t, s, 0.6 * (math.sqrt(t / left) if form == "flow" else 1.0))
        step = flow.transition(x, torch.full((3,), k), cond, schedule)
        for row, prompt in enumerate(PROMPTS):
            length = length_of(prompt)
            expected = mean_log_density(after[row], mean[row], std, length)
            assert float(step.log_prob(after)[row]) == pytest.approx(float(expected), rel=1e-9)
            assert float(step.log_prob(after, "sum")[row]) == pytest.approx(length * float(expected), rel=1e-9)


def test_the_flow_form_s_forward_process_and_losses_are_the_diffusion_s_at_the_same_ratio() -> None:
    diffusion, flow = both()
    cond = diffusion.condition(PROMPTS)
    uniform = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    sigma, t = diffusion.sample_times(uniform), flow.sample_times(uniform)
    torch.testing.assert_close(t, sigma / size(sigma))
    clean, noise = random(3, 4), random(3, 4) + 1
    scaled = diffusion.noisy(clean, noise, sigma) / size(sigma)[:, None]
    torch.testing.assert_close(flow.noisy(clean, noise, t), scaled)
    torch.testing.assert_close(flow.noisy(clean, noise, t), (1 - t)[:, None] * clean + t[:, None] * noise)
    losses = (policy.denoising_loss(clean, cond, at, noise) for policy, at in ((diffusion, sigma), (flow, t)))
    torch.testing.assert_close(*losses)
