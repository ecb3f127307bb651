"""Recording conditions in closed form: colours are cosines over the bands, hiss is white and always the same one."""

from __future__ import annotations

import math

import pytest
import torch
from rlzoo_gradtts.conditions import CLEAN, COLOUR, HISS, NUMBERS, SPREAD, coloured, hissing
from rlzoo_gradtts.mel import Mel
from rlzoo_gradtts.network import NetworkConfig
from torch import Tensor

BANDS = 80
DOUBLE = torch.float64


def under(hiss: float = 0.0, *colours: float) -> Tensor:
    """A condition (G,)."""
    return torch.tensor([hiss, *colours, *[0.0] * (len(COLOUR) - len(colours))])


def spectrum() -> Tensor:
    return torch.randn(BANDS, 6, generator=torch.Generator().manual_seed(1))


def tone(amplitude: float = 0.1) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * 1000 * torch.arange(16_000) / 16_000)


# --- colour ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "weight"), [(1, 1.0), (2, -2.0), (3, 0.5)])
def test_colours_are_the_first_cosines_over_the_bands(order: int, weight: float) -> None:
    assert len(COLOUR) == NUMBERS - 1 == 3
    condition = torch.zeros(NUMBERS)
    condition[order] = weight
    change = coloured(spectrum(), condition) - spectrum()
    wanted = [weight * COLOUR[order - 1] * math.cos(math.pi * order * (m + 0.5) / BANDS) for m in range(BANDS)]
    torch.testing.assert_close(change, torch.tensor(wanted)[:, None].expand(-1, 6), rtol=0, atol=1e-5)


def test_colours_add_and_know_nothing_of_the_hiss() -> None:
    mel = spectrum()
    both, first, second = (coloured(mel, under(h, *c)) - mel for h, c in ((5, (1, 2)), (-5, (1, 0)), (0, (0, 2))))
    torch.testing.assert_close(both, first + second, rtol=0, atol=1e-5)
    assert torch.equal(coloured(mel, torch.tensor(CLEAN)), mel)


def test_standard_normal_colours_have_the_spread_they_say() -> None:
    """Cosines are orthogonal over the bands, each of mean square 1/2."""
    drawn = torch.randn(4000, NUMBERS, generator=torch.Generator().manual_seed(0))
    change = torch.stack([coloured(torch.zeros(BANDS, 1), row)[:, 0] for row in drawn])
    place = (torch.arange(BANDS) + 0.5) / BANDS
    weights = change @ torch.stack([(math.pi * order * place).cos() for order in range(BANDS)]).t() * (2 / BANDS)
    assert weights[:, 1:NUMBERS].std(0).tolist() == pytest.approx(list(COLOUR), rel=0.06)
    assert weights[:, [0, *range(NUMBERS, BANDS)]].abs().max() < 1e-4


# --- hiss ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [-2.0, 0.0, 1.5])
def test_hiss_is_white_and_as_loud_as_its_number_says(number: float) -> None:
    noise = hissing(torch.zeros(32_000), under(number))
    assert noise.std().item() == pytest.approx(math.exp(HISS + SPREAD * number), rel=0.02)
    assert abs(noise.mean()) < 0.03 * noise.std()
    power = torch.fft.rfft(noise).abs().square()[1:].unflatten(0, (10, -1)).mean(1)
    assert (power / power.mean() - 1).abs().max() < 0.15  # 1600 draws of mean 1 in a tenth: five standard errors
    late = noise.unfold(0, 4000, 4000).std(1)
    assert (late / late.mean() - 1).abs().max() < 0.06


def test_the_noise_is_always_the_same_and_only_its_level_chosen() -> None:
    silence = torch.zeros(8000, dtype=DOUBLE)
    before = torch.get_rng_state()
    noise = hissing(silence, under(0).double())
    assert torch.equal(torch.get_rng_state(), before)
    for number in (-2.0, 0.7):
        found = hissing(silence, under(number, 1, 2, 3).double())
        torch.testing.assert_close(found, math.exp(SPREAD * number) * noise)
    wave = tone().double()
    torch.testing.assert_close(hissing(wave, under(0).double()) - wave, hissing(0 * wave, under(0).double()))


def number(level: float) -> float:
    """Of a hiss of this standard deviation."""
    return (math.log(level) - HISS) / SPREAD


def test_powers_add() -> None:
    found = hissing(tone(0.01), under(number(0.006))).square().mean().item()
    assert found == pytest.approx(0.01**2 / 2 + 0.006**2, rel=0.03)


def test_the_clean_condition_is_hardly_heard() -> None:
    clean, mel = torch.tensor(CLEAN), Mel(NetworkConfig())
    left = hissing(tone(), clean) - tone()
    assert 20 * left.std().log10() < -75  # of full scale; the tone has -23
    spectrum = mel(tone())
    peak = int(spectrum[:, 50].argmax())
    assert (mel(hissing(tone(), clean)) - spectrum)[peak, 5:-5].abs().max() < 2e-3


def test_loud_hiss_fills_the_quiet_and_spares_the_loud() -> None:
    mel = Mel(NetworkConfig())
    low, high = (mel(hissing(torch.zeros(16_000), under(number(level)))) for level in (0.003, 0.03))
    quiet, loud = mel(torch.zeros(16_000)), mel(tone())
    assert low.mean(1).min() > quiet.max() + 1.5
    filled = low > quiet.max()  # the rest is cut there: a narrow band's power is zero now and then
    assert filled.float().mean() > 0.99
    assert ((high - low)[filled] - math.log(10)).abs().max() < 1e-3
    peak = int(loud[:, 50].argmax())
    heard = mel(hissing(tone(), under(number(0.003))))[:, 5:-5]
    assert (heard - loud[:, 5:-5])[peak].abs().max() < 0.05
    assert (heard - low[:, 5:-5])[-20:].abs().max() < 0.05  # 5 kHz and up, where the tone is not


def test_both_have_the_gradient_of_what_they_say() -> None:
    condition = under(0.3, 1.0, -0.5, 0.2)
    mel, probe = spectrum().requires_grad_(), torch.randn(BANDS, 6, generator=torch.Generator().manual_seed(2))
    leaf = condition.clone().requires_grad_()
    (probe * coloured(mel, leaf)).sum().backward()
    assert torch.equal(mel.grad, probe)
    place = math.pi * (torch.arange(BANDS) + 0.5) / BANDS
    wanted = [c * ((order * place).cos() @ probe.sum(1)).item() for order, c in enumerate(COLOUR, 1)]
    assert leaf.grad.tolist() == pytest.approx([0, *wanted], abs=1e-4)
    leaves = [value.double().requires_grad_() for value in (tone()[:9], condition)]
    assert torch.autograd.gradcheck(hissing, leaves)
