"""A style in closed form: what tells it from a recording, its posterior, its chain, and what it does to a spectrum."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rlzoo_gradtts.levels import LEVELS, alpha_of, embed_level
from rlzoo_gradtts.network import GradTTSNetwork, NetworkConfig
from rlzoo_gradtts.style import (
    FLOOR,
    STATISTICS,
    ReferenceEncoder,
    StyleDenoiser,
    StyledMean,
    divergence,
    sample,
    summarise,
)
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

BANDS, Z, CHANNELS, HIDDEN = 6, 3, 4, 5
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def noisy(module: nn.Module, std: float = 0.7) -> None:
    """Every parameter a draw, those that begin as zero, too; in float64."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=std)


# --- what tells it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [2, 7, 40])
def test_a_summary_is_mean_spread_quiet_and_change_of_every_band(frames: int) -> None:
    mel = torch.randn(BANDS, frames, dtype=DOUBLE)
    values = mel.numpy()
    quiet = np.percentile(values, 10, axis=1)
    change = np.abs(np.diff(values, axis=1)).mean(1)
    wanted = np.concatenate([values.mean(1), values.std(1), quiet, change])
    assert len(wanted) == STATISTICS * BANDS
    torch.testing.assert_close(summarise(mel), torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)


def test_a_single_frame_has_no_spread_and_no_change() -> None:
    mel = torch.randn(BANDS, 1)
    assert torch.equal(summarise(mel), torch.cat([mel[:, 0], torch.zeros(BANDS), mel[:, 0], torch.zeros(BANDS)]))


def test_a_gain_moves_levels_alone_and_the_order_of_frames_changes_alone() -> None:
    mel = torch.randn(BANDS, 30, dtype=DOUBLE)
    gain = (summarise(mel + 2.5) - summarise(mel)).view(STATISTICS, BANDS)
    wanted = torch.tensor([2.5, 0, 2.5, 0], dtype=DOUBLE)[:, None].expand(-1, BANDS)
    torch.testing.assert_close(gain, wanted, rtol=0, atol=1e-12)
    shuffled = (summarise(mel.sort(1).values) - summarise(mel)).view(STATISTICS, BANDS)
    assert shuffled[:3].abs().max() < 1e-12
    assert (shuffled[3] < -0.1).all()


def test_the_posterior_is_of_what_differs_from_the_corpus() -> None:
    """A recording and the average, raised together: the same style. One of them alone: another one."""
    config = NetworkConfig(bands=12, channels=8, style=Z, style_hidden=8, encoder_layers=1)
    network, mel = GradTTSNetwork(config), torch.randn(12, 20)
    noisy(network.reference, 0.2)
    network, mel, lift = network.double(), mel.double(), torch.randn(12, dtype=DOUBLE)
    with torch.no_grad():
        before = network.posterior(summarise(mel)[None])
        higher = network.posterior(summarise(mel + lift[:, None])[None])
        network.average += lift
        both = network.posterior(summarise(mel + lift[:, None])[None])
    for was, same, other in zip(before, both, higher, strict=True):
        torch.testing.assert_close(same, was, rtol=1e-10, atol=1e-10)
        assert (other - was).abs().max() > 1e-3


# --- posterior -------------------------------------------------------------------------------------------------------


def test_a_fresh_posterior_is_as_wide_everywhere_and_its_width_is_bounded() -> None:
    encoder = ReferenceEncoder(BANDS, Z, HIDDEN)
    mean, log_variance = encoder(torch.randn(9, STATISTICS * BANDS))
    assert mean.shape == log_variance.shape == (9, Z)
    assert torch.equal(log_variance, torch.full((9, Z), -2.0))
    assert mean.std(0).min() > 1e-3
    noisy(encoder)
    _, extreme = encoder(1e6 * torch.randn(99, STATISTICS * BANDS, dtype=DOUBLE))
    assert (extreme.min(), extreme.max()) == (-8, 2)


def test_divergence_is_that_of_torch() -> None:
    mean, log_variance = torch.randn(2, 50, Z, dtype=DOUBLE)
    wanted = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), wanted, rtol=1e-12, atol=1e-12)
    assert not divergence(torch.zeros(4, Z), torch.zeros(4, Z)).any()


def test_samples_have_the_mean_and_the_variance_they_are_drawn_with() -> None:
    count = 40_000
    mean, log_variance = torch.tensor([[-3.0, 0.0, 2.0]]), torch.tensor([[-4.0, 0.0, 1.5]])
    drawn = sample(mean.expand(count, -1), log_variance.expand(count, -1), torch.Generator().manual_seed(3))
    std = (log_variance / 2).exp()[0]
    assert ((drawn.mean(0) - mean[0]).abs() < 4 * std / math.sqrt(count)).all()
    assert (drawn.std(0) / std).tolist() == pytest.approx([1] * Z, abs=4 / math.sqrt(2 * count))
    correlation = torch.corrcoef(drawn.t()) - torch.eye(Z)
    assert correlation.abs().max() < 4 / math.sqrt(count)


def test_samples_are_of_the_generator_alone_and_differentiable_in_both_numbers() -> None:
    mean, log_variance = (value.requires_grad_() for value in torch.randn(2, 4, Z))
    before = torch.get_rng_state()
    first, second = (sample(mean, log_variance, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second)
    of_mean, of_width = torch.autograd.grad(first.sum(), (mean, log_variance))
    assert torch.equal(of_mean, torch.ones(4, Z))
    torch.testing.assert_close(of_width, (first - mean) / 2)


# --- chain -----------------------------------------------------------------------------------------------------------


def test_the_clean_style_is_alpha_z_minus_sigma_v() -> None:
    denoiser = StyleDenoiser(Z, CHANNELS, HIDDEN)
    noisy(denoiser)
    z, text = torch.randn(4, Z, dtype=DOUBLE), torch.randn(4, CHANNELS, dtype=DOUBLE)
    sigma = torch.tensor([0.01, 0.3, 0.9, 0.999], dtype=DOUBLE)

    def affine(name: str, x: Tensor) -> Tensor:
        layer = denoiser.get_submodule(name)
        return torch.einsum("oi,bi->bo", layer.weight, x) + layer.bias

    def bent(x: Tensor) -> Tensor:
        return x / (1 + torch.exp(-x))

    with torch.no_grad():
        inner = bent(affine("noisy", z) + affine("level", embed_level(sigma)) + affine("text", text))
        v = affine("output", bent(affine("hidden", inner)))
        wanted = (1 - sigma**2).sqrt()[:, None] * z - sigma[:, None] * v
        torch.testing.assert_close(denoiser(z, sigma, text), wanted, rtol=1e-12, atol=1e-12)


def test_a_style_hardly_noisy_is_what_it_is() -> None:
    denoiser, z = StyleDenoiser(Z, CHANNELS, HIDDEN), torch.randn(4, Z)
    found = denoiser(z, torch.full((4,), 1e-6), torch.randn(4, CHANNELS))
    torch.testing.assert_close(found, z, rtol=0, atol=1e-4)


def test_levels_are_a_circle_and_are_told_apart() -> None:
    sigma = torch.tensor([0.0, 0.01, 0.02, 0.5, 0.98, 0.999, 1.0], dtype=DOUBLE)
    torch.testing.assert_close(alpha_of(sigma) ** 2 + sigma**2, torch.ones(7, dtype=DOUBLE))
    told = embed_level(sigma)
    assert told.shape == (7, 2 * LEVELS)
    assert told.isfinite().all()
    torch.testing.assert_close(told[:, :LEVELS] ** 2 + told[:, LEVELS:] ** 2, torch.ones(7, LEVELS, dtype=DOUBLE))
    assert torch.cdist(told[1:-1], told[1:-1])[~torch.eye(5, dtype=torch.bool)].min() > 0.3


# --- what it does ----------------------------------------------------------------------------------------------------


def test_the_floor_adds_magnitudes() -> None:
    mean, loudness = StyledMean(BANDS, Z, CHANNELS, HIDDEN), torch.linspace(-20, 20, 9)
    plain = loudness.expand(1, BANDS, -1)
    colour, floor = torch.randn(2, BANDS)
    with torch.no_grad():
        nn.init.zeros_(mean.styled.bias)
        nn.init.zeros_(mean.style[-1].weight)
        mean.style[-1].bias.copy_(torch.cat([colour, floor, torch.zeros(2 * CHANNELS)]))
        found = mean(torch.randn(1, CHANNELS, 9), plain, torch.randn(1, Z))[0]
    speech, noise = (plain[0] + colour[:, None]).exp(), (floor - FLOOR).exp()[:, None].expand(-1, 9)
    torch.testing.assert_close(found.exp(), speech + noise)
    torch.testing.assert_close(found[:, 0], floor - FLOOR)  # silence is the floor
    torch.testing.assert_close(found[:, -1], loudness[-1] + colour)  # what is loud is not touched


def test_the_mean_of_a_style_in_plain_loops() -> None:
    mean = StyledMean(BANDS, Z, CHANNELS, HIDDEN)
    noisy(mean)
    features, plain = torch.randn(2, CHANNELS, 5, dtype=DOUBLE), torch.randn(2, BANDS, 5, dtype=DOUBLE)
    z = torch.randn(2, Z, dtype=DOUBLE)
    with torch.no_grad():
        found = mean(features, plain, z)
        for row in range(2):
            numbers = mean.style(z[row])
            colour, floor = numbers[:BANDS], numbers[BANDS : 2 * BANDS]
            scale, shift = numbers[2 * BANDS :].view(2, CHANNELS)
            for frame in range(5):
                inner = mean.inner.weight[..., 0] @ features[row, :, frame] + mean.inner.bias
                inner = (inner * (1 + scale) + shift).clamp(min=0)
                own = mean.styled.weight[..., 0] @ inner + mean.styled.bias
                speech = plain[row, :, frame] + own + colour
                wanted = (speech.exp() + (floor - FLOOR).exp()).log()
                torch.testing.assert_close(found[row, :, frame], wanted, rtol=1e-10, atol=1e-10)


def test_before_anything_is_learnt_a_style_is_the_same_in_every_frame() -> None:
    mean = StyledMean(BANDS, Z, CHANNELS, HIDDEN)
    features, plain = torch.randn(1, CHANNELS, 5), torch.full((1, BANDS, 5), 50.0)  # far above the floor
    with torch.no_grad():
        first, second = (mean(features, plain, z) for z in torch.randn(2, 1, Z))
    change = first - second
    assert change.abs().max() > 1e-3
    assert torch.equal(change, change[..., :1].expand_as(change))
