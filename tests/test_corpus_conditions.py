"""Recording conditions: each does to a recording what its name says, and the same seed does the same."""

import numpy as np
import pytest

from rlzoo.speech.corpus.conditions import (
    FOUND,
    Condition,
    apply,
    coloured_noise,
    draw,
    equalise,
    mu_law,
    reverberate,
)

RATE = 16_000


def speech_like(seconds=1.0, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    return 0.1 * rng.normal(size=len(time)) * (np.sin(2 * np.pi * 3 * time) > 0)


def level(wave, low, high):
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    return 10 * np.log10(spectrum[(hertz >= low) & (hertz < high)].mean())


def test_a_clean_condition_changes_nothing_and_says_nothing():
    wave = speech_like()
    assert Condition().is_clean
    assert Condition().card() == {}
    assert np.array_equal(apply(wave, RATE, Condition(), 0), wave)


def test_the_noise_has_the_stated_level():
    wave = speech_like()
    noise = apply(wave, RATE, Condition(noise_db=10.0), 3) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(noise**2)) == pytest.approx(10.0, abs=1e-6)


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_the_noise_has_the_stated_colour(colour):
    noise = coloured_noise(2**16, colour, np.random.default_rng(0))
    # Two octaves up a slope of `colour` loses 6.02 dB times it.
    assert level(noise, 400, 800) - level(noise, 1600, 3200) == pytest.approx(6.02 * colour, abs=0.7)


def test_the_band_ends_where_stated():
    wave = speech_like(4.0)
    heard = equalise(wave, RATE, 0.0, 3000.0)
    assert level(heard, 1000, 2900) == pytest.approx(level(wave, 1000, 2900), abs=0.01)
    assert level(heard, 4000, 8000) < level(wave, 4000, 8000) - 55


def test_the_tilt_is_a_straight_line_of_the_stated_height():
    wave = speech_like(4.0)
    gain = [level(equalise(wave, RATE, 12.0, None), f, 1.1 * f) - level(wave, f, 1.1 * f) for f in (120, 7000)]
    assert gain[1] - gain[0] == pytest.approx(12.0 * np.log(7000 / 120) / np.log(80), abs=0.3)


def test_the_room_decays_in_the_stated_time_and_keeps_the_loudness():
    click = np.zeros(RATE)
    click[0] = 1.0
    echo = reverberate(click, RATE, 0.4, 3.0, np.random.default_rng(0))
    assert np.sum(echo**2) == pytest.approx(1.0)
    assert 10 * np.log10(echo[0] ** 2 / np.sum(echo[1:] ** 2)) == pytest.approx(3.0, abs=1e-6)
    early, late = (np.mean(echo[int(t * RATE) : int((t + 0.05) * RATE)] ** 2) for t in (0.05, 0.25))
    assert 10 * np.log10(early / late) == pytest.approx(60 * 0.2 / 0.4, abs=2.0)


def test_fewer_bits_are_coarser():
    wave = speech_like()
    errors = [np.mean((mu_law(wave, bits) - wave) ** 2) for bits in (5, 6, 8)]
    assert errors[0] > 3 * errors[1] > 30 * errors[2]
    assert len(np.unique(mu_law(wave, 5))) <= 31


def test_a_loud_recording_is_turned_down_and_not_clipped():
    wave = speech_like() * 5
    heard = apply(wave, RATE, Condition(gain_db=12.0), 0)
    assert np.abs(heard).max() == pytest.approx(0.99)
    assert np.allclose(heard / heard.max(), wave / wave.max())


def test_conditions_follow_the_distribution_and_the_seed():
    drawn = [draw(FOUND, seed) for seed in range(2000)]
    assert drawn == [draw(FOUND, seed) for seed in range(2000)]
    clean = np.mean([condition.is_clean for condition in drawn])
    # Binomial: 4 standard deviations are 0.044; a few of the others differ in loudness alone.
    assert clean == pytest.approx(FOUND.clean + (1 - FOUND.clean) * 0.25 * 0.7 * 0.7 * 0.85 * 0.5, abs=0.044)
    dirty = [condition for condition in drawn if condition != Condition()]
    assert np.mean([c.noise_db is not None for c in dirty]) == pytest.approx(0.75, abs=0.05)
    assert {c.mu_law_bits for c in dirty} == {None, 5, 6, 7, 8}
    assert min(c.noise_db for c in dirty if c.noise_db is not None) < 7
    assert apply(speech_like(), RATE, drawn[3], 3) == pytest.approx(apply(speech_like(), RATE, drawn[3], 3))
