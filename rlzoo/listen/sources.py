"""The two sides of a test: runs, or folders of recordings, joined by file name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import read_lines

AUDIO_SUFFIXES = (".wav", ".flac")


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
    """A run directory (`samples/<step>/`), a folder of WAV and FLAC files, or one of them. DataError, ConfigError."""
    if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES:
        return Source(str(path), {path.stem: _recording(path, _prompts(path.parent))})
    if not path.is_dir():
        raise DataError(f"'{path}' is no directory", "name a run directory, or a folder of WAV or FLAC files")
    if not _is_run(path):
        if step is not None:
            raise ConfigError(f"'{path}' is no run directory, so it has no step {step}", "leave the step out")
        return Source(str(path), _recordings(path))
    steps = _steps(path)
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        raise DataError(f"'{path}' has no recordings of step {chosen}", f"there are steps {', '.join(map(str, steps))}")
    return Source(f"{path} (step {chosen})", _recordings(path / "samples" / f"{chosen:06d}"))


def match(a: Source, b: Source) -> list[Pair]:
    """Recordings that both sides have, by file name. DataError where there are none or their texts differ."""
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
    """What to tell whoever makes a test whose sides differ in their sampling rate; empty where none do."""
    import soundfile

    rates = [(pair, *(soundfile.info(str(path)).samplerate for path in (pair.a, pair.b))) for pair in pairs]
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
    folders = [path for path in (run / "samples").glob("*") if path.name.isdigit() and (path / "index.jsonl").is_file()]
    if not folders:
        raise DataError(f"run '{run}' has no recordings yet", "let it reach its first evaluation")
    return sorted(int(path.name) for path in folders)


def _recordings(folder: Path) -> dict[str, Recording]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"'{folder}' holds no WAV or FLAC file", "check the path")
    prompts = _prompts(folder)
    found: dict[str, Recording] = {}
    for path in files:
        if path.stem in found:
            raise DataError(f"'{folder}' has two recordings named '{path.stem}'", "keep one of them")
        found[path.stem] = _recording(path, prompts)
    return found


def _recording(path: Path, prompts: Mapping[str, Mapping[str, Any]]) -> Recording:
    prompt = prompts.get(path.stem, {"id": path.stem, "text": ""})
    return Recording(path.resolve(), {"attributes": {}, **prompt})


def _prompts(folder: Path) -> dict[str, dict[str, Any]]:
    """What the recordings of a folder say, by file stem."""
    return _index(folder) or _metadata(folder)


def _index(folder: Path) -> dict[str, dict[str, Any]]:
    """Prompts by file stem, as an evaluation has written them."""
    rows = read_lines(folder / "index.jsonl")
    return {
        Path(row["file"]).stem: {
            "id": row["prompt"],
            "text": row.get("text", ""),
            "attributes": row.get("attributes", {}),
        }
        for row in rows
        if row.get("file")
    }


def _metadata(folder: Path) -> dict[str, dict[str, Any]]:
    """Prompts by file stem from `metadata.csv` (`id|text|...`) in the folder or beside it."""
    for path in (folder / "metadata.csv", folder.parent / "metadata.csv"):
        if path.is_file():
            lines = [line.split("|") for line in path.read_text(encoding="utf-8").splitlines() if "|" in line]
            return {cells[0]: {"id": cells[0], "text": cells[1]} for cells in lines}
    return {}
