"""Recordings as numpy arrays (L,) in [-1, 1]: resampling, a flat pitch, writing. Torch is not needed here."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from rlzoo.errors import PluginError
from rlzoo.files.writing import write_bytes

Wave = npt.NDArray[np.float64]


def resample(wave: Wave, rate: int, target: int) -> Wave:
    """(L,) at `rate` hertz -> (ceil(L * target / rate),) at `target`, linear phase, about 90 dB of alias rejection."""
    if rate == target:
        return wave
    try:
        from scipy.signal import firwin, resample_poly
    except ImportError as error:
        raise PluginError("resampling a corpus needs scipy", hint="pip install 'rlzoo-speech[corpus]'") from error
    shared = np.gcd(rate, target)
    up, down = target // shared, rate // shared
    wide = max(up, down)
    # Kaiser 9: 90 dB stop band; the pass band ends at 91 % of the new Nyquist frequency, the stop band begins at 100 %.
    taps = firwin(2 * 64 * wide + 1, 0.955 / wide, window=("kaiser", 9.0))
    return np.asarray(resample_poly(wave, up, down, window=taps), dtype=np.float64)


def flatten_pitch(wave: Wave, rate: int, hertz: float) -> Wave:
    """(L,) speech -> (L,) the same speech at one constant pitch, by WORLD analysis and synthesis (Morise et al. 2016).

    Timing and spectral envelope stay; needs the `pyworld` package.
    """
    try:
        import pyworld
    except ImportError as error:
        raise PluginError("a monotone voice needs pyworld", hint="pip install 'rlzoo-speech[corpus]'") from error
    coarse, frame_times = pyworld.dio(wave, rate, f0_floor=50.0, f0_ceil=300.0)
    pitch = pyworld.stonemask(wave, coarse, frame_times, rate)
    envelope = pyworld.cheaptrick(wave, pitch, frame_times, rate)
    aperiodicity = pyworld.d4c(wave, pitch, frame_times, rate)
    flat = np.where(pitch > 0, hertz, 0.0)
    spoken = np.asarray(pyworld.synthesize(flat, envelope, aperiodicity, rate), dtype=np.float64)
    return np.pad(spoken, (0, max(0, len(wave) - len(spoken))))[: len(wave)]


def write_wave(path: Path, wave: Wave, rate: int) -> None:
    """Write (L,) in [-1, 1] as 16-bit mono, atomically; overshoot of the low-pass is clipped."""
    samples = np.clip(np.rint(wave * 32767.0), -32768, 32767).astype(np.int16)
    content = io.BytesIO()
    soundfile.write(content, samples, rate, subtype="PCM_16", format="WAV")
    write_bytes(path, content.getbuffer(), refused="check free space and permissions")
