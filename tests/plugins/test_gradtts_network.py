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
from rlzoo_gradtts.mel import ITERATIONS, MOMENTUM, SILENCE, Mel
from rlzoo_gradtts.network import (
    Bands,
    GradTTSNetwork,
    NetworkConfig,
    PlainSpectrum,
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
    denoiser_dilations=(1, 2), style=5, style_hidden=8,
)  # fmt: skip
CONFIG = NetworkConfig(style=8)
Z = TINY.style
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

    def gaps() -> tuple[float, float]:
        """Mean one in nepers, the valleys between harmonics too, and the share of the magnitudes."""
        made = mel(mel.invert(spectrum))
        share = (made.exp() - spectrum.exp()).norm() / spectrum.exp().norm()
        return (made - spectrum).abs().mean().item(), share.item()

    nepers, share = gaps()
    assert nepers < 0.18
    assert share < 0.085
    monkeypatch.setattr(mel_module, "ITERATIONS", 1)
    few_nepers, few_share = gaps()
    assert few_nepers > 2 * nepers
    assert few_share > 4 * share


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
    wave = mel.invert(torch.full((CONFIG.bands, frames), -5.0))
    assert wave.shape == ((frames - 1) * CONFIG.hop,)
    assert mel(wave).shape == (CONFIG.bands, frames)
    assert mel(torch.cat([wave, wave[: CONFIG.hop - 1]])).shape == (CONFIG.bands, frames)


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
    generator = torch.Generator().manual_seed(0)
    if silent:  # frames of exact silence are all alike, cancel, and leave phases to rounding
        spectrum = mel(torch.zeros(3200, dtype=DOUBLE))
        spectrum = spectrum + 1e-3 * torch.randn(spectrum.shape, generator=generator, dtype=DOUBLE)
    else:
        spectrum = mel(voice(0.2).double())
    wanted = phases_held(mel, spectrum)
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


def test_the_gradient_of_exact_silence_is_finite_and_homogeneous() -> None:
    """Waveforms scale with their magnitudes, so that raising all bands together raises the waveform (Euler)."""
    mel = Mel(CONFIG).double()
    leaf = mel(torch.zeros(3200, dtype=DOUBLE)).requires_grad_()
    wave = mel.invert(leaf)
    probe = torch.randn(wave.shape, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    (gradient,) = torch.autograd.grad((probe * wave).sum(), leaf)
    assert gradient.isfinite().all()
    assert (probe * wave).sum().abs() > 1e-4
    assert gradient.sum().item() == pytest.approx((probe * wave).sum().item(), rel=1e-2)


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
    wave = Mel(CONFIG).invert(torch.full((CONFIG.bands, 20), 3.0))
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

    def forward(self, x: Tensor, sigma: Tensor, frames: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        level = sigma[:, None, None]
        return ((1 - level**2).sqrt() * x - self.clean) / level * mask


FRAMES = torch.tensor([7, 5, 3, 7])
MASK = state_mask(FRAMES, Z, TINY.bands, 8)


def noised() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clean, sigma (B,), alpha (B, 1, 1), noisy; states are zero where nothing is real."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, TINY.bands, 8, generator=generator, dtype=DOUBLE) * MASK
    sigma = torch.tensor([0.01, 0.3, 0.9, 0.999], dtype=DOUBLE)
    alpha = (1 - sigma**2).sqrt()[:, None, None]
    return clean, sigma, alpha, alpha * clean + sigma[:, None, None] * noise


def heard(features: Tensor) -> Tensor:
    """Features (B, C, 7) -> their mean over the real frames (B, C), in plain loops."""
    return torch.stack([row[:, :count].mean(1) for row, count in zip(features, FRAMES.tolist(), strict=True)])


def test_what_is_real_of_a_state() -> None:
    for row, frames in enumerate(FRAMES.tolist()):
        for band in range(TINY.bands):
            wanted = [band < Z] + [frame < frames for frame in range(7)]
            assert MASK[row, band].tolist() == wanted
    assert MASK.sum((1, 2)).tolist() == [Z + TINY.bands * frames for frames in FRAMES.tolist()]


def test_a_style_stands_on_top_of_its_column() -> None:
    style = torch.arange(1.0, 1 + 2 * Z).view(2, Z)
    found = column(style, TINY.bands)
    assert found.shape == (2, TINY.bands, 1)
    assert torch.equal(found[:, :Z, 0], style)
    assert not found[:, Z:].any()


def test_a_perfect_v_gives_back_what_is_clean(network: GradTTSNetwork) -> None:
    clean, sigma, _, x = noised()
    network = network.double()
    network.denoiser = Perfect(clean[..., 1:])  # type: ignore[assignment]
    _, residual = network.clean(x, sigma, torch.zeros(4, TINY.channels, 7, dtype=DOUBLE), MASK.double())
    torch.testing.assert_close(residual, clean[..., 1:], rtol=1e-12, atol=1e-12)
    given = network.residual(x[..., 1:], sigma, torch.zeros(()), torch.zeros(()), MASK[:, :1, 1:].double())
    torch.testing.assert_close(given, clean[..., 1:], rtol=1e-12, atol=1e-12)


def test_clean_is_alpha_x_minus_sigma_v(network: GradTTSNetwork) -> None:
    _, sigma, alpha, x = noised()
    network = network.double()
    mask = MASK[:, :1, 1:].double()
    features = torch.randn(4, TINY.channels, 7, dtype=DOUBLE) * mask
    with torch.no_grad():
        style, residual = network.clean(x, sigma, features, MASK.double())
        wanted = network.style_denoiser(x[:, :Z, 0], sigma, heard(features))
        v = network.denoiser(x[..., 1:], sigma, features, wanted, mask)
    assert v.abs().mean() > 0.01
    torch.testing.assert_close(style, wanted, rtol=1e-12, atol=1e-12)
    wanted_residual = (alpha * x[..., 1:] - sigma[:, None, None] * v) * mask
    torch.testing.assert_close(residual, wanted_residual, rtol=1e-12, atol=1e-12)
    assert not residual[~MASK[..., 1:]].any()


def test_a_fresh_denoiser_says_nothing_and_levels_and_styles_are_told_apart(network: GradTTSNetwork) -> None:
    x, features, mask = torch.randn(3, TINY.bands, 7), torch.randn(3, TINY.channels, 7), torch.ones(3, 1, 7)
    style = torch.randn(3, Z)
    fresh = GradTTSNetwork(TINY).denoiser
    assert not fresh(x, torch.tensor([0.1, 0.5, 0.9]), features, style, mask).any()
    same = [value[:1].expand(3, -1, -1) for value in (x, features, mask)]
    with torch.no_grad():
        levels = network.denoiser(same[0], torch.tensor([0.02, 0.05, 0.999]), same[1], style[:1].expand(3, -1), same[2])
        styles = network.denoiser(same[0], torch.full((3,), 0.3), same[1], style, same[2])
    for low, middle, high in (levels, styles):
        assert (low - middle).abs().max() > 1e-3
        assert (middle - high).abs().max() > 1e-3


def test_the_style_knows_the_text_and_nothing_of_the_noisy_frames(network: GradTTSNetwork) -> None:
    _, sigma, _, x = (value.float() for value in noised())
    other = torch.cat([x[..., :1], x[..., 1:] + 1], 2)
    features = torch.randn(4, TINY.channels, 7)
    with torch.no_grad():
        style, residual = network.clean(x, sigma, features, MASK.float())
        same, moved = network.clean(other, sigma, features, MASK.float())
        elsewhere, _ = network.clean(x, sigma, features + 1, MASK.float())
    assert torch.equal(style, same)
    assert not torch.allclose(residual, moved)
    assert ((style - elsewhere).abs().amax(1) > 1e-3 * sigma).all()


def test_bands_are_the_identity_at_first() -> None:
    clean = noised()[0].float()
    assert torch.equal(Bands(TINY.bands)(clean), clean)


def test_bands_scale_and_shift_what_is_taken_for_clean() -> None:
    clean, *_ = noised()
    a, b = torch.randn(2, TINY.bands, dtype=DOUBLE)
    bands = Bands(TINY.bands).double()
    bands.load_state_dict({"scale": a, "shift": b})
    with torch.no_grad():
        found = bands(clean)
    torch.testing.assert_close(found, (1 + a[:, None]) * clean + b[:, None], rtol=1e-12, atol=1e-12)


# --- harmonics -------------------------------------------------------------------------------------------------------

FINE = TINY.model_copy(update={"bands": 256})


def rippled(order: int, hertz: float) -> tuple[Tensor, Tensor, Tensor]:
    """The plain spectrum (M,) above its envelope with this term alone, of gain 0.7, at this pitch; centres, spacing."""
    network = GradTTSNetwork(FINE)
    plain = network.plain
    nn.init.zeros_(plain.envelope.weight)
    with torch.no_grad():
        plain.envelope.bias.fill_(2.0)
        plain.gains.bias[(order - 1) * FINE.bands : order * FINE.bands] = 0.7
        contour = torch.full((1, 3), math.log(hertz / 100))
        found = plain(torch.randn(1, FINE.channels, 3), *network.harmonics(contour))
    assert torch.equal(found[0, :, :1].expand(-1, 3), found[0])
    centres, spacing = band_centres(FINE)
    return (found[0, :, 0] - 2).double(), centres.double(), spacing.double()


@pytest.mark.parametrize("hertz", [100.0, 162.5, 200.0])
def test_the_ripple_has_the_period_of_the_pitch(hertz: float) -> None:
    ripple, centres, spacing = rippled(1, hertz)
    for harmonic in range(1, int(1000 / hertz)):
        peak, valley = harmonic * hertz, (harmonic - 0.5) * hertz
        near, below = ((centres - place).abs() <= hertz / 2 for place in (peak, valley))
        assert abs(centres[near][ripple[near].argmax()] - peak) <= spacing[0]
        assert abs(centres[below][ripple[below].argmin()] - valley) <= spacing[0]
    low = centres < 1000 // hertz * hertz  # whole periods of evenly spaced bands: a Fourier series
    terms = [(ripple[low] * torch.cos(2 * math.pi * n * centres[low] / hertz)).mean() * 2 for n in range(1, 4)]
    assert terms[0].item() == pytest.approx(0.7 * math.exp(-((2 * spacing[0] / hertz) ** 2)), rel=0.02)
    assert max(abs(term) for term in terms[1:]) < 0.02


@pytest.mark.parametrize("hertz", [90.0, 300.0])
def test_harmonics_fade_where_bands_are_wider_than_they_are_apart(hertz: float) -> None:
    first, centres, spacing = rippled(1, hertz)
    apart = spacing / hertz
    wanted = 0.7 * torch.cos(2 * math.pi * centres / hertz) * torch.exp(-4 * apart**2)
    torch.testing.assert_close(first, wanted, rtol=0, atol=2e-4)
    assert first[apart < 0.2].abs().max() > 0.55
    assert not (apart > 1).any() or first[apart > 1].abs().max() < 0.7 * math.exp(-4)
    # A finer ripple fades as that of a lower voice does.
    for order in range(2, PlainSpectrum.TERMS + 1):
        torch.testing.assert_close(rippled(order, hertz)[0], rippled(1, hertz / order)[0], rtol=0, atol=5e-4)


def test_the_terms_of_the_ripple_add_up(network: GradTTSNetwork) -> None:
    plain, features = network.plain.double(), torch.randn(2, TINY.channels, 5, dtype=DOUBLE)
    phase, fade = 9 * torch.randn(2, TINY.bands, 5, dtype=DOUBLE), torch.rand(2, TINY.bands, 5, dtype=DOUBLE)
    nn.init.normal_(plain.gains.weight)
    with torch.no_grad():
        gains = plain.gains(features).view(2, PlainSpectrum.TERMS, TINY.bands, 5)
        wanted = plain.envelope(features)
        for order in range(1, PlainSpectrum.TERMS + 1):
            wanted = wanted + gains[:, order - 1] * fade ** (order**2) * torch.cos(order * phase)
        torch.testing.assert_close(plain(features, phase, fade), wanted, rtol=1e-12, atol=1e-12)


def test_the_ripple_follows_the_pitch_of_every_frame(network: GradTTSNetwork) -> None:
    contour = torch.tensor([[0.2, 0.9], [0.9, -0.4]])
    phase, fade = network.harmonics(contour)
    assert phase.shape == fade.shape == (2, TINY.bands, 2)
    for row in range(2):
        for frame in range(2):
            alone = network.harmonics(contour[row, frame : frame + 1])
            assert torch.equal(phase[row, :, frame], alone[0][:, 0])
            assert torch.equal(fade[row, :, frame], alone[1][:, 0])


def test_the_gains_are_nothing_at_first() -> None:
    torch.manual_seed(0)
    plain, features = PlainSpectrum(TINY), torch.randn(2, TINY.channels, 5)
    phase, fade = torch.randn(2, TINY.bands, 5), torch.rand(2, TINY.bands, 5)
    assert torch.equal(plain(features, phase, fade), plain.envelope(features))


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
    expanded = quiet(network).expand(encoded, frames, torch.zeros(6))
    assert torch.equal(expanded, encoded.t()[[0, 0, 2, 2, 2, 3]])


def test_frames_know_their_place_size_and_pitch(network: GradTTSNetwork) -> None:
    network = quiet(network)
    with torch.no_grad():
        network.place.weight[:4] = torch.eye(4)
        frames, contour = torch.tensor([1, 4, 0, 2]), torch.tensor([0.5, 0.1, 9.0, -0.3, 0.0, 0.7, -2.0])
        found = network.expand(torch.zeros(TINY.channels, 4), frames, contour)[:, :4]
    wanted = torch.tensor([[0, 0, 0.1], *([i / 4, (3 - i) / 4, 0.4] for i in range(4)), [0, 0.5, 0.2], [0.5, 0, 0.2]])
    torch.testing.assert_close(found[:, :3], wanted)
    assert torch.equal(found[:, 3], contour)


def test_the_comb_stands_on_the_harmonics(network: GradTTSNetwork) -> None:
    network = quiet(network)
    with torch.no_grad():
        network.comb.weight.copy_(torch.eye(TINY.channels, TINY.bands))
        contour = torch.tensor([math.log(float(network.centres[9]) / 4 / 100)])  # the band's fourth harmonic
        (comb,) = network.expand(torch.zeros(TINY.channels, 1), torch.tensor([1]), contour)
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
        contour = torch.randn(2, 20)
        inside = state_mask(torch.tensor([12, 20]), Z, TINY.bands, 21).float()
        mask = inside[:, :1, 1:]
        nn.init.normal_(network.plain.gains.weight)
        features, plain = network.decode(expanded, contour, mask)
        style, residual = network.clean(x, sigma, features, inside)
        short, short_plain = network.decode(expanded[:1, :12], contour[:1, :12], mask[:1, :, :12])
        short_style, short_residual = network.clean(x[:1, :, :13], sigma[:1], short, inside[:1, :, :13])
    torch.testing.assert_close(style[:1], short_style)
    for both, one in ((features, short), (plain, short_plain), (residual, short_residual)):
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

    def size_of(part: nn.Module) -> int:
        return sum(parameter.numel() for parameter in part.parameters())

    biases = sum(p.numel() for name, p in network.denoiser.named_parameters() if name.endswith("bias"))
    style = size_of(Bands(CONFIG.bands)) + size_of(network.style_denoiser)
    assert says(r": ([0-9,]+) numbers") == style
    assert says(r"biases of the residual's denoiser: ([0-9,]+)") == style + biases
    assert says(r"all of the residual's denoiser: ([0-9.]+) million") == round(
        (style + size_of(network.denoiser)) / 1e6, 1
    )
    assert says(r"([0-9.]+) million\s+parameters") == round(size_of(network) / 1e6, 1)
    second = CONFIG.sample_rate // CONFIG.hop
    x, features = torch.zeros(1, CONFIG.bands, 1 + second), torch.zeros(1, CONFIG.channels, second)
    mask = state_mask(torch.tensor([second]), CONFIG.style, CONFIG.bands, 1 + second).float()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.clean(x, torch.tensor([0.5]), features, mask)
    assert says(r"([0-9.]+) GFLOP") == round(counter.get_total_flops() / 1e9, 2)
