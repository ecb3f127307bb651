"""The one reader of metadata.csv, and of the recordings beside it: for corpora, prompts, `eval` and `listen`.

LJSpeech's layout is `id|text` or `id|text|normalised text`, one line an utterance, no quoting. What people have besides
is recognised and said in `Metadata.notes`: a byte order mark, a header, ids that are paths or have an extension, spaces
around `|`, a column of speakers, and `|` inside a text where it stands between spaces or quotes. What cannot be told
is refused with its line.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from rlzoo.errors import DataError
from rlzoo.files.reading import read_bytes

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64")
"""Extensions that soundfile reads, in the order of the search for a recording."""

_LAYOUT = "expected lines 'id|text' or 'id|text|normalised text'"
_IDS = frozenset(
    str.split(
        "id ids name file files filename file_name file_id fileid audio audio_file audio_path audio_filepath path wav "
        "wav_file wav_path filepath file_path utt utterance clip clip_id recording sample key uid"
    )
)
_TEXTS = frozenset(
    str.split("text texts transcript transcription sentence sentences raw_text original_text raw words prompt caption")
)
_NORMALISED = frozenset(str.split("normalized_text normalised_text normalized normalised normalized_transcription"))
_SPEAKERS = frozenset(str.split("speaker speaker_id speaker_name spk spk_id client_id voice"))


@dataclass(frozen=True)
class Metadata:
    """Content of a metadata file, in its order."""

    path: Path
    texts: dict[str, str]
    """{id: text to speak}: the normalised text where there is one. Ids are NFC."""
    speakers: dict[str, str] = field(default_factory=dict)
    """{id: speaker}, where the file has a column of them."""
    notes: tuple[str, ...] = ()
    """Recognised deviations from the plain layout, a sentence each."""


def read_text(path: Path, hint: str) -> str:
    """A UTF-8 file without its byte order mark.

    Raises:
        DataError: missing, a folder, too large, or other than UTF-8 text; it names the line.
    """
    if path.is_dir():
        raise DataError(f"'{path}' is a directory", hint)
    raw = read_bytes(path, hint)
    zeros = max(raw[:4096:2].count(0), raw[1:4096:2].count(0))
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") or zeros * 4 > min(len(raw), 4096) > 3:
        raise DataError(f"'{path}' is UTF-16 text", f"save it as UTF-8: iconv -f UTF-16 -t UTF-8 {path.name}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"'{path}', line {line}: byte 0x{raw[error.start]:02x} is not UTF-8 text",
            f"save it as UTF-8, such as with: iconv -f WINDOWS-1252 -t UTF-8 {path.name}",
        ) from error
    for number, line_text in enumerate(text.split("\n"), 1):
        if odd := re.search(r"[\x00-\x08\x0b\x0e-\x1f]", line_text):
            raise DataError(
                f"'{path}', line {number}: a control character (U+{ord(odd[0]):04X}), so no text file", hint
            )
    return text


def read_metadata(path: Path) -> Metadata:
    """Read a metadata file.

    Raises:
        DataError: unreadable, not UTF-8, columns that cannot be told, an empty or repeated id, no text; with the line.
    """
    text = read_text(path, _LAYOUT)
    notes: list[str] = []
    if "\n" not in text and "\r" in text.strip("\r"):
        text = text.replace("\r", "\n")
        notes.append("lines end in a carriage return, as on an old Macintosh")
    rows = [(number, line.strip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise DataError(f"'{path}' is empty", _LAYOUT)
    lines = [(number, _columns(line)) for number, line in rows]
    _check_separator(path, rows, lines)
    if any(joined for _, (_, joined) in lines):
        count = sum(joined for _, (_, joined) in lines)
        notes.append(f"{count} text(s) have '|' inside, which is taken for part of the text")
    table = [(number, columns) for number, (columns, _) in lines]
    names = [re.sub(r"[\s-]+", "_", column.lower()) for column in table[0][1]]
    while table[0][1][-1] == "" and all(len(columns) == len(table[0][1]) and not columns[-1] for _, columns in table):
        table = [(number, columns[:-1]) for number, columns in table]
    if set(names) & _IDS and len(names) > 1 and set(names) & (_TEXTS | _NORMALISED):
        notes.append("line 1 is a header")
        table = table[1:]
        found = _named(names)
    else:
        found = _unnamed(path, table)
    if found.speaker is not None:
        speakers = {columns[found.speaker] for _, columns in table if found.speaker < len(columns)}
        notes.append(
            f"column {found.speaker + 1} holds speakers ({len(speakers)}: {_some(sorted(speakers))}), not text"
        )
    texts: dict[str, str] = {}
    told: dict[str, str] = {}
    tidied: Counter[str] = Counter()
    for number, columns in table:
        name, how = _tidy_id(columns[found.id] if found.id < len(columns) else "")
        tidied.update(how)
        spoken = next((columns[place] for place in found.texts if place < len(columns) and columns[place]), "")
        spoken, odd = _tidy_text(spoken)
        tidied.update(odd)
        if not name or not spoken:
            raise DataError(f"'{path}', line {number}: no {'text' if name else 'id'}", "complete the line")
        if name in texts:
            raise DataError(f"'{path}', line {number}: the id '{name}' occurs twice", "ids must be unique")
        texts[name] = spoken
        if found.speaker is not None and found.speaker < len(columns):
            told[name] = columns[found.speaker]
    if not texts:
        raise DataError(f"'{path}' has a header and no utterance", _LAYOUT)
    notes += [f"{count} {what}" for what, count in tidied.items()]
    return Metadata(path, texts, told, tuple(notes))


@dataclass(frozen=True)
class _Places:
    texts: tuple[int, ...]
    """Columns of text, the best first."""
    speaker: int | None = None
    id: int = 0


def _columns(line: str) -> tuple[list[str], int]:
    """A line -> its columns without spaces around them, and how many '|' are part of a text."""
    parts = line.split("|")
    columns, joined = parts[:1], 0
    spaced = len(parts) > 1 and (parts[0].endswith(" ") or parts[1].startswith(" "))
    for part in parts[1:]:
        quoted = columns[-1].strip().startswith('"') and columns[-1].count('"') % 2 and '"' in part
        inside = len(columns) > 1 and not spaced and columns[-1].endswith(" ") and part.startswith(" ")
        if len(columns) > 1 and (quoted or inside):
            columns[-1] += "|" + part
            joined += 1
        else:
            columns.append(part)
    cleaned = [column.strip() for column in columns]
    return [_unquoted(column) for column in cleaned], joined


def _unquoted(column: str) -> str:
    """A column without double quotes around it, inside which they are doubled; '"Yes," he said, "no"' has others."""
    inner = column[1:-1]
    whole = len(column) > 2 and column[0] == column[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else column


def _check_separator(
    path: Path, rows: Sequence[tuple[int, str]], lines: Sequence[tuple[int, tuple[list[str], int]]]
) -> None:
    short = [(number, line) for (number, line), (_, (columns, _)) in zip(rows, lines, strict=True) if len(columns) < 2]
    if not short:
        return
    number, line = short[0]
    for sign, name in (("\t", "tabs"), (";", "semicolons"), (",", "commas")):
        if len(short) == len(rows) and sign in line:
            raise DataError(
                f"'{path}', line {number}: no '|'; its columns seem to be separated by {name}",
                "convert it: rlzoo corpus convert FOLDER OUT",
            )
    raise DataError(f"'{path}', line {number}: 1 columns ('{line[:40]}')", _LAYOUT)


def _named(names: Sequence[str]) -> _Places:
    best = [place for place, name in enumerate(names) if name in _NORMALISED]
    other = [place for place, name in enumerate(names) if name in _TEXTS]
    speaker = next((place for place, name in enumerate(names) if name in _SPEAKERS), None)
    return _Places((*best, *other), speaker, next(place for place, name in enumerate(names) if name in _IDS))


def _unnamed(path: Path, table: Sequence[tuple[int, list[str]]]) -> _Places:
    """Columns with text in a file without a header."""
    counts = Counter(len(columns) for _, columns in table)
    width = max(counts)
    labels = [place for place in range(1, width) if _is_label([c[place] if place < len(c) else "" for _, c in table])]
    if len(labels) == width - 1:
        labels = []
    texts = [place for place in range(1, width) if place not in labels]
    if len(texts) > 2:
        number = next(number for number, columns in table if len(columns) == width)
        raise DataError(
            f"'{path}', line {number}: {width} columns", f"{_LAYOUT}; name the columns in a first line: id|text|speaker"
        )
    if len(texts) == 2 and len(counts) > 1:
        _check_tails(path, table, texts[1])
    return _Places(tuple(reversed(texts)), labels[-1] if labels else None)


def _is_label(values: Sequence[str]) -> bool:
    """True if a column names speakers or languages: numbers, or a few single words again and again."""
    if not all(values) or any(" " in value or len(value) > 40 for value in values):
        return False
    return (
        all(re.fullmatch(r"[A-Za-z]{0,3}\d+", v) for v in values)
        or (len(values) > 3 and len(set(values)) <= len(values) // 2)
        or (len(values) > 1 and len(set(values)) == 1)
    )


def _check_tails(path: Path, table: Sequence[tuple[int, list[str]]], place: int) -> None:
    """If only some lines have a third column, it must resemble the second one, else '|' is part of a text."""
    for number, columns in table:
        if place < len(columns) and columns[place]:
            first, second = (set(re.findall(r"[a-z]+", columns[p].lower())) for p in (place - 1, place))
            if len(first & second) * 2 < min(len(first), len(second)):
                raise DataError(
                    f"'{path}', line {number}: {len(columns)} columns, other lines have fewer, and the last is no "
                    f"normalised form of the one before: '{columns[place][:40]}'",
                    "is '|' part of the text? Write it in words, or put the text in double quotes",
                )


def _tidy_id(column: str) -> tuple[str, list[str]]:
    """'wavs/a.wav' -> 'a', and what was done."""
    how = []
    name = unicodedata.normalize("NFC", "".join(char for char in column if unicodedata.category(char) != "Cf")).strip()
    if re.search(r"[/\\]", name):
        name = PurePosixPath(PureWindowsPath(name).as_posix()).name
        how.append("id(s) are paths, of which the file's name is taken")
    if name.lower().endswith(AUDIO_SUFFIXES):
        name = name[: name.rindex(".")]
        how.append("id(s) end in an extension, which is left out")
    return name, how


def _tidy_text(text: str) -> tuple[str, list[str]]:
    """Line separators, no-break spaces and marks without width become spaces or nothing, and are said."""
    odd = sorted({char for char in text if unicodedata.category(char) in ("Zl", "Zp", "Cf", "Cc") and char != "\t"})
    named = [
        f"text(s) have U+{ord(char):04X} {unicodedata.name(char, 'control character')}, read as a space" for char in odd
    ]
    for char in odd:
        text = text.replace(char, " ")
    return " ".join(text.split()), named


def _some(items: Iterable[str], count: int = 3) -> str:
    listed = list(items)
    return ", ".join(listed[:count]) + (" ..." if len(listed) > count else "")


def recordings_in(folder: Path, *, deep: bool = True) -> dict[str, Path]:
    """Recordings of a folder (`deep`: and of its subfolders) by the stem of their name in NFC, sorted.

    What macOS leaves behind ('._a.wav') and other hidden files are passed over.

    Raises:
        DataError: two recordings with the same stem.
    """
    found: dict[str, Path] = {}
    every = folder.rglob("*") if deep else folder.iterdir()
    for path in sorted(every):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in AUDIO_SUFFIXES or not path.is_file():
            continue
        name = unicodedata.normalize("NFC", path.stem)
        if name in found:
            raise DataError(
                f"'{folder}' has two recordings named '{name}': '{found[name]}' and '{path}'", "keep one of them"
            )
        found[name] = path
    return found


def missing_recording(root: Path, name: str) -> DataError:
    """The error for an utterance that metadata.csv names and wavs/ lacks."""
    return DataError(
        f"'{root / 'wavs' / name}.wav' is missing, but metadata.csv names '{name}'",
        f"restore it (or {', '.join(AUDIO_SUFFIXES[1:4])}, also in a subfolder of wavs), or remove its line",
    )
