"""One sentence through the `flite` program: text -> 16-bit wav, phone end times, words as spoken. Runs in workers."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from rlzoo.errors import DataError, PluginError

Wave = npt.NDArray[np.float64]

# flite's US English phone set (cmulex) and nothing else; `pau` is silence, `ax` is the schwa, which ARPAbet writes AH0.
_SPECIAL = {"pau": "sil", "ax": "AH0"}
_CONSONANTS = ("b", "ch", "d", "dh", "f", "g", "hh", "jh", "k", "l", "m", "n", "ng", "p", "r", "s", "sh", "t", "th")
_VOWELS = ("aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
_PLAIN = frozenset((*_CONSONANTS, "v", "w", "y", "z", "zh", *_VOWELS))


@dataclass(frozen=True)
class RenderSettings:
    """What every sentence of a corpus has in common."""

    voice: str
    sample_rate: int | None
    """Rate of the written files in hertz; None keeps the voice's own."""
    features: tuple[tuple[str, str], ...] = ()
    monotone_hertz: float | None = None
    timeout_seconds: float = 120.0


def arpabet(phone: str) -> str:
    """flite phone -> ARPAbet without stress ('k' -> 'K'), 'AH0' for the schwa and 'sil' for a pause.

    Raises:
        DataError: not a phone of flite's US English voices.
    """
    if phone in _SPECIAL:
        return _SPECIAL[phone]
    if phone in _PLAIN:
        return phone.upper()
    raise DataError(f"flite said the unknown phone '{phone}'", hint="use a US English voice: see `flite -lv`")


def command(text: str, out: str, settings: RenderSettings, *relation: str) -> list[str]:
    """The flite command line for one sentence; `relation` says what it shall print."""
    features: list[str] = []
    for key, value in settings.features:
        features += ["--setf" if _is_number(value) else "--sets", f"{key}={value}"]
    return ["flite", "-voice", settings.voice, *features, *relation, "-o", out, "-t", text]


def render(text: str, out: Path, settings: RenderSettings) -> dict[str, Any]:
    """Speak `text` into `out` (mono, 16-bit) and return {"words", "seconds", "phones", "ends"}; ends are in seconds.

    flite speaks a `-t` text as one utterance, so the last end time is the length of the audio.

    Raises:
        DataError: flite failed, said nothing but silence, or its times do not fit its audio.
    """
    with tempfile.TemporaryDirectory(prefix="rlzoo-flite-") as folder:
        raw = os.path.join(folder, "raw.wav")
        times = _run(command(text, raw, settings, "-psdur"), settings)
        # A second, silent pass, because flite prints one relation per run: the words as spoken ("forty two").
        # kal shares the text analysis of every US English voice and is the quickest to run.
        words = _run(["flite", "-voice", "kal", "-pr", "Word", "-o", "none", "-t", text], settings)
        wave, rate = soundfile.read(raw, dtype="float64")
    phones, ends = parse_durations(times)
    seconds = len(wave) / rate
    if all(phone == "sil" for phone in phones):
        raise DataError(f"flite spoke only silence for '{text}'", hint="remove the sentence")
    if abs(ends[-1] - seconds) > 0.02:
        raise DataError(f"flite's times end at {ends[-1]:.3f} s, its audio at {seconds:.3f} s, for '{text}'")
    if settings.monotone_hertz is not None:
        wave = flatten_pitch(wave, rate, settings.monotone_hertz)
    target = settings.sample_rate or rate
    if target > rate:
        raise DataError(
            f"voice '{settings.voice}' has {rate} Hz, {target} Hz were asked for", hint=f"use --rate {rate} or lower"
        )
    write_wave(out, resample(wave, rate, target), target)
    return {"words": " ".join(words.split()), "seconds": round(seconds, 4), "phones": phones, "ends": ends}


def parse_durations(output: str) -> tuple[list[str], list[float]]:
    """Parse `flite -psdur` ('pau:0.176 dh:0.329 ...', end times in seconds) into phones and strictly growing ends.

    Raises:
        DataError: nothing to parse, or a time that goes backwards.
    """
    phones: list[str] = []
    ends: list[float] = []
    for item in output.split():
        name, _, end = item.rpartition(":")
        if not name or not _is_number(end):
            raise DataError(f"unexpected output of `flite -psdur`: '{item}'")
        if ends and float(end) <= ends[-1]:
            # Printed with 1 ms resolution: an equal time is a phone that was too short to print.
            if float(end) == ends[-1]:
                continue
            raise DataError(f"flite's phone times go backwards at '{item}'")
        phones.append(arpabet(name))
        ends.append(float(end))
    if not phones:
        raise DataError("flite printed no phones", hint="is the text empty?")
    return phones, ends


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
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.wav")
    samples = np.clip(np.rint(wave * 32767.0), -32768, 32767).astype(np.int16)
    try:
        soundfile.write(temporary, samples, rate, subtype="PCM_16", format="WAV")
        temporary.replace(path)
    except (OSError, soundfile.LibsndfileError) as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write '{path}': {error}", hint="check free space and permissions") from error


def render_many(jobs: Sequence[tuple[str, str, Path]], settings: RenderSettings) -> list[dict[str, Any]]:
    """Render (id, text, path) triples; the unit of work of one worker call."""
    return [{"id": name, "text": text, **render(text, path, settings)} for name, text, path in jobs]


def _run(arguments: list[str], settings: RenderSettings) -> str:
    try:
        done = subprocess.run(arguments, capture_output=True, timeout=settings.timeout_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"flite took longer than {settings.timeout_seconds:.0f} s for '{arguments[-1]}'") from error
    except OSError as error:
        raise DataError(f"cannot run flite: {error.strerror}", hint="apt-get install flite") from error
    if done.returncode:
        complaint = done.stderr.decode("utf-8", "replace").strip()
        raise DataError(f"flite failed ({done.returncode}) on '{arguments[-1]}': {complaint}")
    return done.stdout.decode("ascii", "replace")


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
