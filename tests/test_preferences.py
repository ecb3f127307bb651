"""The one format of preferences: what is read, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlzoo.errors import DataError
from rlzoo.preferences import Preference, read_preferences

PROMPT = {"id": "one", "text": "Hello.", "attributes": {"phones": "HH AH L OW"}}
GOOD: dict[str, Any] = {"prompt": PROMPT, "preferred": "a.wav", "rejected": "sub/b.wav", "rater": "3", "tie": True}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ("a.wav", "sub/b.wav"):
        (tmp_path / name).touch()
    return tmp_path


def read(folder: Path, *rows: Any) -> list[Preference]:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return read_preferences(path)


def test_everything_in_a_line_arrives(folder: Path) -> None:
    numbers = {"prompt": {"id": "two"}, "preferred": [1, 2.5], "rejected": [0]}
    first, second = read(folder, GOOD, "", numbers)
    assert vars(first.prompt) == PROMPT
    assert first.recordings == (folder / "a.wav", folder / "sub/b.wav")
    assert (first.rater, first.tie) == ("3", True)
    assert (second.preferred, second.rejected, second.rater, second.tie) == ((1.0, 2.5), (0.0,), "", False)
    with pytest.raises(DataError, match="prompt 'two' is of numbers"):
        second.recordings  # noqa: B018  # it is a property


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is not a pair: the line"),
        (GOOD | {"prompt": "Hello."}, "line 2 is not a pair: prompt"),
        (GOOD | {"prompt": {"text": "Hello."}}, r"line 2 is not a pair: prompt\.id: Field required"),
        (GOOD | {"chosen": "a.wav"}, "line 2 is not a pair: chosen: Extra inputs"),
        (GOOD | {"tie": "no"}, "line 2 is not a pair: tie"),
        ({"prompt": PROMPT, "preferred": "a.wav"}, "line 2 is not a pair: rejected: Field required"),
        (GOOD | {"rejected": "absent.wav"}, r"line 2: recording '.*absent.wav' does not exist"),
        (GOOD | {"rejected": []}, "line 2: a side is an empty list"),
        (GOOD | {"rejected": "a.wav"}, "line 2 compares 'a.wav' with itself"),
    ],
)
def test_a_wrong_line_is_named(folder: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(folder, GOOD, row)


def test_a_file_that_is_none_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="holds no pairs"):
        read(folder, "")
    with pytest.raises(DataError, match=r"cannot read .*absent"):
        read_preferences(folder / "absent")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary.*not UTF-8"):
        read_preferences(folder / "binary")
