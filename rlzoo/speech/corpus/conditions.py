"""Recording conditions: how a corpus becomes like found speech, reproducibly.

Recordings that people find differ in noise, room, bandwidth, coding, colour and loudness. `draw` takes one condition
from a stated distribution, `apply` renders a clean recording under it. Waves are (L,) float64 in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]

PEAK = 0.99
"""Louder than this, a rendered recording is turned down."""


@dataclass(frozen=True)
class Condition:
    """Recording condition; the defaults are a clean recording."""

    noise_db: float | None = None
    """Signal-to-noise ratio in dB; None: no noise."""
    noise_colour: float = 0.0
    """Slope of the noise: its power falls as 1 / f^colour; 0 is white, 1 pink, 2 brown."""
    room_seconds: float | None = None
    """Time in which the room's echo falls by 60 dB; None: no room."""
    room_db: float = 0.0
    """Power of the direct sound over that of the echo, in dB."""
    low_pass_hertz: float | None = None
    """Upper edge of the band; None: all of it."""
    mu_law_bits: int | None = None
    """Bits of a mu-law code; None: not coded."""
    tilt_db: float = 0.0
    """Gain of the highest frequency over the lowest, a straight line in between on a logarithmic axis."""
    gain_db: float = 0.0
    """Loudness against the clean recording."""

    @property
    def is_clean(self) -> bool:
        """True if nothing but loudness differs from the clean recording."""
        return self == Condition(gain_db=self.gain_db)

    def card(self) -> dict[str, Any]:
        """Differences from a clean recording, as they are written into a corpus."""
        clean = asdict(Condition())
        return {name: value for name, value in asdict(self).items() if value != clean[name]}


@dataclass(frozen=True)
class Distribution:
    """Distribution of `draw`; each range is uniform, each share is a probability."""

    clean: float = 0.4
    """Share of recordings that are clean."""
    noise: float = 0.75
    """Share with noise, of those that are not clean; likewise below."""
    noise_db: tuple[float, float] = (5.0, 40.0)
    noise_colour: tuple[float, float] = (0.0, 1.5)
    room: float = 0.3
    room_seconds: tuple[float, float] = (0.15, 0.6)
    room_db: tuple[float, float] = (0.0, 12.0)
    low_pass: float = 0.3
    low_pass_hertz: tuple[float, float] = (2500.0, 6500.0)
    mu_law: float = 0.15
    mu_law_bits: tuple[int, int] = (5, 8)
    tilt: float = 0.5
    tilt_db: tuple[float, float] = (-12.0, 12.0)
    gain_db: tuple[float, float] = (-9.0, 3.0)


FOUND = Distribution()
"""The distribution of `--conditions found`."""


def draw(distribution: Distribution, seed: int) -> Condition:
    """One condition; the same seed gives the same one."""
    rng = np.random.default_rng(seed)
    if rng.random() < distribution.clean:
        return Condition()

    def within(bounds: tuple[float, float]) -> float:
        return round(float(rng.uniform(*bounds)), 3)

    def chosen(share: float) -> bool:
        return bool(rng.random() < share)

    noise, room, low_pass = chosen(distribution.noise), chosen(distribution.room), chosen(distribution.low_pass)
    mu_law, tilt = chosen(distribution.mu_law), chosen(distribution.tilt)
    low, high = distribution.mu_law_bits
    return Condition(
        noise_db=within(distribution.noise_db) if noise else None,
        noise_colour=within(distribution.noise_colour) if noise else 0.0,
        room_seconds=within(distribution.room_seconds) if room else None,
        room_db=within(distribution.room_db) if room else 0.0,
        low_pass_hertz=within(distribution.low_pass_hertz) if low_pass else None,
        mu_law_bits=int(rng.integers(low, high + 1)) if mu_law else None,
        tilt_db=within(distribution.tilt_db) if tilt else 0.0,
        gain_db=within(distribution.gain_db),
    )


def apply(wave: Wave, rate: int, condition: Condition, seed: int) -> Wave:
    """A clean recording (L,) at `rate` hertz under a condition (L,); `seed` draws the noise and the room."""
    rng = np.random.default_rng([seed, 1])
    if condition.room_seconds is not None:
        wave = reverberate(wave, rate, condition.room_seconds, condition.room_db, rng)
    if condition.tilt_db or condition.low_pass_hertz is not None:
        wave = equalise(wave, rate, condition.tilt_db, condition.low_pass_hertz)
    if condition.noise_db is not None:
        noise = coloured_noise(len(wave), condition.noise_colour, rng)
        wave = wave + noise * math.sqrt(np.mean(wave**2) / 10 ** (condition.noise_db / 10))
    wave = wave * 10 ** (condition.gain_db / 20)
    peak = float(np.abs(wave).max(initial=0.0))
    if peak > PEAK:
        wave = wave * (PEAK / peak)
    return wave if condition.mu_law_bits is None else mu_law(wave, condition.mu_law_bits)


def reverberate(wave: Wave, rate: int, seconds: float, direct_db: float, rng: np.random.Generator) -> Wave:
    """The direct sound and an echo of exponentially decaying noise, together as loud as the direct sound alone."""
    from scipy.signal import fftconvolve

    size = int(seconds * rate)
    echo = rng.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
    echo[: int(0.002 * rate)] = 0.0
    echo *= math.sqrt(10 ** (-direct_db / 10) / np.sum(echo**2))
    echo[0] = 1.0
    heard = np.asarray(fftconvolve(wave, echo)[: len(wave)], dtype=np.float64)
    return heard * math.sqrt(np.sum(wave**2) / max(float(np.sum(heard**2)), 1e-12))


def equalise(wave: Wave, rate: int, tilt_db: float, low_pass_hertz: float | None) -> Wave:
    """A straight slope in dB from 100 Hz to half the rate, and an edge that falls by 60 dB within a third octave."""
    spectrum = np.fft.rfft(wave)
    hertz = np.maximum(np.fft.rfftfreq(len(wave), 1 / rate), 100.0)
    place = np.log(hertz / 100) / math.log(rate / 200)
    gain = tilt_db * (place - 0.5)
    if low_pass_hertz is not None:
        gain = gain - 180 * np.maximum(np.log2(hertz / low_pass_hertz), 0.0).clip(max=1 / 3)
    return np.asarray(np.fft.irfft(spectrum * 10 ** (gain / 20), len(wave)), dtype=np.float64)


def coloured_noise(size: int, colour: float, rng: np.random.Generator) -> Wave:
    """(size,) of unit power whose power falls as 1 / f^colour above a 200th of the band."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    place = np.maximum(np.arange(len(spectrum)) / len(spectrum), 1 / 200)
    noise = np.fft.irfft(spectrum * place ** (-colour / 2), size)
    return np.asarray(noise / math.sqrt(np.mean(noise**2)), dtype=np.float64)


def mu_law(wave: Wave, bits: int) -> Wave:
    """Companded with mu = 255 (ITU-T G.711's curve), rounded to 2^bits levels and expanded."""
    half = 2 ** (bits - 1) - 1
    code = np.round(np.sign(wave) * np.log1p(255 * np.abs(wave)) / math.log(256) * half) / half
    return np.asarray(np.sign(code) * np.expm1(np.abs(code) * math.log(256)) / 255, dtype=np.float64)
