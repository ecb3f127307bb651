"""Files of preferences: what people, or anything else, said of two samples of one prompt.

JSON lines, as `rlzoo listen export` writes them and docs/listening.md describes; read by the reward `preference` and by
the algorithm `dpo`:

    {"prompt": {"id": "hello", "text": "Hello."}, "preferred": "a.wav", "rejected": "b.wav", "rater": "3", "tie": false}
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from rlzoo.core.types import Prompt
from rlzoo.errors import DataError
from rlzoo.files.reading import parse, read_text

Side = Path | tuple[float, ...]
"""A recording, or a state written out, for policies that emit no audio."""

_FORM = '{"prompt": {"id": "hello", "text": "Hello."}, "preferred": "a.wav", "rejected": "b.wav"}'


@dataclass(frozen=True)
class Preference:
    """One answer: `preferred` over `rejected`. Of a `tie`, which of the two is which means nothing."""

    prompt: Prompt
    preferred: Side
    rejected: Side
    rater: str = ""
    tie: bool = False

    @property
    def recordings(self) -> tuple[Path, Path]:
        """Preferred and rejected. DataError if they are numbers."""
        a, b = self.preferred, self.rejected
        if isinstance(a, Path) and isinstance(b, Path):
            return a, b
        raise DataError(
            f"the pair of prompt '{self.prompt.id}' is of numbers, not of recordings",
            "name two files in its line",
        )


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Prompt(_Part):
    id: str
    text: str = ""
    attributes: dict[str, str | int | float] = {}


class _Line(_Part):
    prompt: _Prompt
    preferred: str | list[float]
    rejected: str | list[float]
    rater: str = ""
    tie: bool = False


def read_preferences(path: Path) -> list[Preference]:
    """All pairs of the file, in order; relative names of recordings start at the file's folder.

    DataError with the line that is wrong: no pair, a recording that is not there, two sides that are the same.
    """
    lines = read_text(path, "give what `rlzoo listen export` wrote").split("\n")
    pairs = [
        _preference(line, path, f"'{path}', line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not pairs:
        raise DataError(f"'{path}' holds no pairs", "let people listen first: rlzoo listen")
    return pairs


def _preference(text: str, path: Path, where: str) -> Preference:
    try:
        line = _Line.model_validate(parse(text, where, f"a line is {_FORM}"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(f"{where} is not a pair: {place}: {first['msg']}", f"a line is {_FORM}") from error
    preferred, rejected = (_side(value, path, where) for value in (line.preferred, line.rejected))
    if preferred == rejected:
        raise DataError(f"{where} compares '{line.preferred}' with itself", f"a line is {_FORM}")
    prompt = Prompt(line.prompt.id, line.prompt.text, line.prompt.attributes)
    return Preference(prompt, preferred, rejected, line.rater, line.tie)


def _side(value: str | list[float], path: Path, where: str) -> Side:
    if isinstance(value, list):
        if not value:
            raise DataError(f"{where}: a side is an empty list", "name a recording, or write a state's numbers")
        return tuple(value)
    file = path.parent / value
    if not os.path.isfile(file):  # `Path.is_file` fails for a name that is too long
        raise DataError(f"{where}: recording '{file}' does not exist", "pairs point at the original files")
    return file


__all__ = ["Preference", "read_preferences"]
