"""Words with more than one reading: 'they record a record', 'a lead pipe', 'they live here'.

What a word is in its sentence (noun, verb, adjective, past) decides by the table `heteronyms.txt`; a few have several
readings as the same part of speech, which words nearby decide (`senses.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rlzoo.speech.text.lexicon import Phones, sibilant_ending

_HABIT = frozenset(str.split("every daily often usually always lot"))
THIRD_PERSON = frozenset(str.split("he she it"))
_IRREGULAR = frozenset(("houses", "mouths", "uses", "lives", "winds", "deserts"))  # their plurals follow no rule


@cache
def table() -> dict[str, dict[str, Phones]]:
    """{word: {class: phones}} of `heteronyms.txt`."""
    readings: dict[str, dict[str, Phones]] = {}
    for line in Path(__file__).with_name("heteronyms.txt").read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            word, *parts = line.split(" | ")
            readings[word] = {part[0]: tuple(part[2:].split()) for part in parts}
    return readings


class Sense(NamedTuple):
    """A reading that words nearby tell: of this word as one of these classes, where the sentence matches."""

    word: str
    classes: str
    phones: Phones
    tells: re.Pattern[str]


@cache
def senses() -> list[Sense]:
    """The entries of `senses.txt`, in their order."""
    entries: list[tuple[str, list[str]]] = []
    for line in Path(__file__).with_name("senses.txt").read_text(encoding="ascii").splitlines():
        if line.startswith(" "):
            entries[-1][1].append(line.strip())
        elif line and not line.startswith("#"):
            entries.append((line, []))
    found = []
    for head, alternatives in entries:
        word, classes, phones = head.split(" | ")
        tells = re.compile(rf"(?:^| )(?:{'|'.join(alternatives)})(?: |$)")
        found.append(Sense(word, classes, tuple(phones.split()), tells))
    return found


@cache
def readings_of(word: str) -> Mapping[str, Phones]:
    """{class: phones} of a word or of what it is the plural or the third person of; empty for other words."""
    if word in table():
        return table()[word]
    if word.endswith("s") and word[:-1] in table() and word not in _IRREGULAR:
        base = table()[word[:-1]]
        return {kind: (*phones, *sibilant_ending(list(phones))) for kind, phones in base.items()}
    return {}


def class_of(tag: str) -> str:
    """'VBD' -> 'P', 'NNS' -> 'N', 'VB' -> 'V', 'JJ' -> 'J'; empty for other tags."""
    return "P" if tag in ("VBD", "VBN") else {"N": "N", "V": "V", "J": "J", "R": "J"}.get(tag[:1], "")


_INSTEAD = {"P": "VJN", "V": "PJN", "N": "JV", "J": "NPV", "": ""}


def choose(words: Sequence[str], place: int, tag: str) -> Phones:
    """Phones of the heteronym `words[place]`, which is tagged `tag`."""
    word, kind = words[place], class_of(tag)
    readings = readings_of(word)
    sentence = " ".join("_" if index == place else other for index, other in enumerate(words))
    for sense in senses():
        if sense.word == word and (kind or "N") in sense.classes and sense.tells.search(sentence):
            return sense.phones
    if "P" in readings and kind in "VP" and words[max(0, place - 1)] != "to":
        # 'have you read it', but 'they read every day': the tagger sees two words to each side.
        if any(re.fullmatch("(ha(ve|s|d)|having)(n't)?|.*'ve", before) for before in words[max(0, place - 3) : place]):
            kind = "P"
        elif _HABIT & {*words[max(0, place - 1) : place + 4]} and not THIRD_PERSON & {*words[:place]}:
            kind = "V"
    for other in kind + _INSTEAD[kind]:
        if other in readings:
            return readings[other]
    return next(iter(readings.values()))
