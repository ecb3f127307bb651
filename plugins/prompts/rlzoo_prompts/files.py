"""Reading prompt files. Every defect a file can have is refused with the line it is on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from rlzoo.errors import DataError

_TEXT_HINT = "give a UTF-8 text file with one prompt a line"


def read_lines(path: Path, hint: str = _TEXT_HINT) -> list[tuple[int, str]]:
    """Text file -> (line number from 1, line) of every line that is not blank.

    Raises:
        DataError: missing, a directory, unreadable, binary, not UTF-8, or without a line.
    """
    if not path.exists():
        raise DataError(f"the prompt file '{path}' does not exist", hint="check the path")
    if path.is_dir():
        raise DataError(f"'{path}' is a directory", hint=hint)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}", hint="check its permissions") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(f"'{path}', line {line}: not UTF-8 text (byte {error.start})", hint=hint) from error
    for number, line_text in enumerate(text.split("\n"), 1):
        if any(ord(char) < 32 and char not in "\t\r\f" for char in line_text):
            raise DataError(f"'{path}', line {number}: a control character, so this is a binary file", hint=hint)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"the prompt file '{path}' is empty", hint=hint)
    return lines


def require_letters(path: Path, number: int, text: str) -> str:
    """`text` with single spaces; DataError when no letter is in it, because nothing could be spoken."""
    if not any(char.isalpha() for char in text):
        raise DataError(
            f"'{path}', line {number}: no letters in '{text}'", hint="remove the line, or write numbers in words"
        )
    return " ".join(text.split())


def read_prompts(path: Path) -> list[str]:
    """Text file -> its distinct prompts, in order.

    Raises:
        DataError: as `read_lines`, and for a line without letters.
    """
    return list(dict.fromkeys(require_letters(path, number, line) for number, line in read_lines(path)))


def read_metadata(path: Path) -> dict[str, str]:
    """LJSpeech's metadata (id|text or id|text|normalised text) -> {id: text to speak}.

    Raises:
        DataError: as `read_lines`; another number of columns; an id that is repeated or not safe in a file name.
    """
    hint = "expected lines 'id|text' or 'id|text|normalised text'"
    texts: dict[str, str] = {}
    for number, line in read_lines(path, hint):
        columns = [column.strip() for column in line.split("|")]
        if len(columns) not in (2, 3):
            raise DataError(f"'{path}', line {number}: {len(columns)} columns", hint=hint)
        name = columns[0]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise DataError(f"'{path}', line {number}: '{name}' is no id", hint="use letters, digits, '.', '_' and '-'")
        if name in texts:
            raise DataError(f"'{path}', line {number}: the id '{name}' occurs twice", hint="ids must be unique")
        texts[name] = require_letters(path, number, columns[-1] or columns[1])
    return texts


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
        text = require_letters(path, number, text)
        name = name.removesuffix(".wav") or prompt_id(f"{text} {voice}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or name in found:
            problem = "occurs twice" if name in found else "is no id"
            raise DataError(f"{where}: '{name}' {problem}", hint="ids are unique: letters, digits, '.', '_' and '-'")
        attributes = {"voice": voice, "audio": columns[4]} if len(columns) == 5 and columns[4] else {"voice": voice}
        attributes = {key: str((path.parent / file).absolute()) for key, file in attributes.items()}
        for file in attributes.values():
            if not Path(file).is_file():
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
