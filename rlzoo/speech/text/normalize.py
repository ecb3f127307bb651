"""Written English to spoken words: numbers, dates, times, money, units, abbreviations, acronyms, symbols.

`spoken(text)` returns lower-case words with PAUSE where punctuation asks for one. Nothing here knows phones, but the
caller says which words are in its dictionary, because capitals spell out only what cannot be read as a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rlzoo.speech.text.capitals import words_of
from rlzoo.speech.text.folding import fold
from rlzoo.speech.text.rules import NAMES, NUMBERS, WORDS
from rlzoo.speech.text.signs import PAUSE


def spoken(text: str, known: Callable[[str], bool] = lambda word: False) -> list[str]:
    """'Dr. Lee paid $3.50.' -> ['doctor', 'lee', 'paid', 'three', 'dollars', 'and', 'fifty', 'cents', PAUSE].

    Args:
        known: whether a lower-case word is in the dictionary; decides about capitals ('NASA' is read, 'GPU' spelled).
    """
    folded = fold(text)
    # A text all in capitals is read as words; a lone acronym is not such a text.
    shouting = not re.search("[a-z]", folded) and len(re.findall("[A-Z]{2,}", text)) > 2
    for rules in (NAMES, NUMBERS, WORDS):
        if rules is not NUMBERS or re.search(r"\d", folded):
            for pattern, replace in rules:
                folded = pattern.sub(replace, folded)
    words: list[str] = []
    for token in re.findall(r"[A-Z]_|[A-Za-z']+|[^\sA-Za-z\d']+", folded):
        words += words_of(token, known, shouting)
    return _collapse(words)


def _collapse(words: list[str]) -> list[str]:
    """No pause at the start, none twice in a row."""
    kept: list[str] = []
    for word in words:
        if word != PAUSE or (kept and kept[-1] != PAUSE):
            kept.append(word)
    return kept
