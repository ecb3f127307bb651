"""Grad-TTS as a policy: levels, transitions, lengths, what is trained, and the voice that ships."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.conditions import NUMBERS, coloured, hissing
from rlzoo_gradtts.network import GradTTSNetwork, NetworkConfig
from rlzoo_gradtts.phones import ROWS, SYMBOLS, phone_ids
from rlzoo_gradtts.policy import SHIPPED, TERMINAL_LEVEL, VOICES, GradTTSPolicy
from torch import Tensor, nn

from rlzoo.api import Prompt
from rlzoo.errors import DataError

TINY = NetworkConfig(
    sample_rate=8000, fft=256, hop=80, bands=24, channels=16, encoder_layers=2, decoder_dilations=(1, 2),
    denoiser_dilations=(1, 2),
)  # fmt: skip
PROMPTS = [Prompt("a", "Open the door."), Prompt("b", "It is late and the rain has not stopped.")]


def untrained(path: Path, frames: float) -> Path:
    """A tiny voice whose phones last about so many frames, and whose denoiser says something."""
    torch.manual_seed(0)
    network = GradTTSNetwork(TINY)
    with torch.no_grad():
        for parameter in network.denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        network.durations[-1].bias.fill_(math.log(frames + 0.5))
        network.average.fill_(-3.0)
    VOICES.save(path, network.state_dict(), {"network": TINY.model_dump(), "text": "flite"})
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("voice") / "tiny.safetensors", 6)


@pytest.fixture(scope="module")
def policy(voice: Path) -> GradTTSPolicy:
    return GradTTSPolicy(GradTTSOptions(checkpoint=voice))


def state(policy: GradTTSPolicy, prompts: list[Prompt]):
    cond = policy.condition(prompts)
    return cond, torch.randn(len(prompts), *policy.state_shape(cond)) * policy.mask(cond)


def test_a_state_is_a_condition_and_the_frames_behind_it(policy: GradTTSPolicy) -> None:
    cond = policy.condition(PROMPTS)
    frames, size = cond.get("frames"), cond.get("mean").shape[2]
    assert frames.max() == size
    assert policy.state_shape(cond) == (TINY.bands, 1 + size)
    assert torch.equal(policy.lengths(cond), frames + 1)
    mask = policy.mask(cond)
    assert mask.dtype == torch.bool
    assert mask.shape == (2, *policy.state_shape(cond))
    assert mask[:, :, 0].tolist() == [[True] * NUMBERS + [False] * (TINY.bands - NUMBERS)] * 2
    behind = (torch.arange(size) < frames[:, None])[:, None].expand(-1, TINY.bands, -1)
    assert torch.equal(mask[:, :, 1:], behind)
    assert not behind.all()


def test_nothing_hears_what_is_masked(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS)
    junk = torch.where(policy.mask(cond), x, 100)
    sigma = torch.tensor([0.3, 0.9])
    with torch.no_grad():
        noise, other = policy(x, sigma, cond), policy(junk, sigma, cond)
    assert torch.equal(noise, other)
    assert not noise[~policy.mask(cond)].any()
    assert torch.equal(policy.decode(junk, cond).data, policy.decode(x, cond).data)


def test_a_condition_takes_the_chain_of_a_standard_normal(policy: GradTTSPolicy) -> None:
    """Its best guess of what is clean is alpha x, and nothing of the frames is in it."""
    cond, x = state(policy, PROMPTS)
    schedule = policy.schedule(4)
    for k in range(4):
        now, then = schedule.times[k].item(), schedule.times[k + 1].item()
        with torch.no_grad():
            step = policy.transition(x, torch.tensor([k, k]), cond, schedule)
        alpha, before = math.sqrt(1 - now**2), math.sqrt(1 - then**2)
        noise = then**2 * alpha / (now**2 * before)
        clean = before * (1 - alpha**2 / before**2) / now**2
        wanted = (clean * alpha + noise) * x[:, :NUMBERS, 0]
        torch.testing.assert_close(step.mean[:, :NUMBERS, 0], wanted, rtol=1e-4, atol=1e-5)


# --- the chain -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_steps", [1, 2, 4, 25])
def test_levels_are_the_sines_of_even_angles(policy: GradTTSPolicy, num_steps: int) -> None:
    schedule = policy.schedule(num_steps)
    assert len(schedule) == num_steps
    assert schedule.times.dtype == torch.float64
    angles = schedule.times.asin()
    assert angles[0].item() == pytest.approx(math.asin(TERMINAL_LEVEL))
    assert schedule.times[-1] == 0
    assert (angles[:-1] - angles[1:]).tolist() == pytest.approx([math.asin(TERMINAL_LEVEL) / num_steps] * num_steps)
    assert schedule.stochastic.tolist() == [True] * (num_steps - 1) + [False]


def test_the_number_of_steps_is_the_options_unless_the_run_says_otherwise(voice: Path) -> None:
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, num_steps=7))
    assert (len(policy.schedule()), len(policy.schedule(3))) == (7, 3)


def test_a_single_step_goes_straight_to_what_is_taken_for_clean(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS[:1])
    with torch.no_grad():
        step = policy.transition(x, torch.tensor([0]), cond, policy.schedule(1))
        clean = policy(x, torch.tensor([TERMINAL_LEVEL]), cond)
    assert step.std.tolist() == [0]
    torch.testing.assert_close(step.mode, clean)


def test_transition_is_the_published_posterior(policy: GradTTSPolicy) -> None:
    """Ho et al., Eq. 6 - 7, written with betas, in float64; what the network says is a given."""
    schedule = policy.schedule(5)
    alpha_bar = 1 - schedule.times.flip(0) ** 2  # of 0 .. K
    betas = 1 - alpha_bar[1:] / alpha_bar[:-1]
    cond, x = state(policy, PROMPTS[:1])
    x, clean = x.double(), torch.randn(x.shape, dtype=torch.float64)
    for k in range(5):
        i = 5 - k
        beta, now, before = betas[i - 1], alpha_bar[i], alpha_bar[i - 1]
        step = policy.transition(x, torch.tensor([k]), cond, schedule, prediction=clean)
        mean = beta * before.sqrt() / (1 - now) * clean + (1 - before) * (1 - beta).sqrt() / (1 - now) * x
        torch.testing.assert_close(step.mean, mean, rtol=1e-9, atol=1e-9)
        std = (beta * (1 - before) / (1 - now)).sqrt()
        assert step.std.item() == pytest.approx(std.item(), rel=1e-6, abs=1e-12)


def test_transition_asks_the_network(policy: GradTTSPolicy) -> None:
    schedule, k = policy.schedule(4), torch.tensor([1])
    cond, x = state(policy, PROMPTS[:1])
    with torch.no_grad():
        step = policy.transition(x, k, cond, schedule)
        given = policy.transition(x, k, cond, schedule, prediction=policy(x, schedule.times[k].float(), cond))
        other = policy.transition(x, k, cond, schedule, prediction=torch.zeros_like(x))
    assert torch.equal(step.mean, given.mean)
    assert not torch.allclose(step.mean, other.mean)


def test_training_levels_are_even_in_the_angle_and_stay_inside(policy: GradTTSPolicy) -> None:
    uniform = torch.linspace(0, 1, 1001)
    sigma = policy.sample_times(uniform)
    assert (sigma.min(), sigma.max()) == (pytest.approx(0.01), pytest.approx(TERMINAL_LEVEL))
    inside = (sigma > 0.0101) & (sigma < TERMINAL_LEVEL)
    assert inside.sum() > 950
    torch.testing.assert_close(sigma.asin()[inside], uniform[inside] * math.pi / 2, rtol=0, atol=1e-4)


def test_rows_of_a_batch_equal_rows_alone(policy: GradTTSPolicy) -> None:
    both, x = state(policy, PROMPTS)
    alone = policy.condition(PROMPTS[:1])
    size = 1 + int(alone.get("frames"))
    assert policy.lengths(both)[0] == size < policy.lengths(both)[1]
    schedule, k = policy.schedule(4), torch.tensor([1, 1])
    with torch.no_grad():
        batch = policy.transition(x, k, both, schedule)
        single = policy.transition(x[:1, :, :size], k[:1], alone, schedule)
    torch.testing.assert_close(batch.mean[:1, :, :size], single.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(batch.log_prob(x)[:1], single.log_prob(x[:1, :, :size]))
    assert not batch.mean[0, :, size:].any()
    first = policy.decode(x, both).row(0)
    torch.testing.assert_close(first, policy.decode(x[:1, :, :size], alone).row(0), rtol=0, atol=1e-4)


# --- audio -----------------------------------------------------------------------------------------------------------


def test_decoding_is_deterministic_and_leaves_the_generator_alone(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS)
    before = torch.get_rng_state()
    samples = policy.decode(x, cond)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(policy.decode(x, cond).data, samples.data)
    assert samples.media.sample_rate == TINY.sample_rate
    assert samples.data.shape == (2, (x.shape[2] - 1) * TINY.hop)
    assert torch.equal(samples.lengths, (cond.get("frames") - 1) * TINY.hop)
    for row, size in zip(samples.data, samples.lengths.tolist(), strict=True):
        assert not row[size:].any()
        assert row[:size].std() > 1e-3


def test_the_waveform_is_that_of_mean_plus_scaled_residual_under_the_condition(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS)
    samples = policy.decode(x, cond)
    for row, size in enumerate(cond.get("frames").tolist()):
        spectrum = (cond.get("mean")[row] + TINY.residual_scale * x[row, :, 1:])[:, :size]
        condition = x[row, :NUMBERS, 0]
        wave = hissing(policy.mel.invert(coloured(spectrum, condition)), condition)
        torch.testing.assert_close(samples.row(row), wave.clamp(-1, 1))


def test_conditions_may_be_left_out(voice: Path, policy: GradTTSPolicy) -> None:
    always = GradTTSPolicy(GradTTSOptions(checkpoint=voice, conditions=False))
    cond, x = state(policy, PROMPTS[:1])
    spectrum = cond.get("mean")[0] + TINY.residual_scale * x[0, :, 1:]
    assert torch.equal(always.decode(x, cond).row(0), policy.mel.invert(spectrum))
    assert not torch.allclose(policy.decode(x, cond).row(0), policy.mel.invert(spectrum))


def test_the_loudest_hiss_is_cut_at_one(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS[:1])
    x[:, 0, 0] = 8
    assert policy.decode(x, cond).row(0).abs().max() == 1


def test_the_gradient_of_a_waveform_reaches_all_that_is_real(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS)
    x = x.requires_grad_()
    policy.decode(x, cond).data.square().sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[~policy.mask(cond)].any()
    assert x.grad[:, :NUMBERS, 0].all()
    assert x.grad[..., 1:].any(1).tolist() == policy.mask(cond)[..., 1:].any(1).tolist()


@pytest.mark.parametrize("phones", ["AH", "S IY"])
def test_the_shortest_text_has_a_waveform(phones: str, tmp_path: Path) -> None:
    """Transforms mirror half a window at the ends, so that a frame or two would have none."""
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=untrained(tmp_path / "hasty.safetensors", 0.5), pace=4))
    cond, x = state(policy, [Prompt("a", "", {"phones": phones})])
    assert policy.lengths(cond).tolist() == [1 + TINY.shortest]
    assert policy.decode(x, cond).row(0).isfinite().all()
    assert policy.mel(policy.decode(x, cond).row(0)).shape == (TINY.bands, TINY.shortest)


def test_pace_changes_the_length(voice: Path) -> None:
    slow, usual, fast = (
        GradTTSPolicy(GradTTSOptions(checkpoint=voice, pace=p)).condition(PROMPTS[1:]).get("frames").item()
        for p in (0.5, 1.0, 2.0)
    )
    assert slow / usual == pytest.approx(2, rel=0.1)
    assert usual / fast == pytest.approx(2, rel=0.1)


def test_durations_and_pitch_may_be_given(policy: GradTTSPolicy) -> None:
    ids, frames = torch.tensor(phone_ids(["sil", "AA", "sil"])), torch.tensor([3, 0, 8])
    low, high = (policy.encode(ids, frames, torch.full((3,), pitch)) for pitch in (-0.3, 0.3))
    assert low["mean"].shape == (TINY.bands, 11)
    assert low["features"].shape == (TINY.channels, 11)
    assert not torch.allclose(low["mean"], high["mean"])


# --- text ------------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_phone() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) == NetworkConfig().phones
    assert SYMBOLS[0] == "<pad>"
    assert phone_ids(["HH", "AH0", "sil"]) == [ROWS["HH"], ROWS["AH0"], ROWS["sil"]]
    with pytest.raises(DataError, match="'ax'"):
        phone_ids(["HH", "ax"])


def test_phones_may_be_given_instead_of_text(policy: GradTTSPolicy) -> None:
    given = Prompt("x", "", {"phones": "sil HH AH0 L OW sil"})
    assert policy.ids(given).tolist() == phone_ids(["sil", "HH", "AH0", "L", "OW", "sil"])
    assert policy.lengths(policy.condition([given])).item() > 20
    assert policy.ids(Prompt("x", "Hello.", {"phones": " "})).tolist() == policy.ids(Prompt("x", "Hello.")).tolist()


@pytest.mark.parametrize("prompt", [Prompt("silent", "..."), Prompt("silent", "", {"phones": "hh"})])
def test_what_cannot_be_said_names_its_prompt(policy: GradTTSPolicy, prompt: Prompt) -> None:
    with pytest.raises(DataError, match="prompt 'silent'"):
        policy.condition([PROMPTS[0], prompt])


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", ["bands", "biases", "denoiser"])
def test_what_is_trained(voice: Path, trainable: str) -> None:
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, trainable=trainable))
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    denoiser = {f"network.denoiser.{name}" for name, _ in policy.network.denoiser.named_parameters()}
    wanted = {"bands": set(), "biases": {name for name in denoiser if name.endswith("bias")}, "denoiser": denoiser}
    assert trained == {"bands.scale", "bands.shift"} | wanted[trainable]
    cond, x = state(policy, PROMPTS)
    step = policy.transition(x, torch.tensor([0, 1]), cond, policy.schedule(4))
    step.log_prob(x).sum().backward()
    assert all(weights.grad.ne(0).all() for weights in (policy.bands.scale, policy.bands.shift))
    for name, parameter in policy.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
        if name in trained:
            assert parameter.grad.abs().max() > 0, name


@pytest.fixture(scope="module")
def shipped() -> GradTTSPolicy:
    return GradTTSPolicy(GradTTSOptions())


def pitch(wave: Tensor, rate: int) -> Tensor:
    """Hertz of the voiced ones among frames of 40 ms: those that repeat themselves within 60 - 250 Hz."""
    frames = wave.unfold(0, rate // 25, rate // 100)
    frames = (frames - frames.mean(1, keepdim=True)) * torch.hann_window(rate // 25)
    spectrum = torch.fft.rfft(frames, 2 * frames.shape[1])
    correlation = torch.fft.irfft(spectrum.abs() ** 2)
    window = torch.fft.irfft(torch.fft.rfft(torch.hann_window(rate // 25), 2 * frames.shape[1]).abs() ** 2)
    shortest, longest = rate // 250, rate // 60
    lags = correlation[:, shortest:longest] / correlation[:, :1].clamp(min=1e-9) * window[0] / window[shortest:longest]
    peak, lag = lags.max(1)
    loud = correlation[:, 0] > 0.05 * correlation[:, 0].max()
    return rate / (lag[(peak > 0.6) & loud] + shortest)


def test_the_shipped_voice_is_small_safe_and_speaks(shipped: GradTTSPolicy) -> None:
    assert SHIPPED.suffix == ".safetensors"
    assert SHIPPED.stat().st_size < 10_000_000
    assert {"phones", "sentences", "hours_of_speech"} <= set(shipped.card)
    cond = shipped.condition([Prompt("a", "The light is green.")])
    assert 0.6 < (cond.get("frames").item() - 1) * shipped.config.hop / shipped.config.sample_rate < 2.5
    schedule, generator = shipped.schedule(), torch.Generator().manual_seed(0)
    x = torch.randn(1, *shipped.state_shape(cond), generator=generator)
    with torch.no_grad():
        for k in range(len(schedule)):
            step = shipped.transition(x, torch.tensor([k]), cond, schedule)
            x = step.rsample(torch.randn(x.shape, generator=generator)) if schedule.stochastic[k] else step.mode
    wave = shipped.decode(x, cond).row(0)
    assert 0.01 < wave.std() < 0.5
    voiced = pitch(wave, shipped.config.sample_rate)
    assert len(voiced) > 25  # of 130
    assert 70 < voiced.median() < 140
    noise = pitch(torch.randn(len(wave), generator=generator), shipped.config.sample_rate)
    assert len(noise) < 3
