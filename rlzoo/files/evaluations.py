"""`eval/*.json` and `samples/*/index.jsonl` of a run, as every reader of them gets them: checked. Light."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from rlzoo.errors import DataError
from rlzoo.files.reading import Shape, check, read_lines, read_object


def _inside(file: str) -> str:
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\0" in file:
        raise ValueError(f"'{file[:100]}' lies outside the run directory")
    if any("\ud800" <= letter <= "\udfff" for letter in file):
        raise ValueError("half a letter, which no file name has")
    return file


InRun = Annotated[str, AfterValidator(_inside)]
"""A file's name, from the run directory on."""


_GAIN = frozenset({"gain", "gain_error", "improved", "count"})


class _Figures(Shape):
    mean: float
    std: float
    gain: float = 0.0
    gain_error: float = 0.0
    improved: float = 0.0
    count: float = 0.0

    @model_validator(mode="after")
    def _a_gain_is_whole(self) -> Self:
        if "gain" in self.model_fields_set and (missing := _GAIN - self.model_fields_set):
            raise ValueError(f"a gain without {', '.join(sorted(missing))}")
        return self


class _Row(Shape):
    prompt: str
    text: str
    index: int
    file: InRun
    scores: dict[str, float]


class _Evaluation(Shape):
    step: Annotated[int, Field(ge=0)]
    scores: dict[str, _Figures]
    rows: Annotated[list[_Row], Field(min_length=1)]


class _Index(Shape):
    file: str
    prompt: str
    text: str = ""
    attributes: dict[str, str | int | float] = {}  # noqa: RUF012 - pydantic copies defaults


def steps_in(folder: Path, pattern: str) -> list[tuple[int, Path]]:
    """Files named after a step, in the order of steps: `eval/000010.json`, `checkpoints/000010/DONE`."""
    named = [(path.relative_to(folder).parts[0].split(".")[0], path) for path in folder.glob(pattern)]
    return sorted((int(name), path) for name, path in named if name.isascii() and name.isdigit() and len(name) < 19)


def read_evaluation(path: Path, hint: str = "delete it and resume the run: it will be made again") -> dict[str, Any]:
    """One evaluation. DataError if it is damaged, or names a file outside the run."""
    document = read_object(path, hint)
    check(_Evaluation, document, f"'{path}' is no evaluation", hint)
    names = document["scores"].keys()
    for number, row in enumerate(document["rows"]):
        if not names <= row["scores"].keys():
            raise DataError(f"'{path}' is no evaluation: rows.{number}.scores lacks one of {sorted(names)}", hint)
    if "total" not in names:
        raise DataError(f"'{path}' is no evaluation: it has no score 'total'", hint)
    return document


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """Every evaluation of a run directory, by step. DataError."""
    return [read_evaluation(path) for _, path in steps_in(folder / "eval", "[0-9]*.json")]


def read_index(path: Path) -> list[dict[str, Any]]:
    """Texts of the recordings beside it. DataError if a line is incomplete."""
    rows = read_lines(path, "evaluate again, or remove the file: recordings are then known by their names alone")
    for number, row in enumerate(rows, 1):
        check(_Index, row, f"'{path}' line {number} tells no recording")
    return rows


def own_file(folder: Path, name: str) -> Path:
    """A file that an evaluation names. DataError if it, or what it is a link to, lies outside the run directory."""
    path = folder / name
    # Not `Path.resolve`, which fails for a link to itself.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise DataError(f"'{path}' lies outside the run directory '{folder}'", "somebody has put it there: remove it")
    return path


__all__ = ["own_file", "read_evaluation", "read_evaluations", "read_index", "steps_in"]
