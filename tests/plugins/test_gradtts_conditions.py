"""Recording conditions: colour and noise in closed form, others in every row, drawn from the generator only."""

from __future__ import annotations

import math

import pytest
import torch
from rlzoo_gradtts import conditions
from rlzoo_gradtts.conditions import HISS, RIPPLE, TILT, vary

BANDS = 80


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_loud_speech_is_coloured_by_the_first_cosines() -> None:
    mel = 20 + torch.randn(4000, BANDS, 2, generator=generator(1))
    change = vary(mel, generator()) - mel
    torch.testing.assert_close(change[..., 0], change[..., 1], rtol=0, atol=1e-4)  # the same in every frame
    place = (torch.arange(BANDS) + 0.5) / BANDS
    cosines = torch.stack([(math.pi * order * place).cos() for order in range(BANDS)])
    weights = change[..., 0] @ cosines.t() * (2 / BANDS)  # orthogonal, each of square BANDS / 2
    assert weights[:, 1 : len(TILT) + 1].std(0).tolist() == pytest.approx(list(TILT), rel=0.06)
    assert weights[:, [0, *range(len(TILT) + 1, BANDS)]].abs().max() < 1e-3


def test_silence_is_the_noise() -> None:
    found = vary(torch.full((1000, BANDS, 20), -50.0), generator())
    level = found.mean((1, 2))
    low, high = HISS
    assert (low - 0.05 < level).all()
    assert (level < high + 0.05).all()
    assert level.mean().item() == pytest.approx((low + high) / 2, abs=0.15)
    assert level.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)
    assert (found - level[:, None, None]).std().item() == pytest.approx(RIPPLE, rel=0.02)


def test_powers_add(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TILT", (0.0,)), ("RIPPLE", 0.0), ("HISS", (-5.0, -5.0))):
        monkeypatch.setattr(conditions, name, value)
    mel = torch.tensor([-5.0, -4.0, -9.0]).expand(1, BANDS, 3)
    wanted = [0.5 * math.log(math.exp(2 * value) + math.exp(-10)) for value in (-5, -4, -9)]
    assert vary(mel, generator())[0, 7].tolist() == pytest.approx(wanted)


def test_conditions_come_from_the_generator_alone() -> None:
    mel = torch.zeros(3, BANDS, 5)
    before = torch.get_rng_state()
    first = vary(mel, generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(vary(mel, generator()), first)
    assert not torch.allclose(first[0], first[1])
