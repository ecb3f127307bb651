"""Other layouts of recordings to LJSpeech's: VCTK, LibriTTS, a folder of recordings with a .txt beside each, and tables
(CSV, TSV, JSON lines) with column names. The recordings become mono WAV at one rate.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from rlzoo.errors import DataError
from rlzoo.files.writing import write_text
from rlzoo.speech.corpus._files import read_jsonl
from rlzoo.speech.corpus.metadata import AUDIO_SUFFIXES, read_metadata, read_text

Layout = Literal["auto", "ljspeech", "pairs", "vctk", "libritts", "table"]
_FILE_COLUMNS = (
    "file_name",
    "filename",
    "file",
    "path",
    "audio",
    "audio_file",
    "audio_filepath",
    "wav",
    "clip",
    "id",
    "name",
)
_TEXT_COLUMNS = ("normalized_text", "normalised_text", "text", "sentence", "transcript", "transcription")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "speaker_name", "client_id", "spk")


@dataclass(frozen=True)
class Clip:
    """A recording and its text."""

    path: Path
    text: str
    speaker: str = ""


@dataclass(frozen=True)
class Converted:
    """Result of `convert`."""

    folder: Path
    layout: str
    clips: int
    seconds: float
    left_out: dict[str, str]
    """{recording: why}."""
    speakers: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    *,
    layout: Layout = "auto",
    speaker: str = "",
    rate: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Converted:
    """Write `out`/metadata.csv and `out`/wavs/ID.wav.

    Args:
        source: the folder, or the table itself.
        out: a folder that does not exist or is empty.
        speaker: take the clips of this speaker only.
        rate: hertz of what is written; None keeps that of the recordings, which must then agree.

    Raises:
        DataError: nothing recognised, no such speaker, rates that differ, `out` holds files.
    """
    from rlzoo.speech.audio import write_audio

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"'{out}' exists and is not empty", "choose another folder")
    name, clips = find_clips(source, layout)
    speakers = tuple(sorted({clip.speaker for clip in clips if clip.speaker}))
    if speaker:
        clips = [clip for clip in clips if clip.speaker == speaker]
        if not clips:
            there = f"available: {', '.join(speakers[:10])}" if speakers else "this layout names no speakers"
            raise DataError(f"'{source}' has no speaker '{speaker}'", there)
    left_out: dict[str, str] = {}
    lines: dict[str, str] = {}
    seconds, found = 0.0, rate
    for done, clip in enumerate(clips, 1):
        stem = unicodedata.normalize("NFC", clip.path.stem)
        text = " ".join(clip.text.replace("|", " ").split())
        if stem in lines:
            raise DataError(f"two clips are named '{stem}', one is '{clip.path}'", "rename one, or choose a --speaker")
        try:
            wave, own = _mono(clip.path, rate)
        except DataError as error:
            left_out[str(clip.path)] = error.message
            continue
        if not text:
            left_out[str(clip.path)] = "no text"
            continue
        found = found or own
        if own != found:
            raise DataError(f"'{clip.path}' has {own} Hz, others have {found} Hz", "choose one: --rate HERTZ")
        write_audio(out / "wavs" / f"{stem}.wav", wave, found)
        lines[stem] = text
        seconds += len(wave) / found
        progress(done, len(clips))
    if not lines:
        why = next(iter(left_out.values()), "no clip")
        raise DataError(f"nothing of '{source}' could be converted: {why}", "see docs/corpora.md for the layouts")
    write_text(out / "metadata.csv", "".join(f"{stem}|{text}\n" for stem, text in lines.items()))
    return Converted(out, name, len(lines), seconds, left_out, speakers)


def _mono(path: Path, rate: int | None) -> tuple[Any, int]:
    """(L,) in [-1, 1] at `rate` hertz (None: the file's own): channels are averaged, integers in floats scaled."""
    import soundfile
    import torch

    from rlzoo.speech.audio import resample

    try:
        data, own = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise DataError(f"'{path}' cannot be read as audio: {error}", "leave it out, or record it again") from error
    wave = torch.from_numpy(data).mean(1)
    if not len(wave) or not bool(torch.isfinite(wave).all()):
        raise DataError(f"'{path}' is empty, or not finite", "leave it out, or record it again")
    peak = float(wave.abs().max())
    if peak > 4:
        wave = wave / (1 << 15 if peak <= 1 << 15 else 1 << 31)
    return (wave, own) if rate is None else (resample(wave, own, rate), rate)


def find_clips(source: Path, layout: Layout = "auto") -> tuple[str, list[Clip]]:
    """The layout of a folder and its clips, in the order of their names.

    Raises:
        DataError: no such folder, or no layout fits.
    """
    if not source.exists():
        raise DataError(f"'{source}' does not exist", "check the path")
    readers: Mapping[str, Callable[[Path], list[Clip]]] = {
        "ljspeech": _ljspeech, "libritts": _libritts, "vctk": _vctk, "table": _table, "pairs": _pairs,
    }  # fmt: skip
    if layout != "auto":
        if clips := readers[layout](source):
            return layout, clips
        raise DataError(f"'{source}' is not in the layout '{layout}'", "leave --layout out to have it recognised")
    for name, reader in readers.items():
        if clips := reader(source):
            return name, clips
    raise DataError(
        f"'{source}' is in no layout that is known",
        "known: metadata.csv with wavs/, LibriTTS, VCTK, a table (.csv, .tsv, .jsonl) with column names, or a .txt "
        "beside every recording",
    )


def _ljspeech(source: Path) -> list[Clip]:
    path = source / "metadata.csv"
    if not path.is_file() or "|" not in read_text(path, "").split("\n")[0]:
        return []
    found = read_metadata(path)
    files = _recordings(source)
    return [Clip(_named(files, n, path), t, found.speakers.get(n, "")) for n, t in found.texts.items()]


def _libritts(source: Path) -> list[Clip]:
    """SPEAKER/CHAPTER/ID.wav with ID.normalized.txt beside it."""
    texts = sorted(source.rglob("*.normalized.txt"))
    clips = []
    for path in texts:
        stem = path.name.removesuffix(".normalized.txt")
        audio = next(
            (path.with_name(stem + end) for end in AUDIO_SUFFIXES if path.with_name(stem + end).is_file()), None
        )
        if audio is not None:
            clips.append(Clip(audio, read_text(path, "one text"), stem.split("_")[0]))
    return clips


def _vctk(source: Path) -> list[Clip]:
    """txt/SPEAKER/SPEAKER_001.txt and wav48*/SPEAKER/SPEAKER_001[_mic1].flac; microphone 1 of two."""
    folder = source / "txt"
    if not folder.is_dir():
        return []
    audio: dict[str, Path] = {}
    for place in sorted(source.glob("wav*")):
        for path in _recordings(place).values():
            if not path.stem.endswith("_mic2"):
                audio.setdefault(path.stem.removesuffix("_mic1"), path)
    texts = sorted(folder.rglob("*.txt"))
    return [Clip(audio[t.stem], read_text(t, "one text"), t.parent.name) for t in texts if t.stem in audio]


def _pairs(source: Path) -> list[Clip]:
    """NAME.wav with NAME.txt (or NAME.lab) beside it or in a folder of texts."""
    if not source.is_dir():
        return []
    texts: dict[str, Path] = {}
    for path in sorted((*source.rglob("*.txt"), *source.rglob("*.lab"))):
        if not any(part.startswith(".") for part in path.relative_to(source).parts):
            texts.setdefault(unicodedata.normalize("NFC", path.stem), path)
    files = _recordings(source)
    pairs = [(path, texts[name]) for name, path in files.items() if name in texts]
    return [Clip(audio, read_text(text, "one text"), "") for audio, text in pairs]


def _table(source: Path) -> list[Clip]:
    """A .csv, .tsv or .jsonl with a column of files and one of texts, as `datasets` and Common Voice have them."""
    paths = (
        [source] if source.is_file() else sorted(p for p in source.glob("*") if p.suffix in (".csv", ".tsv", ".jsonl"))
    )
    for path in paths:
        rows = list(read_jsonl(path)) if path.suffix == ".jsonl" else _delimited(path)
        if rows and (columns := _columns(rows[0])):
            files = _recordings(path.parent)
            file, text, speaker = columns
            return [
                Clip(
                    _located(str(row.get(file, "")), files, path), str(row.get(text) or ""), str(row.get(speaker) or "")
                )
                for row in rows
            ]
    return []


def _delimited(path: Path) -> list[dict[str, Any]]:
    content = read_text(path, "a table with column names in its first line")
    first = content.split("\n")[0]
    sign = max("\t;,|", key=first.count)
    rows: list[dict[str, Any]] = []
    # A csv quotes what has a separator inside; other tables quote nothing.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if sign in ",;" else csv.QUOTE_NONE
    for row in csv.DictReader(io.StringIO(content, newline=""), delimiter=sign, quoting=quoting):
        rows.append({str(key).strip(): value for key, value in row.items() if isinstance(value, str)})
    return rows


def _columns(row: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Names of the columns of files, texts and speakers."""
    names = {re.sub(r"[\s-]+", "_", str(name).lower()): str(name) for name in row}
    file, text, speaker = (
        next((names[name] for name in known if name in names), "")
        for known in (_FILE_COLUMNS, _TEXT_COLUMNS, _SPEAKER_COLUMNS)
    )
    return (file, text, speaker) if file and text else None


def _recordings(folder: Path) -> dict[str, Path]:
    """Recordings by stem; of two with one stem the first by name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
            found.setdefault(unicodedata.normalize("NFC", path.stem), path)
    return found


def _located(name: str, files: Mapping[str, Path], table: Path) -> Path:
    """The file that a table names: a path beside it, or a name anywhere below. Never outside the table's folder."""
    plain = PurePosixPath(PureWindowsPath(name).as_posix())
    beside = table.parent / plain
    # Not `Path.is_file`, which fails for a name that is too long.
    if not plain.is_absolute() and ".." not in plain.parts and os.path.isfile(beside):
        return beside
    stem = plain.name[: -len(plain.suffix)] if plain.suffix.lower() in AUDIO_SUFFIXES else plain.name
    return _named(files, unicodedata.normalize("NFC", stem), table)


def _named(files: Mapping[str, Path], name: str, table: Path) -> Path:
    if name not in files:
        raise DataError(
            f"'{table}' names '{name}', and no recording below '{table.parent}' is called so", "check the names"
        )
    return files[name]
