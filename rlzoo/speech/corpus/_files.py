"""JSON lines of a corpus, which survive a crash."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlzoo.files.reading import MAX_LINES_BYTES, as_object, parse, read_text
from rlzoo.files.writing import write_text

_REFUSED = "check free space and permissions"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), refused=_REFUSED)


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
