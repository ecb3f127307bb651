"""Scripts that the front end reads: Latin, Greek and Cyrillic. It refuses others, which it would misread."""

from __future__ import annotations

import unicodedata

_READ = frozenset(
    ("LATIN", "GREEK", "CYRILLIC", "MICRO", "OHM", "KELVIN", "ANGSTROM", "MODIFIER", "FEMININE", "MASCULINE")
)
_LANGUAGES = {
    "CJK": "Chinese or Japanese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "KATAKANA-HIRAGANA": "Japanese",
    "IDEOGRAPHIC": "Japanese", "HANGUL": "Korean", "DEVANAGARI": "Hindi (Devanagari)",
}  # fmt: skip


def unreadable(text: str) -> str:
    """'Go to 北京' -> "'北京' is Chinese or Japanese"; empty if all can be read.

    Vowels that a script leaves out, and readings that a character has several of, cannot be guessed.
    """
    for place, char in enumerate(text):
        if not unicodedata.category(char).startswith("L") or char.isascii():
            continue
        script = _script(char)
        if script in _READ or not script:
            continue
        end = place
        while end < len(text) and _script(text[end]) == script:
            end += 1
        return f"'{text[place : min(end, place + 20)]}' is {_LANGUAGES.get(script, script.capitalize())}"
    return ""


def _script(char: str) -> str:
    """First word of the character's name without compatibility forms; empty for marks, digits and mathematics."""
    name = unicodedata.name(unicodedata.normalize("NFKC", char)[:1], "")
    return name.partition(" ")[0] if unicodedata.category(char)[0] in "LM" else ""
