"""English text -> ARPAbet phones. Offline; imports no torch.

Words are looked up in the CMU dictionary; inflections of known words follow rules; the rest goes to a letter-to-sound
model (`letters.py`). Two styles of output:

* `cmu`: the dictionary as it is, pauses are `sp`. The voices that ship and the public WaveGrad 2 learnt it.
* `flite`: the habits of the synthesiser flite, for voices that learn from its speech: no stress but for the schwa
  `AH0`, weak forms of function words, its own choice of reduced vowels, `sil` for pauses and at both ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlzoo.errors import DataError
from rlzoo.speech.text import clauses, heteronyms, letters, scripts, tagger
from rlzoo.speech.text.lexicon import Lexicon, sibilant_ending
from rlzoo.speech.text.normalize import spoken
from rlzoo.speech.text.phones import KNOWN, VOWELS, nearest, phone_rows, strip_stress
from rlzoo.speech.text.signs import PAUSE

if TYPE_CHECKING:
    from rlzoo.core.types import Prompt

Style = Literal["cmu", "flite"]


@cache
def shared_lexicon() -> Lexicon:
    """The dictionary, read once in a process (about 0.4 s)."""
    return Lexicon.load()


def _is_word(word: str) -> bool:
    """Whether capitals are read as a word: those of 'BBC' are named, though the dictionary has them."""
    return word in shared_lexicon() and not shared_lexicon().is_initialism(word)


def transcript(text: str) -> str:
    """Words of `text` as a listener would write them: 'Dr. No, 7pm, IBM' -> 'doctor no seven pm ibm'.

    For comparing texts: the same words in, however they are written. Names of letters in a row are one word, for
    recognisers write 'TV', 'T V' and 'tv'. Empty if nothing is spoken.
    """
    words: list[str] = []
    after_letter = False
    for word in spoken(text, _is_word):
        if word == PAUSE:
            continue
        plain = word.replace(".", "")
        letter = len(plain.removesuffix("'s")) == 1
        if letter and after_letter:
            words[-1] += plain
        else:
            words.append(plain)
        after_letter = letter
    return " ".join(words)


class TextFrontend:
    """Text to phones.

    Args:
        style: whose pronunciation habits to follow, see the module's docstring.
        stress: keep the stress digits of vowels; the default is what `style` was trained on.
        silence_ends: put `sil` at both ends; False: no pause at either end. None is what `style` was trained on: as
            True for `flite`; for `cmu` a pause where a text ends in a full stop.
        learnt: the phones that a voice was trained on, as its card lists or counts them; empty: all. Others are never
            spoken: they become what they differ from by stress alone, or are refused.
    """

    def __init__(
        self,
        style: Style = "cmu",
        stress: bool | None = None,
        silence_ends: bool | None = None,
        learnt: Iterable[str] = (),
    ) -> None:
        self.style = style
        self.stress = style == "cmu" if stress is None else stress
        self.silence_ends = True if silence_ends is None and style == "flite" else silence_ends
        self.learnt = frozenset(learnt)
        self._cache: dict[str, tuple[str, ...]] = {}

    def words(self, text: str) -> list[str]:
        """'Dr. No, 1962' -> ['doctor', 'no', ',', 'nineteen', 'sixty', 'two'], ',' being a pause.

        Raises:
            DataError: nothing in `text` can be spoken, or it is in a script that is not read.
        """
        shown = text if len(text) <= 60 else text[:57] + "..."
        if strange := scripts.unreadable(text):
            raise DataError(
                f"cannot read {shown!r}: {strange}",
                "write it as English is written, or spell it with the attribute `phones`",
            )
        words = spoken(text, _is_word)
        if not any(word != PAUSE for word in words):
            raise DataError(f"nothing to say in {shown!r}: it has no letter and no digit", "write at least one word")
        return words

    def say(self, text: str) -> str:
        """'Dr. No, 1962' -> 'doctor no nineteen sixty two'; letters that are named are 'b.', as in 'b. b. c.'.

        Raises:
            DataError: as `words`.
        """
        return " ".join(word for word in self.words(text) if word != PAUSE)

    def rows(self, prompt: Prompt, rows: Mapping[str, int]) -> list[int]:
        """`phone_rows` of the prompt's attribute "phones", where it has any, else of its text.

        Raises:
            DataError: nothing to say, or a phone that there is not; it names the prompt.
        """
        spelled = str(prompt.attributes.get("phones", "")).split()
        try:
            return phone_rows(self.speakable(spelled or self.phones(prompt.text), prompt.text), rows)
        except DataError as error:
            raise DataError(f"prompt '{prompt.id}': {error.message}", error.hint) from error

    def speakable(self, phones: Sequence[str], text: str = "") -> list[str]:
        """`phones` as far as the voice has learnt them: 'OY2' as 'OY1' where it has heard that only.

        Raises:
            DataError: a phone that it has not learnt with any stress; it names the words of `text` with it.
        """
        found = {phone: nearest(phone, self.learnt) for phone in set(phones)} if self.learnt else {}
        if lacking := sorted(phone for phone, instead in found.items() if instead is None and phone in KNOWN):
            raise DataError(
                f"this voice never learnt the phone(s) {', '.join(lacking)}{self._where(lacking, text)}",
                "train it on recordings with such words (rlzoo corpus check DIR counts phones), or use other words",
            )
        return [found.get(phone) or phone for phone in phones]

    def _where(self, lacking: Sequence[str], text: str) -> str:
        words = self.words(text) if text else []
        sounds = self.pronunciations(words)
        having = [
            w
            for w, sound in zip(words, sounds, strict=True)
            if {strip_stress(p) for p in lacking} & {strip_stress(p) for p in sound}
        ]
        return f", as in '{having[0]}'" if having else ""

    def phones(self, text: str) -> list[str]:
        """'Hello, Bob.' -> ['HH', 'AH0', 'L', 'OW1', 'sp', 'B', 'AA1', 'B', 'sp'].

        Raises:
            DataError: nothing in `text` can be spoken, or it is in a script that is not read.
        """
        words = self.words(text)
        pause = "sil" if self.style == "flite" else "sp"
        phones: list[str] = []
        for word, sound in zip(words, self.pronunciations(words), strict=True):
            phones += [pause] if word == PAUSE else sound
        if self.silence_ends is not None and phones[-1] == pause:
            phones.pop()
        if self.silence_ends:
            phones = ["sil", *phones, "sil"]
        return phones if self.stress else [strip_stress(phone) for phone in phones]

    def guesses(self, word: str) -> bool:
        """True if letter-to-sound rules pronounce the word, because no dictionary has it or a form of it."""
        return not (self.style == "flite" and word in flite_exceptions()) and shared_lexicon().lookup(word) is None

    def word_phones(self, word: str) -> tuple[str, ...]:
        """Phones of one lower-case word, with stress, out of context."""
        if word not in self._cache:
            self._cache[word] = tuple(self._pronounce(word))
        return self._cache[word]

    def pronunciations(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        """['the', 'object', PAUSE] -> the phones of each word, with stress, as it sounds among the others; a pause has
        none."""
        sounds = [() if word == PAUSE else self.word_phones(word) for word in words]
        if any(map(heteronyms.readings_of, words)):
            for place, tag in enumerate(clauses.mend(words, tagger.shipped().tag(words))):
                if heteronyms.readings_of(words[place]):
                    sounds[place] = heteronyms.choose(words, place, tag)
        for place, after in enumerate(sounds[1:]):
            if words[place] == "the" and after and after[0].rstrip("012") in VOWELS:
                sounds[place] = ("DH", "IY0")
        return sounds

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
    # 'html' is not a syllable: its letters are named.
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
