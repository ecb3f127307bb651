"""Reading prompt files. Every defect a file can have is refused with the line it is on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from anyascii import anyascii

from rlzoo.corpus import read_text
from rlzoo.errors import DataError
from rlzoo.text import unreadable

_TEXT_HINT = "give a UTF-8 text file with one prompt a line"


def read_lines(path: Path, hint: str = _TEXT_HINT) -> list[tuple[int, str]]:
    """Text file -> (line number from 1, line) of every line that is not blank.

    Raises:
        DataError: missing, a directory, unreadable, binary, not UTF-8, or without a line.
    """
    if not path.exists():
        raise DataError(f"the prompt file '{path}' does not exist", hint="check the path")
    text = read_text(path, hint)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"the prompt file '{path}' is empty", hint=hint)
    return lines


def require_words(where: str, text: str) -> str:
    """`text` with single spaces; DataError, naming `where`, when nothing in it can be spoken."""
    if strange := unreadable(text):
        raise DataError(f"{where}: {strange}, which is not read", hint="write it as English is written")
    if not any(char.isalnum() for char in text):
        raise DataError(f"{where}: no letters in '{text}'", hint="remove the line, or write it in words")
    return " ".join(text.split())


def read_prompts(path: Path) -> list[str]:
    """Text file -> its distinct prompts, in order.

    Raises:
        DataError: as `read_lines`, and for a line without words.
    """
    return list(dict.fromkeys(require_words(f"'{path}', line {number}", line) for number, line in read_lines(path)))


def safe_id(name: str) -> str:
    """An id as a file can be named after it: 'u 2' -> 'u_2'."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", anyascii(name)).lstrip("._-") or "clip"


def read_zero_shot(path: Path) -> list[tuple[str, str, dict[str, str]]]:
    """Lines as `ZeroShotOptions.path` has them -> (id, text, attributes `voice`, `voice_text` and perhaps `audio`).

    Raises:
        DataError: as `read_lines`; another number of columns, an empty one, a recording that is not there, an id that
            is repeated or not safe in a file name.
    """
    hint = "expected 'recording|what it says|text', or Seed-TTS-eval's 'id|what it says|recording|text'"
    found: dict[str, tuple[str, str, dict[str, str]]] = {}
    for number, line in read_lines(path, hint):
        where, columns = f"'{path}', line {number}", [column.strip() for column in line.split("|")]
        if len(columns) not in (3, 4, 5) or not all(columns[:4]):
            raise DataError(f"{where}: {len(columns)} columns, {sum(map(bool, columns))} of them with text", hint=hint)
        name, said, voice, text = columns[:4] if len(columns) > 3 else ("", columns[1], columns[0], columns[2])
        text = require_words(f"'{path}', line {number}", text)
        name = name.removesuffix(".wav") or prompt_id(f"{text} {voice}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in found:
            problem = "occurs twice" if name in found else "is no id"
            raise DataError(f"{where}: '{name}' {problem}", hint="ids are unique: letters, digits, '.', '_' and '-'")
        attributes = {"voice": voice, "audio": columns[4]} if len(columns) == 5 and columns[4] else {"voice": voice}
        attributes = {key: str((path.parent / file).absolute()) for key, file in attributes.items()}
        for file in attributes.values():
            if not os.path.isfile(file):  # `Path.is_file` fails for a name that is too long
                raise DataError(f"{where}: the recording '{file}' does not exist", hint="paths are beside the file")
        found[name] = name, text, {**attributes, "voice_text": said}
    return list(found.values())


def prompt_id(text: str) -> str:
    """A readable id that is safe in a file name and depends on the text alone: 'open-the-door-1c0ffee5'."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    slug = "-".join(words[:5])[:40].strip("-") or "prompt"
    return f"{slug}-{digest(text)[:8]}"


def digest(text: str) -> str:
    """SHA-256, hexadecimal: the same on every machine, unlike `hash`."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def held_out(names: Iterable[str], fraction: float) -> set[str]:
    """Names -> the `fraction` of them (at least one) whose hashes are lowest, whatever the order they come in."""
    ordered = sorted(names, key=digest)
    return set(ordered[: max(1, round(len(ordered) * fraction))])
