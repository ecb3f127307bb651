"""Text as F5-TTS reads it: characters, and pinyin syllables for Chinese, as rows of its vocabulary."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.errors import ConfigError, DataError, PluginError

LARGEST = 4 << 20
"""Bytes of the longest vocabulary file that is read."""
_PLAIN = str.maketrans({";": ",", "“": '"', "”": '"', "‘": "'", "’": "'"})
# How jieba's Rust port, which the published code asks, cuts text without Chinese: three words of its dictionary, words
# and numbers with single . - _ inside, runs of + # & . _ % -, and every other character by itself.
_PIECES = re.compile(r"[cC](?:\+\+|#)|AT&T|[a-zA-Z0-9]+(?:[._\-][a-zA-Z0-9]+)*%?|[+#&._%\-]+|.", re.DOTALL)


def read_vocabulary(path: Path) -> dict[str, int]:
    """vocab.txt -> {entry: row}. DataError if it is missing, no text, too long, or does not begin with a space."""
    hint = "give the vocab.txt that came with the checkpoint"
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"'{path}' is larger than any vocabulary ({LARGEST:,} bytes)", hint)
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(f"cannot read the vocabulary '{path}': {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise DataError(f"the vocabulary '{path}' is not UTF-8 text", hint) from error
    rows = {entry: row for row, entry in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    if rows.get(" ") != 0:
        raise DataError(f"the vocabulary '{path}' does not begin with a space, which row 0 has to be", hint)
    return rows


def to_tokens(text: str) -> list[str]:
    """Text -> characters, and a syllable with its tone for each Chinese character. PluginError without the extra.

    Words get the spaces that are missing between them and what stands before them.
    """
    text = text.translate(_PLAIN)
    if not text.isascii():
        return _foreign(text)
    tokens: list[str] = []
    for piece in _PIECES.findall(text):
        if len(piece) > 1 and tokens and tokens[-1] not in " :'\"":
            tokens.append(" ")
        tokens.extend(piece)
    return tokens


def _foreign(text: str) -> list[str]:
    try:
        import rjieba
        from pypinyin import Style, lazy_pinyin
    except ImportError as error:
        raise PluginError(
            f"'{text[:40]}' has letters beyond ASCII, for which f5tts needs pypinyin and rjieba ({error})",
            "pip install 'rlzoo-speech[f5tts]'",
        ) from error
    tokens: list[str] = []
    for piece in rjieba.cut(text):
        size = len(piece.encode())
        if size == len(piece):
            if tokens and size > 1 and tokens[-1] not in " :'\"":
                tokens.append(" ")
            tokens.extend(piece)
            continue
        # Whole words, so that a character that is read in several ways gets the right one.
        together = size == 3 * len(piece)
        syllables = lazy_pinyin(piece, style=Style.TONE3, tone_sandhi=True) if together else []
        for place, char in enumerate(piece):
            if is_chinese(char):
                tokens += [
                    " ",
                    *(syllables[place : place + 1] or lazy_pinyin(char, style=Style.TONE3, tone_sandhi=True)),
                ]
            else:
                tokens.append(syllables[place] if together else char)
    return tokens


def is_chinese(char: str) -> bool:
    """True if a character is one of the common Chinese ones (or of their neighbours in Unicode)."""
    return "\u3100" <= char <= "\u9fff"


def to_rows(text: str, vocabulary: dict[str, int]) -> Tensor:
    """Text -> (P,) int64 rows of the embedding, 1 for the first entry of the vocabulary (0 is the filler).

    What the vocabulary lacks is read as a space, as the published code does; ConfigError if nothing is left.
    """
    tokens = to_tokens(text)
    if not any(token in vocabulary and token.strip() for token in tokens):
        raise ConfigError(f"nothing of '{text[:60]}' is in the model's vocabulary", "use the model's language")
    return torch.tensor([vocabulary.get(token, 0) + 1 for token in tokens])


def as_reference(text: str) -> str:
    """A reference's text as F5-TTS's tools write it before the new text: a full stop and spaces at its end."""
    if not text.endswith((". ", "。")):
        text += " " if text.endswith(".") else ". "
    return text if len(text[-1].encode()) > 1 else text + " "
