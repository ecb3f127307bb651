"""WaveGrad 2 as a policy: schedules, rows that stand alone, published sampler, training times."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.network import NetworkConfig
from rlzoo_wavegrad2.policy import SHIPPED, WaveGrad2Policy
from rlzoo_wavegrad2.schedules import (
    BETAS,
    TERMINAL_LEVEL,
    levels_of,
    named_levels,
    placed_levels,
    to_schedule,
    training_levels,
)
from speaking import wavegrad2_voice

from rlzoo.api import Prompt
from rlzoo.errors import ConfigError, DataError
from rlzoo.text import ARPABET

TINY = NetworkConfig(
    sample_rate=8000,
    encoder_channels=16,
    speaker_channels=4,
    predictor_channels=8,
    down_channels=(4, 8, 8),
    up_channels=(12, 8, 8, 4),
    factors=(5, 4, 4),
    dilations=((1, 2, 4, 8),) * 3,
)
PROMPTS = [Prompt("a", "Open the door."), Prompt("b", "It is late and the rain has not stopped.")]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wavegrad2_voice(tmp_path_factory.mktemp("voice"), TINY)


@pytest.fixture
def policy(voice: Path) -> WaveGrad2Policy:
    return WaveGrad2Policy(WaveGrad2Options(checkpoint=voice))


def test_training_schedule_ends_where_it_was_published_to() -> None:
    levels = training_levels()
    assert len(levels) == 1001
    assert levels[0] == 1
    assert levels[-1].item() == pytest.approx(TERMINAL_LEVEL, abs=5e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 6, 50])
def test_placed_levels_start_in_noise_and_fall(num_steps: int) -> None:
    levels = placed_levels(num_steps)
    assert len(levels) == num_steps + 1
    assert levels[-1].item() == pytest.approx(TERMINAL_LEVEL)
    assert (levels.diff() < 0).all()


def test_fixed_schedules_are_their_betas_and_know_their_length() -> None:
    levels = named_levels("maum-8", 8, {})
    assert torch.allclose(1 - (levels[1:] / levels[:-1]) ** 2, torch.tensor(BETAS["maum-8"], dtype=torch.float64))
    with pytest.raises(ConfigError, match="has 6 steps, not 8"):
        named_levels("wavegrad-6", 8, {})
    with pytest.raises(ConfigError, match="unknown schedule"):
        named_levels("nonsense", 8, {})


def test_tuned_schedule_is_taken_for_its_number_of_steps_only() -> None:
    tuned = {"2": [0.9, 0.1]}
    assert named_levels("auto", 2, tuned).tolist() == [1.0, 0.9, 0.1]
    assert torch.equal(named_levels("auto", 3, tuned), placed_levels(3))


def test_transition_is_the_published_posterior(policy: WaveGrad2Policy) -> None:
    """Ho et al., Eq. 6 - 7, written with betas as the public code writes it."""
    betas = torch.tensor(BETAS["wavegrad-6"], dtype=torch.float64)
    schedule = to_schedule(levels_of(betas))
    cond = policy.condition(PROMPTS[:1])
    x = torch.randn(1, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0))
    alpha_bar = (1 - betas).cumprod(0)
    for k in range(6):
        i = 5 - k
        before = alpha_bar[i - 1] if i else torch.tensor(1.0, dtype=torch.float64)
        with torch.no_grad():
            step = policy.transition(x, torch.tensor([k]), cond, schedule)
            eps = policy.network.decoder(x, cond.get("hidden"), alpha_bar[i].sqrt().float()[None])
        clean = ((x - (1 - alpha_bar[i]).sqrt() * eps) / alpha_bar[i].sqrt()).clamp(-1, 1)
        first = betas[i] * before.sqrt() / (1 - alpha_bar[i])
        second = (1 - before) * (1 - betas[i]).sqrt() / (1 - alpha_bar[i])
        assert torch.allclose(step.mean.double(), (first * clean + second * x).double(), atol=2e-4)
        variance = betas[i] * (1 - before) / (1 - alpha_bar[i])
        assert step.std.double().item() == pytest.approx(variance.sqrt().item(), rel=1e-4, abs=1e-9)


def test_rows_of_a_batch_equal_rows_alone(policy: WaveGrad2Policy) -> None:
    both, alone = policy.condition(PROMPTS), policy.condition(PROMPTS[:1])
    size = alone.get("hidden").shape[2] * TINY.hop
    assert both.get("frames")[0] == alone.get("frames")[0] < both.get("frames")[1]
    x = torch.randn(2, *policy.state_shape(both)) * policy.mask(both)
    schedule, k = policy.schedule(4), torch.tensor([1, 1])
    with torch.no_grad():
        batch = policy.transition(x, k, both, schedule)
        single = policy.transition(x[:1, :size], k[:1], alone, schedule)
    assert torch.equal(batch.mean[0, :size], single.mean[0])
    assert torch.equal(batch.log_prob(x)[:1], single.log_prob(x[:1, :size]))
    assert not batch.mean[0, size:].any()


def test_audio_has_no_offset_and_fades_at_its_own_ends(policy: WaveGrad2Policy) -> None:
    cond = policy.condition([Prompt("a", "Hello there, everybody."), Prompt("b", "Yes.")])
    (size,) = policy.state_shape(cond)
    loud = 2.0 - 4.0 * (torch.arange(size) % 2)  # +2, -2, ...: its mean is 0 over an even number of samples
    samples = policy.decode(torch.stack([loud + 0.7, loud - 0.7]), cond)
    ramp = torch.arange(80) / (0.01 * policy.media.sample_rate)
    for row, length in zip(samples.data, samples.lengths.tolist(), strict=True):
        torch.testing.assert_close(row[:80].abs(), ramp.clamp(max=1))
        torch.testing.assert_close(row[:length].flip(0)[:80].abs(), ramp.clamp(max=1))
        torch.testing.assert_close(row[400 : length - 400], loud[400 : length - 400] / 2)
        assert (row[length:] == 0).all()


def test_training_times_follow_the_published_distribution(policy: WaveGrad2Policy) -> None:
    uniform = torch.linspace(0, 1, 1001)[:-1]
    sigma = policy.sample_times(uniform)
    assert torch.allclose(sigma.double(), (1 - training_levels()[:-1] ** 2).sqrt(), atol=2e-4)


def test_what_is_trained(voice: Path) -> None:
    def trained(policy: WaveGrad2Policy) -> set[str]:
        return {name.split(".")[1] for name, p in policy.named_parameters() if p.requires_grad}

    biases = WaveGrad2Policy(WaveGrad2Options(checkpoint=voice))
    assert trained(biases) == {"decoder"}
    assert all(name.endswith("bias") == p.requires_grad for name, p in biases.network.decoder.named_parameters())
    assert trained(WaveGrad2Policy(WaveGrad2Options(checkpoint=voice, trainable="denoiser"))) == {"decoder"}
    everything = WaveGrad2Policy(WaveGrad2Options(checkpoint=voice, trainable="all"))
    assert trained(everything) == {"decoder", "encoder", "resampling", "speaker_embedding"}
    assert not any(p.requires_grad for p in everything.network.resampling.duration_predictor.parameters())


def test_gradient_reaches_the_encoder_when_it_is_trained(voice: Path) -> None:
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=voice, trainable="all"))
    cond = policy.condition(PROMPTS)
    x = torch.randn(2, *policy.state_shape(cond))
    step = policy.transition(x, torch.tensor([0, 1]), cond, policy.schedule(4))
    with torch.no_grad():
        frozen = policy.transition(x, torch.tensor([0, 1]), cond, policy.schedule(4))
    # At the noisiest level an error of the prediction is magnified by 1 / 0.08.
    assert torch.allclose(step.mean, frozen.mean, atol=1e-3)
    step.log_prob(x).sum().backward()
    gradient = policy.network.encoder.embedding.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_pace_changes_the_length(voice: Path) -> None:
    slow, fast = (
        WaveGrad2Policy(WaveGrad2Options(checkpoint=voice, pace=p)).condition(PROMPTS[1:]).get("frames").item()
        for p in (0.5, 2.0)
    )
    assert slow / fast == pytest.approx(4, rel=0.2)


def test_phones_may_be_given_instead_of_text(policy: WaveGrad2Policy) -> None:
    cond = policy.condition([Prompt("x", "", {"phones": "sil HH AH0 L OW sil"})])
    assert cond.get("phones").tolist() == [6]


@pytest.mark.parametrize("text", ["flite", "cmu"])
@pytest.mark.parametrize(
    ("silences", "trimmed", "ends"), [(20, False, True), (20, True, False), (3, False, False), (0, False, False)]
)
def test_a_text_begins_and_ends_as_most_recordings_did(
    voice: Path, tmp_path: Path, text: str, silences: int, trimmed: bool, ends: bool
) -> None:
    state, description = VOICES.load(voice)
    phones = dict.fromkeys([*ARPABET, "sp"], 9) | ({"sil": silences} if silences else {})
    card = {"phones": phones, "sentences": 10, "options": {"trim_silence": trimmed}}
    VOICES.save(tmp_path / "voice.safetensors", state, {**description, "text": text, "card": card})
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=tmp_path / "voice.safetensors"))
    for sentence in ("Go on", "Go on."):
        said = policy.frontend.phones(sentence)
        assert said[1 if ends else 0] == "G"
        assert said[-1] == "sil" if ends else said[-1] == "N"


def test_without_a_card_the_style_decides_about_silent_ends(voice: Path, tmp_path: Path) -> None:
    state, description = VOICES.load(voice)
    for text, ends in (("flite", True), ("cmu", False)):
        VOICES.save(tmp_path / "voice.safetensors", state, {**description, "text": text})
        policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=tmp_path / "voice.safetensors"))
        assert (policy.frontend.phones("Go on")[0] == "sil") == ends


def test_a_text_without_words_names_its_prompt(policy: WaveGrad2Policy) -> None:
    with pytest.raises(DataError, match="prompt 'silent'"):
        policy.condition([Prompt("silent", "...")])


def test_the_shipped_voice_is_small_safe_and_speaks() -> None:
    assert SHIPPED.suffix == ".safetensors"
    assert SHIPPED.stat().st_size < 10_000_000
    policy = WaveGrad2Policy(WaveGrad2Options())
    cond = policy.condition([Prompt("a", "The light is green.")])
    seconds = policy.lengths(cond).item() / policy.config.sample_rate
    assert 0.6 < seconds < 2.5
    schedule = policy.schedule()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *policy.state_shape(cond), generator=generator)
    with torch.no_grad():
        for k in range(len(schedule)):
            step = policy.transition(x, torch.tensor([k]), cond, schedule)
            x = step.rsample(torch.randn(x.shape, generator=generator)) if schedule.stochastic[k] else step.mode
    wave = policy.decode(x, cond).data[0]
    # Speech is mostly voiced: its loud frames repeat after a pitch period. White noise gives 0.14, the same spectrum
    # with random phases 0.5.
    frames = wave.unfold(0, 320, 160)
    frames = frames[frames.square().mean(1).argsort(descending=True)[: len(frames) // 2]]
    frames = frames - frames.mean(1, keepdim=True)
    periods = range(policy.config.sample_rate // 400, policy.config.sample_rate // 80)
    repeated = torch.stack([torch.cosine_similarity(frames[:, :-lag], frames[:, lag:]) for lag in periods])
    assert repeated.amax(0).mean() > 0.7
    assert 0.01 < wave.std() < 0.5
    assert math.isfinite(float(wave.abs().max()))
