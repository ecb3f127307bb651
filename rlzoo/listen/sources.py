"""The two sides of a test: runs, or folders of recordings, joined by file name."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.errors import ConfigError, DataError
from rlzoo.files.evaluations import read_index, steps_in
from rlzoo.speech.corpus.metadata import AUDIO_SUFFIXES, Metadata, read_metadata, recordings_in


@dataclass(frozen=True)
class Recording:
    """A file and what it says. `prompt` is {"id", "text", "attributes"}."""

    path: Path
    prompt: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One side of a test: recordings by the stem of their file."""

    label: str
    recordings: Mapping[str, Recording]
    notes: tuple[str, ...] = ()
    """Notes for the user on metadata.csv and on other findings."""


@dataclass(frozen=True)
class Pair:
    """The same prompt from both sides."""

    key: str
    prompt: Mapping[str, Any]
    a: Path
    b: Path


def open_sources(paths: Sequence[Path], step_a: int | None = None, step_b: int | None = None) -> tuple[Source, Source]:
    """Two sources. One run alone stands for its base (first step) against its last step.

    Of a run, the recordings of its last evaluation are taken unless a step is named. ConfigError for a wrong number of
    paths, DataError for a path that holds no recordings.
    """
    if len(paths) == 1 and _is_run(paths[0]):
        steps = _steps(paths[0])
        if len(steps) < 2 and step_a is None and step_b is None:
            raise DataError(
                f"'{paths[0]}' has one evaluation only, so there is nothing to compare",
                "let the run go on, or name a second run",
            )
        return open_source(paths[0], steps[0] if step_a is None else step_a), open_source(paths[0], step_b)
    if len(paths) != 2:
        raise ConfigError(
            f"{len(paths)} sources are named, expected two",
            "rlzoo listen RUN_A RUN_B; a run alone is compared with its own base; folders come in twos",
        )
    return open_source(paths[0], step_a), open_source(paths[1], step_b)


def open_source(path: Path, step: int | None = None) -> Source:
    """A run directory (`samples/<step>/`), a folder of recordings, or one of them. DataError, ConfigError."""
    if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES:
        prompts, notes = _prompts(path.parent)
        name = unicodedata.normalize("NFC", path.stem)
        return Source(str(path), {name: _recording(path, name, prompts)}, notes)
    if not path.is_dir():
        raise DataError(
            f"'{path}' is not a directory", "name a run directory, or a folder of recordings (WAV, FLAC, OGG)"
        )
    if not _is_run(path):
        if step is not None:
            raise ConfigError(f"'{path}' is not a run directory, so it has no step {step}", "leave the step out")
        return Source(str(path), *_recordings(path))
    steps = _steps(path)
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        raise DataError(f"'{path}' has no recordings of step {chosen}", f"there are steps {', '.join(map(str, steps))}")
    return Source(f"{path} (step {chosen})", *_recordings(path / "samples" / f"{chosen:06d}"))


def match(a: Source, b: Source) -> list[Pair]:
    """Recordings that both sides have, by file name. DataError if there are none or their texts differ."""
    keys = sorted(a.recordings.keys() & b.recordings.keys())
    if not keys:
        raise DataError(
            f"'{a.label}' and '{b.label}' have no file name in common",
            "both sides need recordings of the same prompts under the same names",
        )
    pairs = []
    for key in keys:
        left, right = a.recordings[key], b.recordings[key]
        texts = left.prompt["text"], right.prompt["text"]
        if all(texts) and texts[0] != texts[1]:
            raise DataError(
                f"'{left.path}' and '{right.path}' say different things: {texts[0]!r} and {texts[1]!r}",
                "compare recordings of the same prompts",
            )
        pairs.append(Pair(key, left.prompt if texts[0] else right.prompt, left.path, right.path))
    return pairs


def unequal_rates(pairs: Sequence[Pair]) -> str:
    """Note for a test whose sides differ in their sampling rate; empty if none do."""
    import soundfile

    try:
        rates = [(pair, *(soundfile.info(str(path)).samplerate for path in (pair.a, pair.b))) for pair in pairs]
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"a recording cannot be read as audio: {error}", "give WAV or FLAC files") from error
    different = [found for found in rates if found[1] != found[2]]
    if not different:
        return ""
    pair, a, b = different[0]
    return (
        f"in {len(different)} of {len(pairs)} pairs the rates differ, as in '{pair.key}' ({a} and {b} Hz): "
        "listeners hear where the band ends, and judge that too"
    )


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() or (path / "samples").is_dir()


def _steps(run: Path) -> list[int]:
    steps = [step for step, _ in steps_in(run / "samples", "[0-9]*/index.jsonl")]
    if not steps:
        raise DataError(f"run '{run}' has no recordings yet", "let it reach its first evaluation")
    return steps


def _recordings(folder: Path) -> tuple[dict[str, Recording], tuple[str, ...]]:
    files = recordings_in(folder)
    if not files:
        raise DataError(f"'{folder}' holds no recording ({', '.join(AUDIO_SUFFIXES[:5])})", "check the path")
    prompts, notes = _prompts(folder)
    deep = sum(path.parent != folder for path in files.values())
    if deep and not (deep == len(files) and all(path.parent == folder / "wavs" for path in files.values())):
        notes = (*notes, f"{deep} of {len(files)} recordings are in subfolders")
    return {name: _recording(path, name, prompts) for name, path in files.items()}, notes


def _recording(path: Path, name: str, prompts: Mapping[str, Mapping[str, Any]]) -> Recording:
    prompt = prompts.get(name, {"id": name, "text": ""})
    return Recording(path.resolve(), {"attributes": {}, **prompt})


def _prompts(folder: Path) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Texts of the recordings in a folder, by file stem, and notes on them."""
    if index := _index(folder):
        return index, ()
    found = _metadata(folder)
    return ({}, ()) if found is None else ({n: {"id": n, "text": t} for n, t in found.texts.items()}, found.notes)


def _index(folder: Path) -> dict[str, dict[str, Any]]:
    """Prompts by file stem, as an evaluation has written them."""
    rows = read_index(folder / "index.jsonl")
    return {
        Path(row["file"]).stem: {
            "id": row["prompt"],
            "text": row.get("text", ""),
            "attributes": row.get("attributes", {}),
        }
        for row in rows
        if row.get("file")
    }


def _metadata(folder: Path) -> Metadata | None:
    """`metadata.csv` in the folder or beside it."""
    path = next((path for path in (folder / "metadata.csv", folder.parent / "metadata.csv") if path.is_file()), None)
    return None if path is None else read_metadata(path)
