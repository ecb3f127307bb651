"""Grad-TTS as a policy: levels, transitions, lengths, what is trained, and the voice that ships."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.network import GradTTSNetwork, NetworkConfig, column
from rlzoo_gradtts.phones import ROWS, SYMBOLS, phone_ids
from rlzoo_gradtts.policy import SHIPPED, TERMINAL_LEVEL, VOICES, GradTTSPolicy
from rlzoo_gradtts.style import summarise
from torch import Tensor, nn

from rlzoo.api import Batch, Prompt
from rlzoo.errors import DataError

TINY = NetworkConfig(
    sample_rate=8000, fft=256, hop=80, bands=24, channels=16, encoder_layers=2, decoder_dilations=(1, 2),
    denoiser_dilations=(1, 2), style=5, style_hidden=8,
)  # fmt: skip
Z = TINY.style
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
        network.clean_style.copy_(torch.linspace(-1, 1, Z))
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


def test_a_state_is_a_style_and_the_frames_behind_it(policy: GradTTSPolicy) -> None:
    cond = policy.condition(PROMPTS)
    frames, size = cond.get("frames"), cond.get("features").shape[2]
    assert set(cond.tensors) == {"frames", "features", "plain"}
    assert cond.get("features").shape == (2, TINY.channels, size)
    assert cond.get("plain").shape == (2, TINY.bands, size)
    assert frames.max() == size
    assert policy.state_shape(cond) == (TINY.bands, 1 + size)
    assert torch.equal(policy.lengths(cond), frames + 1)
    mask = policy.mask(cond)
    assert mask.dtype == torch.bool
    assert mask.shape == (2, *policy.state_shape(cond))
    assert mask[:, :, 0].tolist() == [[True] * Z + [False] * (TINY.bands - Z)] * 2
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


def predicted_style(policy: GradTTSPolicy, x: Tensor, sigma: float, cond: Batch) -> Tensor:
    """(N, Z): what the denoiser of styles says, asked row by row with the mean of the real frames' features."""
    rows = []
    for row, count in enumerate(cond.get("frames").tolist()):
        text = cond.get("features")[row, :, :count].mean(1)
        rows.append(policy.network.style_denoiser(x[row : row + 1, :Z, 0], torch.tensor([sigma]), text[None])[0])
    return torch.stack(rows)


def test_a_style_takes_the_chain_of_its_own_denoiser(policy: GradTTSPolicy) -> None:
    """Ho et al., Eq. 7, of the first column: nothing of the noisy frames is in it."""
    cond, x = state(policy, PROMPTS)
    schedule = policy.schedule(4)
    for k in range(4):
        now, then = schedule.times[k].item(), schedule.times[k + 1].item()
        with torch.no_grad():
            step = policy.transition(x, torch.tensor([k, k]), cond, schedule)
            style = predicted_style(policy, x, now, cond)
        alpha, before = math.sqrt(1 - now**2), math.sqrt(1 - then**2)
        noise = then**2 * alpha / (now**2 * before)
        clean = before * (1 - alpha**2 / before**2) / now**2
        wanted = clean * style + noise * x[:, :Z, 0]
        torch.testing.assert_close(step.mean[:, :Z, 0], wanted, rtol=1e-4, atol=1e-5)
        assert not step.mean[:, Z:, 0].any()


def test_the_clean_style_is_what_is_predicted_and_where_the_chain_ends(voice: Path) -> None:
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, style="clean"))
    sampled = GradTTSPolicy(GradTTSOptions(checkpoint=voice))
    wanted = torch.linspace(-1, 1, Z).expand(2, -1)
    cond, x = state(policy, PROMPTS)
    schedule = policy.schedule(4)
    with torch.no_grad():
        for k in range(4):
            sigma = schedule.times[k].float().expand(2)
            clean, own = policy(x, sigma, cond), sampled(x, sigma, cond)
            assert torch.equal(clean[:, :, :1], column(wanted, TINY.bands))
            assert not torch.allclose(own[:, :Z, 0], wanted, atol=1e-2)
            step = policy.transition(x, torch.tensor([k, k]), cond, schedule)
            x = step.rsample(torch.randn(x.shape)) if schedule.stochastic[k] else step.mode
    torch.testing.assert_close(x[:, :, :1], column(wanted, TINY.bands), rtol=0, atol=1e-6)
    assert policy.mel.invert(policy.spectra(x, cond)[0, :, : cond.get("frames")[0]]).isfinite().all()


def test_bands_change_the_frames_alone(voice: Path) -> None:
    policy, plain = (GradTTSPolicy(GradTTSOptions(checkpoint=voice)) for _ in range(2))
    scale, shift = torch.randn(2, TINY.bands)
    policy.bands.load_state_dict({"scale": scale, "shift": shift})
    cond, x = state(policy, PROMPTS)
    sigma = torch.tensor([0.3, 0.9])
    with torch.no_grad():
        found, before = policy(x, sigma, cond), plain(x, sigma, cond)
    wanted = (before * (1 + scale[:, None]) + shift[:, None]) * policy.mask(cond)
    wanted[..., 0] = before[..., 0]
    torch.testing.assert_close(found, wanted)


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
    assert not step.std.any()
    torch.testing.assert_close(step.mode, clean)


@pytest.mark.parametrize(("style", "wanted"), [("sampled", 0.928), ("clean", 0.666)])
def test_sampled_styles_spread_as_styles_do(voice: Path, style: str, wanted: float) -> None:
    """Where styles are N(0, 1) the best prediction of one is alpha x. Four posterior steps alone end at 0.67."""
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, style=style))
    cond, schedule = policy.condition(PROMPTS[:1] * 500), policy.schedule(4)
    shape = (500, *policy.state_shape(cond))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    for k in range(4):
        best = (1 - schedule.times[k] ** 2).sqrt().float() * x
        step = policy.transition(x, torch.full((500,), k), cond, schedule, prediction=best)
        x = step.rsample(torch.randn(shape, generator=generator))
    assert float(x[:, : policy.config.style, 0].std()) == pytest.approx(wanted, rel=0.05)


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
        residual = step.std[0, :, 1:].double()
        torch.testing.assert_close(residual, std.expand_as(residual), rtol=1e-6, atol=1e-12)
        # Of the style the prediction knows all but a variance of 1 - alpha_bar; the last step takes its mean.
        left = beta * before.sqrt() / (1 - now) * (1 - now).sqrt() if k < 4 else torch.zeros(())
        style = step.std[0, : policy.config.style, 0].double()
        torch.testing.assert_close(style, (std**2 + left**2).sqrt().expand_as(style), rtol=1e-6, atol=1e-12)


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


def test_the_waveform_is_that_of_the_styled_mean_plus_scaled_residual(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS)
    samples = policy.decode(x, cond)
    for row, size in enumerate(cond.get("frames").tolist()):
        features, plain = (cond.get(name)[row : row + 1, :, :size] for name in ("features", "plain"))
        mean = policy.network.mean(features, plain, x[row : row + 1, :Z, 0])[0] + policy.network.average[:, None]
        residual = policy.options.temperature * TINY.residual_scale * x[row, :, 1 : 1 + size]
        wave = policy.mel.invert(mean + residual)
        torch.testing.assert_close(samples.row(row), wave)


def test_the_style_is_heard_in_the_waveform(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS[:1])
    other = x.clone()
    other[:, :Z, 0] += 1
    first, second = (policy.spectra(y, cond)[0] for y in (x, other))
    assert (first - second).abs().mean() > 1e-2
    assert not torch.allclose(policy.decode(x, cond).row(0), policy.decode(other, cond).row(0), atol=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 0.25, 1.0, 2.0])
def test_the_temperature_multiplies_what_the_chain_adds(voice: Path, temperature: float) -> None:
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, temperature=temperature))
    cond, x = state(policy, PROMPTS)
    still = x.clone()
    still[..., 1:] = 0
    added = policy.spectra(x, cond) - policy.spectra(still, cond)
    torch.testing.assert_close(added, temperature * TINY.residual_scale * x[..., 1:], rtol=0, atol=1e-5)


def test_a_recording_becomes_the_state_that_decodes_to_it(voice: Path) -> None:
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, temperature=1.0))
    cond = policy.condition(PROMPTS[:1])
    mel = torch.randn(TINY.bands, int(cond.get("frames"))) - 3
    x = policy.to_state(mel, {name: cond.get(name)[0] for name in ("features", "plain")})
    style, _ = policy.network.posterior(summarise(mel)[None])
    assert torch.equal(x[:, :1], column(style[0], TINY.bands))
    torch.testing.assert_close(policy.spectra(x[None], cond)[0], mel, rtol=0, atol=1e-5)


def test_the_loudest_state_is_cut_at_one(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS[:1])
    x[..., 1:] = 14 / policy.options.temperature
    assert policy.decode(x, cond).row(0).abs().max() == 1


def test_the_gradient_of_a_waveform_reaches_all_that_is_real(policy: GradTTSPolicy) -> None:
    cond, x = state(policy, PROMPTS)
    x = x.requires_grad_()
    policy.decode(x, cond).data.square().sum().backward()
    assert x.grad.isfinite().all()
    assert not x.grad[~policy.mask(cond)].any()
    assert x.grad[:, :Z, 0].all()
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
    low, high = (policy.encode(ids, frames, torch.full((11,), pitch)) for pitch in (-0.3, 0.3))
    assert low["plain"].shape == (TINY.bands, 11)
    assert low["features"].shape == (TINY.channels, 11)
    assert not torch.allclose(low["plain"], high["plain"])


def test_planned_pitch_is_a_line_through_the_middles_of_the_phones(policy: GradTTSPolicy) -> None:
    ids, frames = torch.tensor(phone_ids(["sil", "AA", "B", "sil"])), torch.tensor([3, 5, 1, 8])
    with torch.no_grad():
        _, planned = policy.network.encode(ids[None], torch.tensor([4]))
    middles = [1.5, 5.5, 8.5, 13.0]
    contour = torch.from_numpy(np.interp(np.arange(17) + 0.5, middles, planned.log_pitch[0].numpy())).float()
    given, own = policy.encode(ids, frames, contour), policy.encode(ids, frames)
    for name in ("features", "plain"):
        torch.testing.assert_close(own[name], given[name], rtol=1e-4, atol=1e-5)
    flat = policy.encode(ids, frames, contour.mean().expand(17))
    assert not torch.allclose(own["plain"], flat["plain"])


# --- text ------------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_every_phone() -> None:
    assert len(SYMBOLS) == len(set(SYMBOLS)) == TINY.phones
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


@pytest.mark.parametrize("trainable", ["style", "biases", "denoiser"])
def test_what_is_trained(voice: Path, trainable: str) -> None:
    policy = GradTTSPolicy(GradTTSOptions(checkpoint=voice, trainable=trainable))
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    denoiser = {f"network.denoiser.{name}" for name, _ in policy.network.denoiser.named_parameters()}
    style = {f"network.style_denoiser.{name}" for name, _ in policy.network.style_denoiser.named_parameters()}
    wanted = {"style": set(), "biases": {name for name in denoiser if name.endswith("bias")}, "denoiser": denoiser}
    assert trained == {"bands.scale", "bands.shift"} | style | wanted[trainable]
    cond, x = state(policy, PROMPTS)
    step = policy.transition(x, torch.tensor([0, 1]), cond, policy.schedule(4))
    step.log_prob(x).sum().backward()
    assert all(weights.grad.ne(0).all() for weights in (policy.bands.scale, policy.bands.shift))
    for name, parameter in policy.named_parameters():
        assert (parameter.grad is not None) == (name in trained), name
        if name in trained:
            assert parameter.grad.abs().max() > 0, name


def pitch(wave: Tensor, rate: int) -> Tensor:
    """Hertz of the voiced ones among frames of 40 ms: those that repeat themselves within 100 - 400 Hz."""
    frames = wave.unfold(0, rate // 25, rate // 100)
    frames = (frames - frames.mean(1, keepdim=True)) * torch.hann_window(rate // 25)
    spectrum = torch.fft.rfft(frames, 2 * frames.shape[1])
    correlation = torch.fft.irfft(spectrum.abs() ** 2)
    window = torch.fft.irfft(torch.fft.rfft(torch.hann_window(rate // 25), 2 * frames.shape[1]).abs() ** 2)
    shortest, longest = rate // 400, rate // 100
    lags = correlation[:, shortest:longest] / correlation[:, :1].clamp(min=1e-9) * window[0] / window[shortest:longest]
    peak, lag = lags.max(1)
    loud = correlation[:, 0] > 0.05 * correlation[:, 0].max()
    return rate / (lag[(peak > 0.6) & loud] + shortest)


@pytest.mark.parametrize("style", ["sampled", "clean"])
def test_the_shipped_voice_is_small_safe_and_speaks(style: str) -> None:
    shipped = GradTTSPolicy(GradTTSOptions(style=style))
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
    assert 150 < voiced.median() < 300
    noise = pitch(torch.randn(len(wave), generator=generator), shipped.config.sample_rate)
    assert len(noise) < 3
