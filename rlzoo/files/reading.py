"""Reading what may have been damaged, or written by somebody else: bounded in size and depth, one error. Light.

Everything here raises DataError and nothing else, whatever the file holds.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rlzoo.errors import DataError

MAX_BYTES = 256 << 20
"""Largest JSON document or text, in bytes: a thousand times that of the largest run."""
MAX_LINES_BYTES = 2 << 30
"""Largest file of JSON lines, in bytes; it grows with the run."""
MAX_DEPTH = 64
"""Largest depth of JSON; ours is at most 8."""

_DAMAGED = "it is damaged"

M = TypeVar("M", bound=BaseModel)


class Shape(BaseModel):
    """Required keys of a document; other keys are ignored. Strict: readers use what stands there, such as no "1.5"."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)


def read_bytes(path: Path, hint: str = _DAMAGED, most: int = MAX_BYTES) -> bytes:
    """A regular file of at most `most` bytes: a pipe or a device would be read for ever."""
    try:
        found = path.stat()  # first: opening a pipe waits for somebody who writes to it
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"cannot read '{path}': it is not a regular file", hint)
        if found.st_size > most:
            raise DataError(f"cannot read '{path}': {found.st_size:,} bytes, expected {most:,} at most", hint)
        with path.open("rb") as file:
            return file.read(found.st_size)  # not `most`: Python makes room for that many first
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise DataError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}", hint) from error


def read_text(path: Path, hint: str = _DAMAGED, most: int = MAX_BYTES) -> str:
    """A UTF-8 text file."""
    content = read_bytes(path, hint, most)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"'{path}', line {line}: not UTF-8 text (byte {error.start})", hint) from error


def parse(text: str | bytes, where: str, hint: str = _DAMAGED) -> Any:
    """JSON; `where` names its place in the error."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of thousands of digits
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise DataError(f"{where} is no JSON: {reason}", hint) from error
    if nested_too_deep(found):
        raise DataError(f"{where} is nested more than {MAX_DEPTH} deep", hint)
    return found


def nested_too_deep(value: Any) -> bool:
    """True if dictionaries and lists are nested more than MAX_DEPTH deep."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        layer = [item for item in inner if isinstance(item, dict | list)]
        if not layer:
            return False
    return True


def read_json(path: Path, hint: str = _DAMAGED) -> Any:
    """A JSON document."""
    return parse(read_text(path, hint), f"'{path}'", hint)


def read_object(path: Path, hint: str = _DAMAGED) -> dict[str, Any]:
    """A JSON document that is an object."""
    return as_object(read_json(path, hint), f"'{path}'", hint)


def as_object(value: Any, where: str, hint: str = _DAMAGED) -> dict[str, Any]:
    """A parsed document, which must be an object."""
    if not isinstance(value, dict):
        raise DataError(f"{where} holds {type(value).__name__}, expected an object", hint)
    return value


def read_lines(path: Path, hint: str = _DAMAGED) -> list[dict[str, Any]]:
    """Objects of a JSON-lines file, none if there is no file; a last line without its end, which a crash while
    writing leaves, is left out."""
    return list(_objects(path, hint)) if path.exists() else []


def _objects(path: Path, hint: str) -> Iterator[dict[str, Any]]:
    *lines, _ = read_text(path, hint, MAX_LINES_BYTES).split("\n")
    for number, line in enumerate(lines, 1):
        where = f"'{path}' line {number}"
        yield as_object(parse(line, where, hint), where, hint)


def check(model: type[M], value: Any, where: str, hint: str = _DAMAGED) -> M:
    """A parsed document against its shape."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{where}: {place}: {text}" if place else f"{where}: {text}", hint) from error


__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "Shape",
    "as_object",
    "check",
    "nested_too_deep",
    "parse",
    "read_bytes",
    "read_json",
    "read_lines",
    "read_object",
    "read_text",
]
