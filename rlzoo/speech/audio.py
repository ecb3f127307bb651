"""Audio files, rates and levels.

Waveforms are float32 in [-1, 1]; a single one is (L,), a batch is `Samples` with (N, L) and lengths (N,). Nothing here
changes a rate, a channel count or a level unless it is asked to by name.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from rlzoo.core.policy import length_mask as valid_mask
from rlzoo.core.precision import use_real_float32
from rlzoo.core.types import Media, Prompt, Samples
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.writing import write_bytes

SPEECH_LEVEL_DBFS = -26.0
"""Active speech level that listening tests and MOS predictors are usually calibrated to (ITU-T P.56, P.800)."""

# What resampy and librosa call "kaiser_best", in torchaudio's terms.
_RESAMPLING: dict[str, Any] = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}

MIN_RATE, MAX_RATE = 1_000, 384_000
"""Sampling rates in Hz between which there is audio."""
MAX_SAMPLES = 1 << 28
"""Largest number of samples of one recording: 93 minutes at 48 kHz."""
MAX_COEFFICIENTS = 1 << 24
"""Largest resampling filter: 44.1 to 48 kHz takes 50,000 taps, 12,345 Hz to 16 kHz eight million."""
_BLOCK = 1 << 20
_UNKNOWN_LENGTH = 1 << 60
_FRAME_SECONDS = 0.02
_HIGHEST = 4.0  # floating point files may pass full scale a little, never tenfold
_ACTIVITY_MARGIN_DB = 15.9  # ITU-T P.56: speech is active down to this far below its active level
_SILENCE_POWER = 1e-9  # -90 dBFS, below one step of 16-bit audio; amplifying it would only amplify rounding


def read_audio(
    path: str | Path, sample_rate: int | None = None, *, on_rate: Literal["error", "resample"] = "error"
) -> tuple[Tensor, int]:
    """A mono file -> ((L,) float32, rate in Hz).

    `sample_rate` is the rate that is wanted; a file at another rate is refused, or resampled with
    `on_rate="resample"`. Raises DataError for a file that is missing, not audio, empty, not mono, or not finite.
    """
    path = Path(path)
    if not os.path.isfile(path):  # `Path.is_file` fails for a name that is too long
        raise DataError(f"audio file '{path}' does not exist", "check the path")
    data, rate = _mono(path)
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        raise DataError(
            f"'{path}' is NaN or infinite in {bad} of {len(data)} samples", "find out what wrote it; do not train on it"
        )
    if (peak := float(np.abs(data).max())) > _HIGHEST:
        raise DataError(
            f"'{path}' has samples up to {peak:,.0f}, expected -1 to 1: floating point in the scale of integers",
            "divide by 32768 first, or convert the folder: rlzoo corpus convert DIR OUT",
        )
    wave = torch.from_numpy(data)
    if sample_rate is None or rate == sample_rate:
        return wave, rate
    if on_rate == "error":
        raise DataError(
            f"'{path}' has a rate of {rate} Hz, expected {sample_rate} Hz", f"resample it to {sample_rate} Hz first"
        )
    return resample(wave, rate, sample_rate), sample_rate


def _mono(path: Path) -> tuple[npt.NDArray[np.float32], int]:
    """(L,) and the rate. In blocks: what the header claims may be far more than there is."""
    _refuse_cut_wave(path)
    blocks: list[npt.NDArray[np.float32]] = []
    try:
        with soundfile.SoundFile(str(path)) as file:
            check_rate(file.samplerate, f"'{path}'")
            if file.channels != 1:
                raise DataError(
                    f"'{path}' has {file.channels} channels, expected one",
                    "mix it down: rlzoo corpus convert DIR OUT, or sox in.wav -c 1 out.wav",
                )
            claimed, found = file.frames, 0
            while len(block := file.read(_BLOCK, dtype="float32")):
                blocks.append(block)
                found += len(block)
                if found > MAX_SAMPLES:
                    raise DataError(f"'{path}' has more than {MAX_SAMPLES:,} samples", "cut it into utterances")
            if file.format == "FLAC" and found < claimed < _UNKNOWN_LENGTH:
                raise DataError(f"'{path}' has {found:,} samples, its header says {claimed:,}", "it is cut off")
            rate = file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, OSError, ValueError) as error:
        raise DataError(
            f"'{path}' cannot be read as audio: {_instead(path) or error}", "give a WAV or FLAC file"
        ) from error
    if not blocks:
        raise DataError(f"'{path}' has no samples", "remove it from the set, or record it again")
    return np.concatenate(blocks), rate


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(512)
    except OSError:
        return b""


def _refuse_cut_wave(path: Path) -> None:
    """DataError for a WAV file whose header claims 2 % more than there is; of a stream it claims all or nothing."""
    head = _start(path)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return
    claimed, found = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
    if found < 0.98 * claimed < 0x7FFFFF00:
        raise DataError(f"'{path}' is cut off: it has {found:,} bytes of {claimed:,}", "copy or record it again")


def _instead(path: Path) -> str:
    """What lies in the place of a recording; empty where that is not known."""
    head = _start(path)
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, so fetch it in its repository with `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return "it is a web page, so the download failed"
    if head[4:8] == b"ftyp":
        return "it is an MPEG-4 file, so convert it first: ffmpeg -i IN OUT.wav"
    return ""


def check_rate(rate: int, who: str) -> None:
    """DataError for a sampling rate in Hz that no recording of speech has; resampling from it would never end."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise DataError(
            f"{who} claims a rate of {rate} Hz, expected {MIN_RATE} to {MAX_RATE} Hz", "correct the file's header"
        )


def recording(prompt: Prompt, sample_rate: int, who: str, attributes: Sequence[str] = ("audio",)) -> Tensor:
    """(L,) at `sample_rate`: the recording that a prompt brings along, for the reward `who`; kept after the first time.

    It is the first of these attributes that the prompt has: `audio` is its own text, spoken; `voice` is the voice that
    it shall be spoken in. ConfigError for a prompt without one, DataError for a bad file.
    """
    path = next((prompt.attributes[name] for name in attributes if prompt.attributes.get(name)), None)
    if not path:
        raise ConfigError(
            f"'{who}' compares with a recording, and prompt '{prompt.id}' has none",
            "use prompts with recordings (a folder in LJSpeech's layout), or leave this reward out",
        )
    return _recording(str(path), sample_rate)


@lru_cache(maxsize=256)
def _recording(path: str, sample_rate: int) -> Tensor:
    return read_audio(path, sample_rate, on_rate="resample")[0]


def write_audio(path: str | Path, wave: Tensor, sample_rate: int) -> Path:
    """(L,) in [-1, 1] -> a 16-bit mono WAV, written whole or not at all. Values beyond full scale are clipped.

    Raises DataError for an empty or non-finite waveform and for a file that cannot be written.
    """
    path = Path(path)
    wave = wave.detach().to("cpu", torch.float32)
    if wave.ndim != 1 or wave.numel() == 0:
        raise DataError(f"cannot write '{path}': a waveform of shape {tuple(wave.shape)}", "give one row of shape (L,)")
    if not torch.isfinite(wave).all():
        raise DataError(
            f"cannot write '{path}': the waveform has NaN or infinite samples", "the model that made it diverged"
        )
    content = io.BytesIO()
    soundfile.write(content, wave.clamp(-1, 1).numpy(), sample_rate, subtype="PCM_16", format="WAV")
    write_bytes(path, content.getbuffer(), refused="check the directory, its permissions and the free space")
    return path


def resample(wave: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """(..., L) at `from_rate` -> (..., ceil(L · to / from)) at `to_rate`: Kaiser-windowed sinc, differentiable.

    The filter is long on purpose. Predictors hear where the band ends: with a short one (6 zero crossings) DNSMOS Pro
    scores natural speech 0.25 lower than after the usual high-quality resamplers. DataError for two rates whose filter
    would not fit: it has to / gcd phases, each from / gcd long.
    """
    if from_rate == to_rate:
        return wave
    common = math.gcd(from_rate, to_rate)
    first, second = from_rate // common, to_rate // common
    width = 2 * _RESAMPLING["lowpass_filter_width"] * first / (min(first, second) * _RESAMPLING["rolloff"])
    if second * (first + width) > MAX_COEFFICIENTS:
        raise DataError(
            f"resampling from {from_rate} Hz to {to_rate} Hz takes a filter of {second * (first + width):,.0f} "
            "coefficients: the rates have next to no common divisor",
            f"resample to an ordinary rate first: sox in.wav -r {to_rate} out.wav",
        )
    from torchaudio.functional import resample as sinc

    resampled: Tensor = sinc(wave, from_rate, to_rate, **_RESAMPLING)
    return resampled


def resample_samples(samples: Samples, to_rate: int | None) -> Samples:
    """A batch at another rate; None, as `Reward.sample_rate` may be: as it is. Differentiable.

    A row's result depends on its own valid part only.
    """
    if to_rate is None:
        return samples
    from_rate = samples.media.sample_rate
    if from_rate is None:
        raise DataError("these samples carry no rate, so they cannot be resampled", "set `Media.sample_rate`")
    if from_rate == to_rate:
        return samples
    data = resample(samples.data, from_rate, to_rate)
    lengths = torch.div(samples.lengths * to_rate + from_rate - 1, from_rate, rounding_mode="floor")
    # The filter rings past the end of a short row; beyond the length there must be silence.
    data = data * valid_mask(lengths, data.shape[-1])
    return Samples(data, lengths, replace(samples.media, sample_rate=to_rate))


def require_rate(samples: Samples, sample_rate: int | None, who: str) -> int:
    """The rate of `samples` in Hz. Raises DataError when it has none, or another than `who` needs."""
    rate = samples.media.sample_rate
    if rate is None:
        raise DataError(f"'{who}' was given audio without a rate", "set `Media.sample_rate`")
    if sample_rate is not None and rate != sample_rate:
        raise DataError(
            f"'{who}' needs audio at {sample_rate} Hz and was given {rate} Hz",
            "resample first: rlzoo.audio.resample_samples(samples, rate)",
        )
    return rate


def to_samples(waves: list[Tensor], sample_rate: int) -> Samples:
    """Single waveforms (L_i,) -> one batch on their device, zero beyond each length."""
    lengths = torch.tensor([wave.shape[-1] for wave in waves], dtype=torch.int64, device=waves[0].device)
    data = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    return Samples(data, lengths, Media("audio", sample_rate))


def active_power(samples: Samples) -> Tensor:
    """(N,) mean power of each row's active speech; zero for a silent row. Differentiable.

    Frames of 20 ms count as active when they are at most 15.9 dB below the level of the active frames: a fixed point,
    reached from the mean of all frames in eight steps (the definition of ITU-T P.56, on frames instead of envelopes).
    The choice of frames is not differentiated, the power is.
    """
    rate = require_rate(samples, None, "active_power")
    size = max(1, round(rate * _FRAME_SECONDS))
    N, L = samples.data.shape
    mask = valid_mask(samples.lengths, L)
    padding = -L % size
    energy = torch.nn.functional.pad(samples.data.square() * mask, (0, padding)).view(N, -1, size).sum(-1)
    count = torch.nn.functional.pad(mask.to(energy.dtype), (0, padding)).view(N, -1, size).sum(-1)
    power = energy / count.clamp(min=1)
    active = heard = count > 0
    both = torch.stack([energy, count])
    for _ in range(8):
        level = _mean_where(both, active)
        active = heard & (power.detach() >= level.detach()[:, None] * 10 ** (-_ACTIVITY_MARGIN_DB / 10))
    return _mean_where(both, active)


def _mean_where(both: Tensor, active: Tensor) -> Tensor:
    energy, count = (both * active).sum(-1).unbind()
    return energy / count.clamp(min=1)


def normalise_level(samples: Samples, dbfs: float = SPEECH_LEVEL_DBFS) -> Samples:
    """Each row scaled so that its active speech level is `dbfs`; rows below -90 dBFS stay as they are. Differentiable.

    Nothing is clipped, so peaks may leave [-1, 1].
    """
    power = active_power(samples)
    silent = power < _SILENCE_POWER
    gain = (10 ** (dbfs / 10) / torch.where(silent, torch.ones_like(power), power)).sqrt()
    return replace(samples, data=samples.data * torch.where(silent, torch.ones_like(gain), gain)[:, None])


def slaney_mel(rate: int, fft: int, mels: int, top_hz: float | None = None) -> Tensor:
    """(fft // 2 + 1, mels) float32: triangles of equal area on Slaney's mel scale, from 0 to `top_hz` (half the rate).

    The scale is linear to 1 kHz and logarithmic above. Triangles above half the rate are empty. What librosa calls
    `filters.mel(norm="slaney", htk=False)`, transposed.
    """
    linear_hz, step = 200.0 / 3, math.log(6.4) / 27
    knee = 1000.0 / linear_hz
    top_hz = rate / 2 if top_hz is None else top_hz
    top = top_hz / linear_hz if top_hz < 1000.0 else knee + math.log(top_hz / 1000.0) / step
    points = torch.linspace(0, top, mels + 2, dtype=torch.float64)
    hz = torch.where(points < knee, points * linear_hz, 1000.0 * ((points - knee) * step).exp())
    bins = torch.arange(fft // 2 + 1, dtype=torch.float64)[:, None] * rate / fft
    rising = (bins - hz[:-2]) / (hz[1:-1] - hz[:-2])
    falling = (hz[2:] - bins) / (hz[2:] - hz[1:-1])
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (hz[2:] - hz[:-2])).float()


@contextlib.contextmanager
def full_precision(device: torch.device | str) -> Iterator[None]:
    """Float32 arithmetic inside: no autocast. On a GPU it leaves TF32 off for the whole process, if it was on.

    Predictors are compared to their references in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        use_real_float32()  # before a run that was decided already, and a thread that scores changes nothing
    with torch.autocast(kind, enabled=False):
        yield


__all__ = [
    "MAX_RATE",
    "MIN_RATE",
    "SPEECH_LEVEL_DBFS",
    "active_power",
    "check_rate",
    "full_precision",
    "normalise_level",
    "read_audio",
    "recording",
    "require_rate",
    "resample",
    "resample_samples",
    "slaney_mel",
    "to_samples",
    "valid_mask",
    "write_audio",
]
