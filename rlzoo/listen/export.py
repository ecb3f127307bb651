"""The answers of a test as a file of preferences, which `rlzoo.preferences` reads. Light.

Of a tie, `preferred` is a and `rejected` is b, which means nothing. Anchors and repeats are left out.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from rlzoo.errors import DataError
from rlzoo.files.writing import write_text
from rlzoo.listen.study import Study


def pairs(study: Study, excluded: set[int], *, ties: bool = True) -> list[dict[str, Any]]:
    """Every answer to a plain pair, in order, by raters who are not `excluded`. Paths are absolute.

    DataError if a recording is no longer where it was.
    """
    rows = []
    for answer in study.answers():
        if answer.kind != "pair" or answer.rater in excluded or (answer.preferred is None and not ties):
            continue
        winner = answer.preferred or "a"
        loser = "b" if winner == "a" else "a"
        rows.append(
            {
                "prompt": study.prompts[answer.pair],
                "preferred": _existing(study.sources[winner, answer.pair]),
                "rejected": _existing(study.sources[loser, answer.pair]),
                "rater": str(answer.rater),
                "tie": answer.preferred is None,
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all. DataError."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text, refused="choose another --out")


def _existing(source: str) -> str:
    if not os.path.isfile(source):
        raise DataError(f"recording '{source}' is no longer there", "put it back; pairs point at the original files")
    return source
