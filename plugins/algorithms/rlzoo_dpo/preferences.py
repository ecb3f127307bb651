"""A file of preferences: one JSON object per line, `{"text": ..., "chosen": ..., "rejected": ...}`.

`chosen` and `rejected` are audio files, relative to the file of preferences, or lists of numbers for policies that emit
no audio. `id` is optional.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo.api import Media, Prompt, Samples
from rlzoo.audio import read_audio
from rlzoo.errors import DataError

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class Preference:
    """A prompt and the two sides of its pair, still files or numbers."""

    prompt: Prompt
    chosen: Any
    rejected: Any


def read_preferences(path: Path) -> list[Preference]:
    """All pairs of the file. DataError with the line's number for anything that is not one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"preferences '{path}' cannot be read: {error}", "algorithm.preferences names a file"
        ) from error
    pairs = [_pair(line, number, path) for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise DataError(
            f"preferences '{path}' has no pairs", 'write {"text": "...", "chosen": "a.wav", "rejected": "b.wav"}'
        )
    return pairs


def _pair(line: str, number: int, path: Path) -> Preference:
    where = f"preferences '{path}', line {number}"
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON: {error}", "one JSON object per line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise DataError(f"{where}: no 'text'", 'write {"text": "...", "chosen": "a.wav", "rejected": "b.wav"}')
    for side in SIDES:
        value = entry.get(side)
        numbers = isinstance(value, list) and value and all(isinstance(x, int | float) for x in value)
        if not isinstance(value, str) and not numbers:
            raise DataError(f"{where}: '{side}' is neither a file nor a list of numbers")
        if isinstance(value, str) and not (path.parent / value).is_file():
            raise DataError(f"{where}: '{side}' names no file: '{path.parent / value}'")
    prompt = Prompt(str(entry.get("id", f"pair-{number:05d}")), entry["text"])
    return Preference(prompt, *(_resolved(entry[side], path) for side in SIDES))


def _resolved(value: Any, path: Path) -> Any:
    return path.parent / value if isinstance(value, str) else value


def load(value: Any, media: Media) -> Samples:
    """One side of a pair as a batch of one row, at the policy's rate. DataError for audio at another rate."""
    wave: Tensor
    if isinstance(value, Path):
        wave, _ = read_audio(value, media.sample_rate)
    else:
        wave = torch.tensor(value, dtype=torch.float32)
    return Samples(wave[None], torch.tensor([wave.shape[-1]]), media)
