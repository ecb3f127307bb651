"""The reference recording: whose voice it is, and what is said in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.api import Prompt
from rlzoo.audio import read_audio, resample
from rlzoo.errors import ConfigError, DataError
from rlzoo_f5tts import F5TTSOptions
from rlzoo_f5tts.mel import FFT, HOP, RATE, Mel

LONGEST = 12.0
"""Seconds; F5-TTS's tools cut off what is beyond, and what the text says of it would then be missing."""
LEVEL = 0.1
"""Root mean square to which quieter references are raised; what is made in their voice is lowered again."""
QUIET_DBFS = -42.0
"""Ends of a recording that are below it are silence."""
SHORT_BYTES, SHORT_SPEED = 10, 0.3
"""Texts of fewer bytes are spoken so slowly, or most of them would be cut off."""
FEWEST_FRAMES = 4
"""Frames that are made at least, for a vocoder to have something to work on."""


@dataclass(frozen=True)
class Voice:
    """`mel` (M, R) of the recording, `gain` for what is made in its voice, `samples` of the recording at 24 kHz."""

    mel: Tensor
    gain: float
    samples: int


@dataclass(frozen=True)
class Wanted:
    """Who shall speak how fast, as a prompt says, or the policy's options."""

    recording: Path
    text: str
    speed: float


def wanted(prompt: Prompt, options: F5TTSOptions) -> Wanted:
    """The voice of a prompt. ConfigError if neither the prompt nor the options name one, or its text is missing."""
    attributes = prompt.attributes
    given = attributes.get("voice")
    recording = options.voice if given is None else Path(str(given))
    text = options.voice_text if given is None else str(attributes.get("voice_text", ""))
    if recording is None:
        raise ConfigError(
            f"f5tts speaks in the voice of a recording, and prompt '{prompt.id}' brings none",
            "use prompts with voices (--prompts zero-shot), or set policy.voice and policy.voice_text "
            "(rlzoo synth: --voice and --voice-text)",
        )
    if not text.strip():
        raise ConfigError(f"the text of the reference '{recording}' is missing", "say what it says, word for word")
    speed = attributes.get("speed", 1.0)
    if not isinstance(speed, int | float) or not 0.2 <= speed <= 5:
        raise ConfigError(f"prompt '{prompt.id}' has the speed '{speed}'", "give a number from 0.2 to 5")
    return Wanted(recording, text.strip(), speed * options.speed)


def load_voice(path: Path, mel: Mel, *, trim: bool) -> Voice:
    """A recording as F5-TTS is shown it.

    Raises:
        DataError: an unreadable file, silence, fewer than FFT samples, or more than LONGEST seconds.
    """
    wave, rate = read_audio(path)
    if trim:
        wave = trimmed(wave, rate)
    level = float(wave.square().mean().sqrt())
    if level == 0:
        raise DataError(f"the reference '{path}' is silent", "give a recording of speech")
    gain = min(1.0, level / LEVEL)
    wave = resample(wave / gain, rate, RATE)
    seconds = len(wave) / RATE
    if seconds > LONGEST:
        raise DataError(
            f"the reference '{path}' lasts {seconds:.1f} s, more than {LONGEST:.0f} s", "cut it and its text"
        )
    if len(wave) < FFT:
        raise DataError(f"the reference '{path}' lasts {seconds:.2f} s", "give a few seconds of speech")
    return Voice(mel(wave.to(mel.banks.device)), gain, len(wave))


def trimmed(wave: Tensor, rate: int) -> Tensor:
    """(L,) without quiet 10 ms pieces at either end, and 50 ms of silence behind it; as it is where all is quiet."""
    size = rate // 100
    pieces = F.pad(wave, (0, -len(wave) % size)).view(-1, size)
    heard = (pieces.square().mean(1) > 10 ** (QUIET_DBFS / 10)).nonzero().flatten()
    if not len(heard):
        return wave
    kept = wave[int(heard[0]) * size : (int(heard[-1]) + 1) * size]
    return torch.cat([kept, wave.new_zeros(rate // 20)])


def total_frames(voice: Voice, reference_text: str, text: str, speed: float, rows: int) -> int:
    """Frames of reference and new speech together: the new text at the reference's rate of bytes per frame.

    `rows`: characters of both texts; each needs a frame.
    """
    known = voice.samples // HOP
    pace = SHORT_SPEED if len(text.encode()) < SHORT_BYTES else speed
    made = int(known / len(reference_text.encode()) * len(text.encode()) / pace)
    return max(known + made, rows + 1, voice.mel.shape[1] + FEWEST_FRAMES - 1)
