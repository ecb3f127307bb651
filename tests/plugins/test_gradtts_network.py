"""Grad-TTS's network and mel spectra against closed forms, and rows that ignore what is beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rlzoo_gradtts import mel as mel_module
from rlzoo_gradtts.conditions import NUMBERS
from rlzoo_gradtts.mel import ITERATIONS, MOMENTUM, SILENCE, Mel
from rlzoo_gradtts.network import (
    CONDITION_UNIT,
    Bands,
    GradTTSNetwork,
    NetworkConfig,
    along,
    band_centres,
    column,
    state_mask,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchaudio.functional import griffinlim, melscale_fbanks

TINY = NetworkConfig(
    sample_rate=8000, fft=256, hop=80, bands=24, channels=16, encoder_layers=2, decoder_dilations=(1, 2),
    denoiser_dilations=(1, 2),
)  # fmt: skip
CONFIG = NetworkConfig()
DOUBLE = torch.float64


@pytest.fixture
def network() -> GradTTSNetwork:
    """Untrained, but for a denoiser that says something."""
    torch.manual_seed(0)
    network = GradTTSNetwork(TINY)
    for parameter in network.denoiser.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network


def voice(seconds: float = 0.6, rate: int = 16_000) -> Tensor:
    """Harmonics of a pitch that rises from 120 Hz, swelling and fading."""
    time = torch.arange(int(seconds * rate), dtype=DOUBLE) / rate
    phase = 2 * math.pi * (120 * time + 10 * time**2)
    parts = [math.exp(-h / 8) * torch.cos(h * phase + h * h) for h in range(1, 30)]
    return (0.05 * (0.6 + 0.4 * torch.sin(6 * math.pi * time)) * torch.stack(parts).sum(0)).float()


# --- mel spectra -----------------------------------------------------------------------------------------------------


def test_the_waveform_of_a_spectrum_has_that_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    mel = Mel(CONFIG)
    spectrum = mel(voice())
    gap = (mel(mel.invert(spectrum)) - spectrum).abs().mean()
    assert gap < 0.13
    monkeypatch.setattr(mel_module, "ITERATIONS", 1)
    assert (mel(mel.invert(spectrum)) - spectrum).abs().mean() > 2 * gap


def test_spectra_know_loudness_and_pitch() -> None:
    mel, wave = Mel(CONFIG), voice()
    spectrum = mel(wave)
    loud = spectrum > math.log(10 * CONFIG.floor)
    torch.testing.assert_close(mel(0.5 * wave)[loud], spectrum[loud] - math.log(2))
    assert mel(torch.zeros(800)).unique().tolist() == pytest.approx([math.log(CONFIG.floor)])
    tone = mel(0.5 * torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 16_000))
    centre, spacing = (values[int(tone[:, 25].argmax())] for values in band_centres(CONFIG))
    assert abs(centre - 1000) < spacing


@pytest.mark.parametrize("frames", [CONFIG.shortest, 20])
def test_lengths(frames: int) -> None:
    mel = Mel(CONFIG)
    wave = mel.invert(torch.full((80, frames), -5.0))
    assert wave.shape == ((frames - 1) * CONFIG.hop,)
    assert mel(wave).shape == (80, frames)
    assert mel(torch.cat([wave, wave[: CONFIG.hop - 1]])).shape == (80, frames)


def test_inversion_draws_nothing() -> None:
    mel, spectrum = Mel(CONFIG), Mel(CONFIG)(voice())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = mel.invert(spectrum)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(mel.invert(spectrum), first)


def phases_held(mel: Mel, spectrum: Tensor) -> Callable[[Tensor], Tensor]:
    """Spectra -> waveforms with the phases that Griffin-Lim finds for `spectrum`."""

    def magnitude(x: Tensor) -> Tensor:
        return (mel.inverse @ x.exp()).clamp(min=SILENCE)

    length, fft, hop = (spectrum.shape[1] - 1) * mel.hop, mel.fft, mel.hop
    wave = griffinlim(
        magnitude(spectrum), mel.window, fft, hop, fft, 1.0, ITERATIONS, MOMENTUM, length, rand_init=False
    )
    phase = torch.stft(wave, fft, hop, window=mel.window, return_complex=True).angle()

    def invert(x: Tensor) -> Tensor:
        return torch.istft(torch.polar(magnitude(x), phase), fft, hop, window=mel.window, length=length)

    return invert


@pytest.mark.parametrize("silent", [False, True])
def test_the_gradient_is_that_of_the_last_transform_at_the_phases_found(silent: bool) -> None:
    mel = Mel(CONFIG).double()
    spectrum = mel(torch.zeros(3200, dtype=DOUBLE) if silent else voice(0.2).double())
    wanted, generator = phases_held(mel, spectrum), torch.Generator().manual_seed(0)
    torch.testing.assert_close(mel.invert(spectrum), wanted(spectrum))
    leaf = spectrum.clone().requires_grad_()
    wave = mel.invert(leaf)
    probe = torch.randn(wave.shape, generator=generator, dtype=DOUBLE)
    (gradient,) = torch.autograd.grad((probe * wave).sum(), leaf)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 1e-6
    for _ in range(3):
        way = torch.randn(spectrum.shape, generator=generator, dtype=DOUBLE)
        there, back = (wanted(spectrum + sign * 1e-5 * way) for sign in (1, -1))
        difference = (probe * (there - back)).sum() / 2e-5
        assert (gradient * way).sum().item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-9)


def spectra(mel: Mel, seconds: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Voices of these lengths -> (N, M, T) with rubbish behind the short ones, frames (N,)."""
    rows = [mel(voice(size).to(mel.window)) for size in seconds]
    frames = torch.tensor([row.shape[1] for row in rows])
    padded = [nn.functional.pad(row, (0, int(frames.max()) - row.shape[1]), value=1.5) for row in rows]
    return torch.stack(padded), frames


def test_rows_of_all_lengths_are_inverted_together_as_on_a_gpu() -> None:
    mel = Mel(CONFIG).double()
    batch, frames = spectra(mel, (0.3, 0.05, 0.31))
    leaf = batch.clone().requires_grad_()
    waves = mel._together(leaf, frames)
    probe = torch.randn(waves.shape, dtype=DOUBLE)
    (probe * waves).sum().backward()
    for row, count in enumerate(frames.tolist()):
        size, own = (count - 1) * CONFIG.hop, batch[row, :, :count].clone().requires_grad_()
        alone = mel.invert(own)
        torch.testing.assert_close(waves[row, :size], alone)
        assert not waves[row, size:].any()
        (probe[row, :size] * alone).sum().backward()
        torch.testing.assert_close(leaf.grad[row, :, :count], own.grad)
        assert not leaf.grad[row, :, count:].any()


def test_on_a_cpu_no_bit_of_a_waveform_depends_on_its_batch_mates() -> None:
    mel = Mel(CONFIG)
    batch, frames = spectra(mel, (0.3, 0.05, 0.31))
    waves = mel.invert(batch, frames)
    for row, count in enumerate(frames.tolist()):
        assert torch.equal(waves[row, : (count - 1) * CONFIG.hop], mel.invert(batch[row, :, :count]))
        assert not waves[row, (count - 1) * CONFIG.hop :].any()


def test_the_loudest_waveform_is_cut_at_one() -> None:
    wave = Mel(CONFIG).invert(torch.full((80, 20), 3.0))
    assert wave.abs().max() == 1


@pytest.mark.parametrize("config", [CONFIG, TINY])
def test_bands_lie_where_their_filters_are(config: NetworkConfig) -> None:
    top = config.sample_rate / 2
    filters = melscale_fbanks(2 * int(top) + 1, 0.0, top, config.bands, config.sample_rate, "slaney", "slaney")
    peaks = filters.argmax(0) / 2  # on a grid of half a hertz
    centres, spacing = band_centres(config)
    assert (centres - peaks).abs().max() < 0.5
    assert (spacing[:-1] - peaks.diff()).abs().max() < 1
    assert spacing[-1] == pytest.approx(top - float(centres[-1]), abs=0.01)


# --- noise -----------------------------------------------------------------------------------------------------------


class Perfect(nn.Module):
    """The denoiser that knows what is clean (B, M, T): v = alpha eps - sigma x0 = (alpha x - x0) / sigma."""

    def __init__(self, clean: Tensor) -> None:
        super().__init__()
        self.clean = clean

    def forward(self, x: Tensor, sigma: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        level = sigma[:, None, None]
        return ((1 - level**2).sqrt() * x - self.clean) / level * mask


FRAMES = torch.tensor([7, 5, 3, 7])
MASK = state_mask(FRAMES, TINY.bands, 8)


def noised() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean, sigma (B,), alpha (B, 1, 1), noisy; states are zero where nothing is real."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, TINY.bands, 8, generator=generator, dtype=DOUBLE) * MASK
    sigma = torch.tensor([0.01, 0.3, 0.9, 0.999], dtype=DOUBLE)
    alpha = (1 - sigma**2).sqrt()[:, None, None]
    return clean, sigma, alpha, alpha * clean + sigma[:, None, None] * noise


def test_what_is_real_of_a_state() -> None:
    for row, frames in enumerate(FRAMES.tolist()):
        for band in range(TINY.bands):
            wanted = [band < NUMBERS] + [frame < frames for frame in range(7)]
            assert MASK[row, band].tolist() == wanted
    assert MASK.sum((1, 2)).tolist() == [NUMBERS + TINY.bands * frames for frames in FRAMES.tolist()]


def test_a_condition_stands_on_top_of_its_column() -> None:
    condition = torch.arange(1.0, 1 + 2 * NUMBERS).view(2, NUMBERS)
    found = column(condition, TINY.bands)
    assert found.shape == (2, TINY.bands, 1)
    assert torch.equal(found[:, :NUMBERS, 0], condition)
    assert not found[:, NUMBERS:].any()


def test_a_perfect_v_gives_back_what_is_clean(network: GradTTSNetwork) -> None:
    clean, sigma, alpha, x = noised()
    network.denoiser = Perfect(clean[..., 1:])  # type: ignore[assignment]
    found = network.clean(x, sigma, torch.zeros(()), MASK.double())
    torch.testing.assert_close(found[..., 1:], clean[..., 1:], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[..., :1], alpha * x[..., :1], rtol=1e-12, atol=1e-12)  # E[x0 | x] of a normal one


def test_v_is_nothing_for_what_is_standard_normal(network: GradTTSNetwork) -> None:
    """No linear guess of a condition errs less than alpha x: what is left has nothing in common with x."""
    generator, levels = torch.Generator().manual_seed(0), torch.linspace(0.1, 0.95, 5, dtype=DOUBLE)
    clean, noise = torch.randn(2, 40_000, TINY.bands, 1, generator=generator, dtype=DOUBLE)
    inside = state_mask(torch.zeros(40_000, dtype=torch.long), TINY.bands, 1).double()
    network.denoiser = Perfect(torch.zeros(40_000, TINY.bands, 0, dtype=DOUBLE))  # type: ignore[assignment]
    for level in levels:
        x = (1 - level**2).sqrt() * clean + level * noise
        left = (network.clean(x, level.expand(40_000), torch.zeros(()), inside) - clean)[:, :NUMBERS]
        assert left.square().mean().item() == pytest.approx(level.item() ** 2, rel=0.02)
        assert (left * x[:, :NUMBERS]).mean().abs() < 0.015


def test_clean_is_alpha_x_minus_sigma_v(network: GradTTSNetwork) -> None:
    _, sigma, alpha, x = noised()
    network = network.double()
    mask = MASK[:, :1, 1:].double()
    features = torch.randn(4, TINY.channels, 7, dtype=DOUBLE) * mask
    with torch.no_grad():
        v = network.denoiser(x[..., 1:], sigma, features, mask)
        found = network.clean(x, sigma, features, MASK.double())
    assert v.abs().mean() > 0.01
    wanted = alpha * x
    wanted[..., 1:] -= sigma[:, None, None] * v
    torch.testing.assert_close(found, wanted * MASK, rtol=1e-12, atol=1e-12)
    assert not found[~MASK].any()


def test_a_fresh_denoiser_says_nothing_and_levels_are_told_apart(network: GradTTSNetwork) -> None:
    x, features, mask = torch.randn(3, TINY.bands, 7), torch.randn(3, TINY.channels, 7), torch.ones(3, 1, 7)
    fresh = GradTTSNetwork(TINY).denoiser
    assert not fresh(x, torch.tensor([0.1, 0.5, 0.9]), features, mask).any()
    same = [value[:1].expand(3, -1, -1) for value in (x, features, mask)]
    with torch.no_grad():
        low, middle, high = network.denoiser(same[0], torch.tensor([0.02, 0.05, 0.999]), *same[1:])
    assert (low - middle).abs().max() > 1e-3
    assert (middle - high).abs().max() > 1e-3


def test_frames_know_nothing_of_the_condition(network: GradTTSNetwork) -> None:
    _, sigma, alpha, x = (value.float() for value in noised())
    other = x.clone()
    other[:, :NUMBERS, 0] += 1
    features = torch.randn(4, TINY.channels, 7)
    with torch.no_grad():
        change = network.clean(other, sigma, features, MASK.float()) - network.clean(x, sigma, features, MASK.float())
    assert not change[..., 1:].any()
    torch.testing.assert_close(change[:, :NUMBERS, 0], alpha[:, :, 0].expand(-1, NUMBERS))


def test_bands_are_the_identity_at_first() -> None:
    clean = noised()[0].float()
    assert torch.equal(Bands(TINY.bands)(clean, MASK.float()), clean)


def changed(scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """What is clean and what `Bands` make of it."""
    clean, *_ = noised()
    bands = Bands(TINY.bands).double()
    bands.load_state_dict({"scale": scale, "shift": shift})
    with torch.no_grad():
        return clean, bands(clean, MASK.double())


def test_bands_scale_and_shift_what_is_taken_for_clean() -> None:
    a, b = torch.randn(TINY.bands, dtype=DOUBLE), torch.randn(TINY.bands + NUMBERS, dtype=DOUBLE)
    clean, found = changed(a, b)
    wanted = (1 + a[:, None]) * clean + b[: TINY.bands, None]
    wanted[:, :NUMBERS, 0] = clean[:, :NUMBERS, 0] + CONDITION_UNIT * b[TINY.bands :]
    torch.testing.assert_close(found, torch.where(MASK, wanted, clean), rtol=1e-12, atol=1e-12)


def test_the_last_shifts_are_the_conditions_alone() -> None:
    last, first = slice(TINY.bands, None), slice(TINY.bands)
    for entries, touched, unit in ((last, slice(0, 1), CONDITION_UNIT), (first, slice(1, None), 1)):
        b = torch.zeros(TINY.bands + NUMBERS, dtype=DOUBLE)
        b[entries] = 2.0 / unit
        clean, found = changed(torch.zeros(TINY.bands, dtype=DOUBLE), b)
        wanted = torch.zeros_like(clean)
        wanted[..., touched] = 2
        torch.testing.assert_close(found - clean, wanted * MASK, rtol=1e-12, atol=1e-12)


# --- frames ----------------------------------------------------------------------------------------------------------


def test_along_is_linear_interpolation() -> None:
    values, centres = torch.randn(6, dtype=DOUBLE), torch.tensor([1.5, 2.0, 5.5, 6.25, 9.0, 14.0], dtype=DOUBLE)
    wanted = np.interp(np.arange(17) + 0.5, centres.numpy(), values.numpy())
    torch.testing.assert_close(along(values, centres, 17), torch.from_numpy(wanted))
    assert along(values[:1], centres[:1], 4).tolist() == values[:1].tolist() * 4
    # Phones of no frames have their neighbours' centres.
    tied = along(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 2.0, 5.0]), 7)
    assert tied.tolist() == pytest.approx([0, 0.5, 2 + 1 / 6, 2.5, 2 + 5 / 6, 3, 3])


def quiet(network: GradTTSNetwork) -> GradTTSNetwork:
    """Frames know their phone only."""
    for layer in (network.place, network.comb):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network


def test_frames_belong_to_their_phones(network: GradTTSNetwork) -> None:
    encoded = torch.randn(TINY.channels, 5)
    frames = torch.tensor([2, 0, 3, 1, 0])
    expanded = quiet(network).expand(encoded, frames, torch.zeros(5))
    assert torch.equal(expanded, encoded.t()[[0, 0, 2, 2, 2, 3]])


def test_frames_know_their_place_size_and_pitch(network: GradTTSNetwork) -> None:
    network = quiet(network)
    with torch.no_grad():
        network.place.weight[:4] = torch.eye(4)
        frames, log_pitch = torch.tensor([1, 4, 0, 2]), torch.tensor([0.5, 0.1, 9.0, -0.3])
        found = network.expand(torch.zeros(TINY.channels, 4), frames, log_pitch)[:, :4]
    wanted = torch.tensor([[0, 0, 0.1], *([i / 4, (3 - i) / 4, 0.4] for i in range(4)), [0, 0.5, 0.2], [0.5, 0, 0.2]])
    torch.testing.assert_close(found[:, :3], wanted)
    wanted_pitch = np.interp(np.arange(7) + 0.5, [0.5, 3, 5, 6], log_pitch.numpy())
    torch.testing.assert_close(found[:, 3], torch.from_numpy(wanted_pitch).float())


def test_the_comb_stands_on_the_harmonics(network: GradTTSNetwork) -> None:
    network = quiet(network)
    with torch.no_grad():
        network.comb.weight.copy_(torch.eye(TINY.channels, TINY.bands))
        log_pitch = torch.tensor([math.log(float(network.centres[9]) / 4 / 100)])  # the band's fourth harmonic
        (comb,) = network.expand(torch.zeros(TINY.channels, 1), torch.tensor([1]), log_pitch)
    centres, spacing = (values.double()[: TINY.channels] for values in band_centres(TINY))
    hertz = float(centres[9]) / 4
    fading = torch.exp(-((2 * spacing / hertz) ** 2))
    torch.testing.assert_close(comb.double(), torch.cos(2 * math.pi * centres / hertz) * fading, atol=1e-4, rtol=0)
    assert comb[9] == pytest.approx(float(fading[9]), abs=1e-4)


def test_rows_ignore_what_is_beside_them(network: GradTTSNetwork) -> None:
    ids, phones = torch.randint(1, 88, (2, 9)), torch.tensor([5, 9])
    with torch.no_grad():
        encoded, planned = network.encode(ids, phones)
        alone, alone_planned = network.encode(ids[:1, :5], phones[:1])
        torch.testing.assert_close(encoded[:1, :, :5], alone)
        for both, one in zip(planned, alone_planned, strict=True):
            torch.testing.assert_close(both[:1, :5], one)
        expanded, x, sigma = torch.randn(2, 20, TINY.channels), torch.randn(2, TINY.bands, 21), torch.tensor([0.4, 0.8])
        inside = state_mask(torch.tensor([12, 20]), TINY.bands, 21).float()
        mask = inside[:, :1, 1:]
        features, mean = network.decode(expanded, mask)
        clean = network.clean(x, sigma, features, inside)
        short, short_mean = network.decode(expanded[:1, :12], mask[:1, :, :12])
        short_clean = network.clean(x[:1, :, :13], sigma[:1], short, inside[:1, :, :13])
    for both, one in ((features, short), (mean, short_mean), (clean, short_clean)):
        torch.testing.assert_close(both[:1, :, : one.shape[2]], one)
        assert not both[0, :, one.shape[2] :].any()


def test_prosody_does_not_bend_the_encoder(network: GradTTSNetwork) -> None:
    encoded, planned = network.encode(torch.randint(1, 88, (1, 6)), torch.tensor([6]))
    (planned.log_frames.sum() + planned.log_pitch.sum()).backward()
    assert network.embedding.weight.grad is None
    encoded.square().sum().backward()
    assert network.embedding.weight.grad is not None


def test_size_and_cost_are_what_the_readme_says() -> None:
    network, readme = GradTTSNetwork(CONFIG), Path(mel_module.__file__).with_name("README.md").read_text()

    def says(pattern: str) -> float:
        (found,) = re.findall(pattern, readme)
        return float(found.replace(",", ""))

    denoiser = {name: parameter.numel() for name, parameter in network.denoiser.named_parameters()}
    bands = sum(parameter.numel() for parameter in Bands(CONFIG.bands).parameters())
    biases = sum(size for name, size in denoiser.items() if name.endswith("bias"))
    assert says(r": ([0-9]+) numbers") == bands
    assert says(r"denoiser's biases: ([0-9,]+)") == bands + biases
    assert says(r"all of it: ([0-9.]+) million") == round((bands + sum(denoiser.values())) / 1e6, 1)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert says(r"([0-9.]+) million parameters") == round(total / 1e6, 1)
    second = CONFIG.sample_rate // CONFIG.hop
    x, features = torch.zeros(1, CONFIG.bands, 1 + second), torch.zeros(1, CONFIG.channels, second)
    mask = state_mask(torch.tensor([second]), CONFIG.bands, 1 + second).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.clean(x, torch.tensor([0.5]), features, mask)
    assert says(r"([0-9.]+) GFLOP") == round(counter.get_total_flops() / 1e9, 2)
