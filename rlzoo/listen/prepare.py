"""Played audio: copies at one loudness, and anchors, which are recordings with added noise."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.errors import DataError
from rlzoo.files.assets import sha256_of
from rlzoo.files.writing import replacing, sweep
from rlzoo.listen.sources import Pair, Source, match
from rlzoo.listen.study import DATABASE, Clip, Settings, Study, create_database
from rlzoo.speech.audio import SPEECH_LEVEL_DBFS, active_power, normalise_level, read_audio, to_samples, write_audio

ANCHORED = 12
"""At most so many recordings are made worse; raters share them."""
_PEAK = 0.99


def prepare(folder: Path, a: Source, b: Source, settings: Settings) -> Study:
    """The study in `folder`: made, or opened again if it is this very one.

    DataError if `folder` holds something else, both sides are equal, or a recording cannot be used.
    """
    pairs = match(a, b)
    fingerprint = _fingerprint(pairs, settings)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        study = Study.open(folder)
        if study.fingerprint != fingerprint:
            study.close()
            raise DataError(
                f"'{folder}' holds a test with other recordings or other settings",
                "choose another --out, or start it with what it was made with",
            )
        study.set_max_raters(settings.max_raters)
        return study
    if all(sha256_of(pair.a) == sha256_of(pair.b) for pair in pairs):
        raise DataError(f"'{a.label}' and '{b.label}' hold the same audio", "compare two different sources")
    sweep(folder.absolute().parent, folder.name)
    with replacing(folder.absolute(), refused="choose another --out") as building:
        building.mkdir()
        clips = _clips(building, pairs, settings)
        create_database(building / DATABASE, settings, fingerprint, (a.label, b.label), pairs, clips)
    return Study.open(folder)


def _fingerprint(pairs: Sequence[Pair], settings: Settings) -> str:
    digest = hashlib.sha256(replace(settings, max_raters=1).to_json().encode())
    for pair in pairs:
        digest.update(pair.key.encode())
        for path in (pair.a, pair.b):
            digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def _clips(folder: Path, pairs: Sequence[Pair], settings: Settings) -> list[Clip]:
    """Write what is played; names tell nothing about the side."""
    names = random.Random(settings.seed)
    anchored = set(names.sample(range(len(pairs)), min(ANCHORED, len(pairs)))) if settings.anchors else set()
    level = _level([path for pair in pairs for path in (pair.a, pair.b)]) if settings.match_level else None
    clips: list[Clip] = []
    for number, pair in enumerate(pairs):
        for side, path in (("a", pair.a), ("b", pair.b)):
            wave, rate = read_audio(path)
            played = _levelled(wave, rate, level)
            clips.append(Clip(side, number, path, _write(folder, played, rate, names)))
            # Either side in turn, so that an anchor says nothing about a side.
            if number in anchored and side == "ab"[number % 2]:
                worse = _levelled(with_noise(wave, rate, settings.anchor_snr, settings.seed + number), rate, level)
                clips.append(Clip("anchor", number, path, _write(folder, worse, rate, names)))
    return clips


def _write(folder: Path, wave: Tensor, rate: int, names: random.Random) -> str:
    name = f"audio/{names.getrandbits(64):016x}.wav"
    write_audio(folder / name, wave, rate)
    return name


def _level(paths: Sequence[Path]) -> float:
    """The usual speech level in dBFS, or as much below it as keeps every recording from clipping."""
    headroom = 0.0
    for path in paths:
        wave, rate = read_audio(path)
        peak = float(normalise_level(to_samples([wave], rate), SPEECH_LEVEL_DBFS).data.abs().max())
        if peak > _PEAK:
            headroom = max(headroom, float(20 * torch.log10(torch.tensor(peak / _PEAK))))
    return SPEECH_LEVEL_DBFS - headroom


def _levelled(wave: Tensor, rate: int, level: float | None) -> Tensor:
    return wave if level is None else normalise_level(to_samples([wave], rate), level).data[0]


def with_noise(wave: Tensor, rate: int, snr: float, seed: int) -> Tensor:
    """(L,) -> (L,) with white noise `snr` dB below the active speech level, scaled down where it would clip.

    The same seed gives the same noise.
    """
    power = active_power(to_samples([wave], rate))[0]
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(seed))
    noisy = wave + noise * (power * 10 ** (-snr / 10)).sqrt()
    return noisy / max(1.0, float(noisy.abs().max()) / _PEAK)
