"""Small file helpers shared by the corpus modules: atomic writes and JSON lines that survive a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlzoo.errors import DataError
from rlzoo.files.reading import MAX_LINES_BYTES, as_object, parse, read_text


def write_text(path: Path, text: str) -> None:
    """Write `text` so that `path` holds either the old content or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write '{path}': {error.strerror}", hint="check free space and permissions") from error


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one JSON object a line and hand them to the system, so that a killed process leaves them behind."""
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise DataError(f"cannot write '{path}': {error.strerror}", hint="check free space and permissions") from error


def read_jsonl(path: Path, *, torn_tail: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file.

    `torn_tail=True` ignores a last line without a newline, which a killed writer may leave behind.

    Raises:
        DataError: not UTF-8, not JSON, or not an object; the message has the line number.
    """
    lines = read_text(path, "expected one JSON object a line", MAX_LINES_BYTES).split("\n")
    tail = lines.pop()
    if tail and not torn_tail:
        lines.append(tail)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"'{path}', line {number}"
        yield as_object(parse(line, where, "make the file again"), where, "make the file again")
