"""English text -> ARPAbet phones. Offline; imports no torch.

Words are looked up in the CMU dictionary; inflections of known words follow rules; the rest goes to a letter-to-sound
model (`letters.py`). Two styles of output:

* `cmu`: the dictionary as it is, pauses are `sp`. What the public checkpoint of WaveGrad 2 was trained on.
* `flite`: the habits of the synthesiser flite, whose speech the shipped voice learnt from: no stress but for the schwa
  `AH0`, weak forms of function words, its own choice of reduced vowels, `sil` for pauses and at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlzoo.errors import DataError
from rlzoo.speech.text import letters
from rlzoo.speech.text.lexicon import Lexicon, sibilant_ending
from rlzoo.speech.text.normalize import PAUSE, spoken
from rlzoo.speech.text.phones import VOWELS, phone_rows, strip_stress

if TYPE_CHECKING:
    from rlzoo.core.types import Prompt

Style = Literal["cmu", "flite"]


@cache
def shared_lexicon() -> Lexicon:
    """The dictionary, read once in a process (about 0.4 s)."""
    return Lexicon.load()


class TextFrontend:
    """Text to phones.

    Args:
        style: whose pronunciation habits to follow, see the module's docstring.
        stress: keep the stress digits of vowels; the default is what `style` was trained on.
        silence_ends: put `sil` at both ends; the default is what `style` was trained on.
    """

    def __init__(self, style: Style = "cmu", stress: bool | None = None, silence_ends: bool | None = None) -> None:
        self.style = style
        self.stress = style == "cmu" if stress is None else stress
        self.silence_ends = style == "flite" if silence_ends is None else silence_ends
        self._cache: dict[str, tuple[str, ...]] = {}

    def words(self, text: str) -> list[str]:
        """'Dr. No, 1962' -> ['doctor', 'no', ',', 'nineteen', 'sixty', 'two'], ',' being a pause.

        Raises:
            DataError: nothing in `text` can be spoken.
        """
        words = spoken(text, shared_lexicon().__contains__) if any(char.isalnum() for char in text) else []
        if not any(word != PAUSE for word in words):
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise DataError(f"nothing to say in {shown!r}: it has no letter and no digit", "write at least one word")
        return words

    def say(self, text: str) -> str:
        """'Dr. No, 1962' -> 'doctor no nineteen sixty two'. DataError: nothing in `text` can be spoken."""
        return " ".join(word for word in self.words(text) if word != PAUSE)

    def rows(self, prompt: Prompt, rows: Mapping[str, int]) -> list[int]:
        """`phone_rows` of the prompt's attribute "phones", where it has any, else of its text.

        Raises:
            DataError: nothing to say, or a phone that there is not; it names the prompt.
        """
        spelled = str(prompt.attributes.get("phones", "")).split()
        try:
            return phone_rows(spelled or self.phones(prompt.text), rows)
        except DataError as error:
            raise DataError(f"prompt '{prompt.id}': {error.message}", error.hint) from error

    def phones(self, text: str) -> list[str]:
        """'Hello, Bob.' -> ['HH', 'AH0', 'L', 'OW1', 'sp', 'B', 'AA1', 'B', 'sp'].

        Raises:
            DataError: nothing in `text` can be spoken.
        """
        words = self.words(text)
        pause = "sil" if self.style == "flite" else "sp"
        phones: list[str] = []
        for pronounced in self.pronunciations(words):
            phones += pronounced or (pause,)
        if self.silence_ends:
            # A pause at the end is that silence already.
            phones = ["sil", *(phones[:-1] if phones[-1] == pause else phones), "sil"]
        return phones if self.stress else [strip_stress(phone) for phone in phones]

    def pronunciations(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """The phones of each of the `words` of a sentence, with stress; of a pause none."""
        following = [*words[1:], PAUSE]
        return [
            () if word == PAUSE else self._in_context(word, after) for word, after in zip(words, following, strict=True)
        ]

    def word_phones(self, word: str) -> tuple[str, ...]:
        """Phones of one lower-case word, with stress, out of context."""
        if word not in self._cache:
            self._cache[word] = tuple(self._pronounce(word))
        return self._cache[word]

    def _in_context(self, word: str, following: str) -> tuple[str, ...]:
        if word == "the" and following != PAUSE and self.word_phones(following)[0].rstrip("012") in VOWELS:
            return ("DH", "IY0")
        return self.word_phones(word)

    def _pronounce(self, word: str) -> list[str]:
        if self.style == "flite" and word in (exceptions := flite_exceptions()):
            return list(exceptions[word])
        if self.style == "flite" and word.endswith("'s") and word[:-2] in flite_exceptions():
            base = list(flite_exceptions()[word[:-2]])
            return base + sibilant_ending(base)
        found = shared_lexicon().lookup(word)
        return guess(word) if found is None else found


def guess(word: str) -> list[str]:
    """Phones of a word that no dictionary has; an ending that the dictionary's rules know is taken off first."""
    if word.endswith("'s"):
        base = guess(word[:-2])
        return base + sibilant_ending(base)
    # 'html' is no syllable: its letters are named.
    sounded = letters.shipped().phones(word) if re.search("[aeiouy]", word) else []
    return sounded or [phone for letter in word if letter.isalpha() for phone in _letter(letter)]


def _letter(letter: str) -> list[str]:
    return shared_lexicon().lookup(letter + ".") or []


@cache
def flite_exceptions() -> dict[str, tuple[str, ...]]:
    """Words that flite speaks unlike the dictionary, from `flite.txt`: 'word PHONE PHONE ...' a line."""
    lines = Path(__file__).with_name("flite.txt").read_text(encoding="ascii").splitlines()
    rows = (re.split(r"\s+", line) for line in lines if line and not line.startswith("#"))
    return {word: tuple(phones) for word, *phones in rows}
