"""Unicode to ASCII, so that rules see one spelling of each sign: entities, accents, Greek, superscripts, pictures."""

from __future__ import annotations

import html
import re
import unicodedata

from anyascii import anyascii

from rlzoo.speech.text import numerals
from rlzoo.speech.text.context import Match
from rlzoo.speech.text.signs import GREEK, SIGNS

_SIGNS = str.maketrans(SIGNS)


def fold(text: str) -> str:
    """ASCII only: entities, signs, letters with accents and of other alphabets; pictures are left out."""
    text = unicodedata.normalize("NFC", html.unescape(text)).replace("_", " ")
    text = re.sub(r"</?[a-zA-Z][^<>]{0,80}>", " ", text)
    text = (
        re.sub(r"(^|[\s(])[–—](?=[$€£]?\d)", lambda m: m[1] + "-", text) if not re.search(r"\d\s[–—]\d", text) else text
    )
    text = re.sub(r"(?<=[\w)])[⁻⁺]?[⁰¹²³⁴-⁹]+", lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = re.sub("[¼-¾⅐-⅞↉]", lambda m: f" {unicodedata.normalize('NFKC', m[0])} ", text)
    text = re.sub(r"(?<=\d)(\s?)[–—](\s?)(?=[$€£]?\d)|(?<=[\w.])–(?=\w)", lambda m: f"{m[1] or ''}-{m[2] or ''}", text)
    text = re.sub("[\u2160-\u2188]+", _number_letter, text)
    text = re.sub(r"(?<=\d)\s?·\s?(?=\d)", " * ", re.sub(r"\bN[ºª]\.?\s?(?=\d)", "No. ", text))
    text = text.translate(_SIGNS)
    text = re.sub(r"(?<=\d)(\s?)μ(?=[a-zA-Z]\b)", r"\1u", text)
    # One Greek letter alone is a symbol, several are a word.
    text = re.sub(r"(?<![^\W\d_])(?![A-Za-z])[Α-Ωα-ω](?![^\W\d_])|(?<!\w)[Α-Ωα-ω](?=[a-z]\b)", _greek, text)
    # Emoji and other pictures have no reading; anyascii would name them.
    text = "".join(
        " "
        if char != "^" and unicodedata.category(char) in ("So", "Sk", "Cc", "Cf") and not _is_written(char)
        else char
        for char in text
    )
    return anyascii(unicodedata.normalize("NFKC", text))


def _is_written(char: str) -> bool:
    """True of a sign made of letters or digits: '㎏' is 'kg'."""
    letters = unicodedata.normalize("NFKC", char)
    return letters.isascii() and letters.isalnum()


def _number_letter(match: Match) -> str:
    """'Ⅳ' -> 'IV' behind a name, where a rule for its numeral comes, else '4'."""
    letters = unicodedata.normalize("NFKC", match[0])
    value = numerals.roman(letters)
    named = re.search(r"[A-Z][a-z]+ $", match.string[: match.start()])
    return letters if value is None or named else f" {value} "


def _greek(match: Match) -> str:
    if match[0] == "Ω" and re.search(r"\d\s?k?$", match.string[: match.start()]):
        return " ohms "
    return f" {GREEK[match[0].lower()]} "
