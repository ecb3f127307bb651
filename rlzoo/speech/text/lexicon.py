"""Pronunciations of English words: the CMU dictionary, and inflections of the words in it.

The dictionary (133,854 entries, BSD licence) is read from the data file of the MIT-licensed distribution 'Phyme'; none
of its code is imported.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rlzoo.errors import PluginError

Phones = tuple[str, ...]

_VOICELESS = frozenset(("P", "T", "K", "F", "TH"))
_SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_CLITICS: Mapping[str, tuple[str, ...]] = {
    "'ll": ("AH0", "L"),
    "'ve": ("V",),
    "'re": ("ER0",),
    "'d": ("D",),
    "'m": ("M",),
    "n't": ("AH0", "N", "T"),
}
# Spellings that the American dictionary has another way; no right side matches a left side again.
_BRITISH = (
    ("is(e|es|ed|er|ers|ing|ation|ations)$", r"iz\1"),
    ("ys(e|es|ed|er|ers|ing)$", r"yz\1"),
    ("our", "or"),
    ("ll(ed|er|ers|ing)$", r"l\1"),
    ("tre(s?)$", r"ter\1"),
    ("ence(s?)$", r"ense\1"),
    ("ogue(s?)$", r"og\1"),
)


class Lexicon:
    """Word (lower case, apostrophes allowed) -> ARPAbet phones with stress digits."""

    def __init__(self, words: Mapping[str, tuple[str, ...]]) -> None:
        self._words = words

    @classmethod
    def load(cls) -> Lexicon:
        """Read the installed dictionary.

        Raises:
            PluginError: the distribution that holds it is not installed.
        """
        # find_spec locates a top-level package without running any of it.
        spec = importlib.util.find_spec("Phyme")
        if spec is None or not spec.submodule_search_locations:
            raise PluginError("the pronouncing dictionary is not installed", "run `pip install Phyme`")
        path = Path(spec.submodule_search_locations[0]) / "data" / "word_phone.json"
        raw = json.loads(path.read_text(encoding="utf-8"))
        words = {word.lower(): tuple(phones) for word, phones in raw.items()}
        lines = Path(__file__).with_name("addenda.txt").read_text(encoding="ascii").splitlines()
        rows = (line.split() for line in lines if line and not line.startswith("#"))
        return cls(words | {word: tuple(phones) for word, *phones in rows})

    def entries(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every entry, alternatives written 'word(1)'."""
        return iter(self._words.items())

    def __contains__(self, word: str) -> bool:
        return word in self._words

    def is_initialism(self, word: str) -> bool:
        """Whether the dictionary has the names of its letters for it: 'bbc', 'irs'."""
        sound = [phone.rstrip("012") for phone in self._words.get(word, ())]
        named = [phone.rstrip("012") for letter in word for phone in self._words.get(letter + ".", ())]
        return len(word) < 7 and bool(sound) and sound == named

    def variants(self, word: str) -> list[Phones]:
        """All pronunciations that the dictionary has of `word`; none for other words."""
        names = (word, *(f"{word}({number})" for number in range(1, 6)))
        return [self._words[name] for name in names if name in self._words]

    def lookup(self, word: str) -> list[str] | None:
        """Phones of `word` or of the known word that it is an inflection of; None for an unknown word."""
        if word in self._words:
            return list(self._words[word])
        made = self._clitic(word) or self._plural(word) or self._past(word) or self._suffixed(word)
        return made or self._british(word)

    def _clitic(self, word: str) -> list[str] | None:
        for ending, phones in _CLITICS.items():
            if word.endswith(ending) and (base := self.lookup(word.removesuffix(ending))):
                return [*base, *phones]
        if word.endswith("'s") and (base := self.lookup(word[:-2])):
            return base + sibilant_ending(base)
        if word.endswith("s'"):
            return self.lookup(word[:-1])
        if word.startswith("'") or word.endswith("'"):
            return self.lookup(word.strip("'")) if word.strip("'") else None
        return None

    def _plural(self, word: str) -> list[str] | None:
        stems = []
        if word.endswith("ies"):
            stems.append(word[:-3] + "y")
        if word.endswith("es"):
            stems.append(word[:-2])
        if word.endswith("s") and not word.endswith("ss"):
            stems.insert(0, word[:-1])
        base = self._first(stems)
        return base + sibilant_ending(base) if base else None

    def _past(self, word: str) -> list[str] | None:
        if not word.endswith("ed"):
            return None
        base = self._first(_verb_stems(word[:-2]))
        if base is None:
            return None
        if base[-1] in ("T", "D"):
            return [*base, "IH0", "D"]
        return [*base, "T" if base[-1] in _VOICELESS | {"S", "SH", "CH"} else "D"]

    def _suffixed(self, word: str) -> list[str] | None:
        verbs = {"ing": ("IH0", "NG"), "ings": ("IH0", "NG", "Z"), "er": ("ER0",), "ers": ("ER0", "Z")}
        for ending, phones in verbs.items():
            if word.endswith(ending) and (base := self._first(_verb_stems(word.removesuffix(ending)))):
                return [*base, *phones]
        others = {"ly": ("L", "IY0"), "ness": ("N", "AH0", "S"), "less": ("L", "AH0", "S"), "like": ("L", "AY2", "K")}
        for ending, phones in others.items():
            if (
                word.endswith(ending)
                and len(word) > len(ending) + 2
                and (base := self._first([word.removesuffix(ending)]))
            ):
                # 'full' + 'ly' has one L.
                return [*(base[:-1] if base[-1] == phones[0] == "L" else base), *phones]
        return None

    def _british(self, word: str) -> list[str] | None:
        spellings = [re.sub(british, american, word) for british, american in _BRITISH if re.search(british, word)]
        return next((found for spelling in spellings if (found := self.lookup(spelling))), None)

    def _first(self, stems: list[str]) -> list[str] | None:
        return next((list(self._words[stem]) for stem in stems if len(stem) > 2 and stem in self._words), None)


def sibilant_ending(phones: list[str]) -> list[str]:
    """The sound of a plural or possessive 's' after `phones`."""
    if phones[-1] in _SIBILANTS:
        return ["IH0", "Z"]
    return ["S"] if phones[-1] in _VOICELESS else ["Z"]


def _verb_stems(rest: str) -> list[str]:
    """Spellings whose -ed or -ing form begins with `rest`: 'hop(ped)' -> 'hopp', 'hoppe', 'hop'; 'tri(ed)' -> 'try'."""
    stems = [rest + "e", rest]
    if rest.endswith("i"):
        stems.append(rest[:-1] + "y")
    if len(rest) > 3 and rest[-1] == rest[-2]:
        stems.append(rest[:-1])
    return stems
