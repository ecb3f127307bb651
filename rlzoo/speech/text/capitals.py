"""Tokens to words: which capitals are read as a word and which are spelled out."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlzoo.speech.text.signs import PAUSE, SHORT_WORDS, SPELLED, SPELLED_CAPITALS

_LETTER_NAMES = frozenset("abcdefghijklmnopqrstuvwxyz")
_ONSET = re.compile(
    "[bcfgkps]l|[bcdfgkptw]r|[cghkprstw]h|[sp]?qu?|s[cklmnpqtvw]|[dt]w|kn|gn|ps|s(?:ch|cr|hr|pl|pr|tr)|thr"
)
_CODA = re.compile(
    "(.)\\1|[cflnprs]t|[lnr][dkcst]?|[lr][bfgkmpn]|mp|n[gk]|s[ckmp]|[cgpst]h|ck|ct|dge?|[lnr](?:th|ch)|tch|rst"
)


def words_of(token: str, known: Callable[[str], bool], shouting: bool) -> list[str]:
    """'McDonald' -> mcdonald, 'iPhone' -> i phone, 'GPU' -> g. p. u., '...' -> a pause; `known` as of `spoken`."""
    if token.endswith("_") and token[0].isalpha():
        return [token[0].lower() + "."]
    if not token[0].isalpha() and token[0] != "'":
        return [PAUSE] if re.search(r"[,.;:!?()\[\]-]", token) else []
    word = token if known(token.lower()) else token.strip("'")
    if not word:
        return []
    if _is_spelled(word, known, shouting):
        return _spell(word)
    if re.fullmatch("(?:Ma?c|Fitz|Di|De|Du|La|Le)[A-Z][a-z']+", word):
        return [word.lower()]
    parts = re.findall(r"[A-Z]+(?![a-z'])|[A-Z]?[a-z']+|[A-Z]", word)
    if len(parts) > 1 and not (shouting or known(word.lower()) or re.sub("'?s$", "", word).isupper()):
        return [w for part in parts for w in words_of(part, known, shouting)]
    return [word.lower()]


def _is_spelled(word: str, known: Callable[[str], bool], shouting: bool) -> bool:
    """True if a word is read letter by letter: two capitals, more that are not a word, and some known ones."""
    letters = re.sub("'?s$", "", word)
    if letters.lower() in SPELLED:
        return True
    if shouting or len(letters) < 2 or not letters.isupper():
        return False
    if len(letters) == 2:
        return letters.lower() not in SHORT_WORDS
    if letters in SPELLED_CAPITALS:
        return True
    return not known(letters.lower()) and (len(letters) == 3 or not _pronounceable(letters.lower()))


def _pronounceable(word: str) -> bool:
    """True if the mouth can begin and end the word: 'opec' and 'scuba', but not 'tgif', 'lapd' and 'hdmi'."""
    if not re.search("[aeiouy]", word) or len(word) > 5:
        return bool(re.search("[aeiouy]", word))
    begins, ends = re.match("[^aeiouy]*", word), re.search("[^aeiouy]*$", word)
    onset, coda = begins[0] if begins else "", (ends[0] if ends else "").removesuffix("s")
    return (len(onset) < 2 or bool(_ONSET.fullmatch(onset))) and (len(coda) < 2 or bool(_CODA.fullmatch(coda)))


def _spell(word: str) -> list[str]:
    letters, ending = re.fullmatch("(.*?)('?s)?", word).groups()  # type: ignore[union-attr]
    names = [letter.lower() + "." for letter in letters if letter.lower() in _LETTER_NAMES]
    return [*names[:-1], names[-1] + "'s"] if ending else names
