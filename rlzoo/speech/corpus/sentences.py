"""Sentences to speak, from a small grammar and a wide vocabulary of our own: a corpus text anybody can make again.

The same seed gives the same sentences on every machine and Python version: only `random.Random.random` is used, whose
sequence Python guarantees. Words of one list come off a shuffled deck, so that rare words occur as often as common
ones; that, and not meaning, is what a voice needs.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from rlzoo.errors import DataError

_VOCABULARY = Path(__file__).with_name("vocabulary.txt")
_SLOT = re.compile(r"\{([a-z]+)(?::([a-z]+))?\}")
_LONGEST = 120  # characters: about 8 s; longer utterances only cost memory in training

# A slot {name} is a rule below or a list of the vocabulary; {transitive:past} and {thing:many} ask for an inflection.
# The number in front is the relative weight of the alternative.
_RULES: Mapping[str, Sequence[tuple[int, str]]] = {
    "sentence": (
        (10, "{np} {transitive:past} {object}."),
        (8, "{np} {transitive:past} {object} {when}."),
        (7, "{np} {intransitive:past} {manner} {preposition} the {place}."),
        (5, "{when}, {np} {intransitive:past}, and {np} {transitive:past} {object}."),
        (6, "{np} {transitive:past} {object} {preposition} the {adjective} {place}."),
        (5, "The {adjective} {thing} {preposition} the {place} belongs to {np}."),
        (5, "{np} will {manner} {transitive:base} {object} in {month}."),
        (5, "{np} never {transitive:third} {object} on {weekday}."),
        (4, "{np} was {mood} because {np} {transitive:past} {object}."),
        (4, "If {np} {transitive:third} {object}, {np} will be {mood}."),
        (4, "There are {number} {adjective} {thing:many} in the {place}."),
        (4, "{name} thinks that {abstract} is more {quality} than {abstract}."),
        (4, "We ate {food} and {food} {preposition} the {place}."),
        (4, "{name} said that {np} {intransitive:past} {manner}."),
        (4, "The {animal} and the {animal} {intransitive:past} {preposition} the {colour} {thing}."),
        (3, "{np} came from {city}, but {np} came from {country}."),
        (3, "My {ordinal} {thing} was {colour}, {adjective}, and {adjective}."),
        (3, "Neither the {person} nor the {person} could {transitive:base} the {thing}."),
        (3, "As soon as {np} {intransitive:past}, the {animal} {transitive:past} the {thing}."),
        (3, "{name} would rather {intransitive:base} than {transitive:base} {object}."),
        (3, "Although {np} was {mood}, nobody {transitive:past} {object}."),
        (3, "The {person} who {transitive:past} {object} was {mood} and {mood}."),
        (9, "{question}"),
        (6, "{order}"),
        (9, "{figures}"),
        (5, "{list}"),
        (6, "{brief}"),
    ),
    "question": (
        (4, "Did {np} {transitive:base} {object}?"),
        (3, "Why did {np} {intransitive:base} {preposition} the {place}?"),
        (3, "Where is {object}?"),
        (3, "Who {transitive:past} {object} {when}?"),
        (2, "How many {adjective} {thing:many} does {name} need?"),
        (2, "Which {thing} is {adjective}, the {colour} one or the {colour} one?"),
        (2, "Would you {transitive:base} {object} for {np}?"),
        (2, "Has {name} been to {city} or to {country}?"),
        (2, "Is the {person} {mood} or only {mood}?"),
        (2, "When will {np} {intransitive:base}?"),
        (2, "Do {animal:many} eat {food}?"),
        (1, "Isn't {abstract} a kind of {abstract}?"),
    ),
    "order": (
        (3, "Please {transitive:base} {object} {manner}."),
        (3, "{transitive:base} the {adjective} {thing} before you {intransitive:base}."),
        (2, "Don't {transitive:base} {object}!"),
        (2, "Let us {intransitive:base} {preposition} the {place}."),
        (2, "Never {transitive:base} {object} without {abstract}."),
        (1, "{intransitive:base} {manner}, {firstname}!"),
        (1, "Put {number} {thing:many} {preposition} the {thing}."),
    ),
    "figures": (
        (3, "The {place} was built in {year}."),
        (3, "{np} paid {price} for {object}."),
        (2, "The train to {city} leaves at {clock}."),
        (2, "{name} was born on {month} {day}, {year}."),
        (2, "About {percent} percent of the {thing:many} were {adjective}."),
        (2, "The {place} is {count} miles from {city}."),
        (2, "Chapter {small} describes the {ordinal} {thing}."),
        (1, "Call {name} in room {count} at {clock}."),
        (1, "The temperature in {city} was {small} degrees."),
        (1, "{np} counted {count} {animal:many} in {month}."),
    ),
    "list": (
        (3, "{name} packed {a}, {a}, and {a}."),
        (2, "The shop sells {food}, {food}, and {food}."),
        (2, "{name}, {name}, and {name} {intransitive:past} {manner}."),
        (2, "{colour}, {colour}, {colour}, and {colour}."),
        (1, "{animal:many}, {animal:many}, and {animal:many} live {preposition} the {place}."),
        (1, "First {abstract}, then {abstract}, and finally {abstract}."),
    ),
    "brief": (
        (8, "{short}"),
        (4, "{name} {intransitive:past}."),
        (3, "The {animal} {intransitive:past}."),
        (3, "{adjective} {thing:many}."),
        (2, "{food}, please."),
        (2, "{number} {colour} {thing:many}."),
        (2, "Ask {name}."),
        (1, "How {mood}!"),
        (1, "{manner} now!"),
    ),
    "np": (
        (4, "the {person}"),
        (3, "the {mood} {person}"),
        (4, "{name}"),
        (2, "{name}'s {animal}"),
        (2, "a {adjective} {animal}"),
        (1, "the {ordinal} {person}"),
        (1, "my {person}"),
        (1, "nobody"),
        (1, "everyone in {city}"),
    ),
    "object": (
        (4, "the {thing}"),
        (4, "the {adjective} {thing}"),
        (3, "{a}"),
        (3, "{number} {thing:many}"),
        (2, "{name}'s {colour} {thing}"),
        (2, "the {animal}"),
        (2, "our {adjective} {thing}"),
        (1, "the {thing} from {city}"),
        (1, "the {food}"),
    ),
    "a": ((2, "a {thing}"), (2, "a {adjective} {thing}"), (1, "a {colour} {thing}")),
    "name": ((5, "{firstname}"), (1, "{title} {surname}"), (1, "{firstname} {surname}")),
    "title": ((1, "Mister"), (1, "Doctor"), (1, "Professor"), (1, "Judge"), (1, "Captain"), (1, "Lady")),
    "quality": ((1, "important"), (1, "useful"), (1, "dangerous"), (1, "precious"), (1, "enjoyable"), (1, "unusual")),
}

_IRREGULAR = {
    "child": "children", "man": "men", "woman": "women", "fisherman": "fishermen", "mouse": "mice", "goose": "geese",
    "wolf": "wolves", "knife": "knives", "shelf": "shelves", "thief": "thieves", "sheep": "sheep", "deer": "deer",
    "moose": "moose", "salmon": "salmon", "trout": "trout", "scarf": "scarves",
    "ox": "oxen", "piano": "pianos", "photo": "photos", "hoof": "hooves",
}  # fmt: skip


def generate_sentences(count: int, seed: int = 0) -> list[str]:
    """`count` distinct English sentences of 1 to about 20 words, statements, questions, orders, lists and figures.

    A larger count with the same seed begins with the same sentences.

    Raises:
        DataError: `count` is not positive, or so large that the grammar runs dry.
    """
    if count < 1:
        raise DataError(f"cannot make {count} sentences", hint="ask for at least one")
    grammar = _Grammar(seed)
    sentences: dict[str, str] = {}
    tries = 0
    while len(sentences) < count:
        tries += 1
        if tries > 20 * count + 1000:
            raise DataError(f"the grammar ran dry after {len(sentences)} sentences", hint="ask for fewer")
        sentence = grammar.sentence()
        if len(sentence) <= _LONGEST:
            sentences.setdefault(sentence.lower(), sentence)
    return list(sentences.values())


@cache
def vocabulary() -> Mapping[str, tuple[str, ...]]:
    """The word lists: {name: entries}."""
    lists: dict[str, list[str]] = {}
    entries: list[str] | None = None
    for line in _VOCABULARY.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            entries = lists.setdefault(line[2:].strip(), [])
        elif entries is not None:
            entries += [entry.strip() for entry in line.split(",") if entry.strip()]
    return {name: tuple(dict.fromkeys(words)) for name, words in lists.items()}


def plural(noun: str) -> str:
    """'box' -> 'boxes', 'mouse' -> 'mice'; of a compound, the last word changes."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    return third_person(noun)


def third_person(verb: str) -> str:
    """'carry' -> 'carries', 'look for' -> 'looks for'; English plurals of regular nouns follow the same rule."""
    head, space, rest = verb.partition(" ") if verb.split(" ")[-1] in _PARTICLES else (verb, "", "")
    if re.search(r"[^aeiou]y$", head):
        head = head[:-1] + "ies"
    elif head.endswith(("s", "x", "z", "ch", "sh")):
        head += "es"
    else:
        head += "s"
    return head + space + rest


_PARTICLES = frozenset({"up", "down", "at", "for", "to", "over", "behind"})


class _Grammar:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._decks: dict[str, list[str]] = {}

    def sentence(self) -> str:
        text = self._expand("{sentence}")
        text = re.sub(r"\b([Aa]) (?=(\w+))", self._article, text)
        return text[0].upper() + text[1:]

    def _expand(self, text: str) -> str:
        return _SLOT.sub(lambda slot: self._fill(slot.group(1), slot.group(2)), text)

    def _fill(self, name: str, form: str | None) -> str:
        if name in _RULES:
            return self._expand(self._choose(_RULES[name]))
        if name in ("year", "price", "clock", "percent", "count", "small", "day"):
            return self._figure(name)
        word = self._draw(name)
        if form == "many":
            return plural(word)
        base, _, past = word.partition("/")
        return {"base": base, "past": past, "third": third_person(base), None: word}[form]

    def _choose(self, alternatives: Sequence[tuple[int, str]]) -> str:
        place = self._random.random() * sum(weight for weight, _ in alternatives)
        for weight, text in alternatives:
            place -= weight
            if place < 0:
                return text
        return alternatives[-1][1]

    def _draw(self, name: str) -> str:
        deck = self._decks.setdefault(name, [])
        if not deck:
            deck.extend(vocabulary()[name])
            for last in range(len(deck) - 1, 0, -1):
                other = self._below(last + 1)
                deck[last], deck[other] = deck[other], deck[last]
        return deck.pop()

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    def _figure(self, kind: str) -> str:
        if kind == "year":
            return str(1100 + self._below(930))
        if kind == "price":
            return f"{2 + self._below(998)} dollars"
        if kind == "clock":
            return f"{1 + self._below(12)}:{(5 * self._below(12)):02d}"
        if kind == "count":
            return str(self._below(900) + 11 if self._random.random() < 0.7 else 1000 * (1 + self._below(40)))
        return str(1 + self._below({"percent": 99, "small": 40, "day": 28}[kind]))

    @staticmethod
    def _article(match: re.Match[str]) -> str:
        """'a' -> 'an' before a vowel sound."""
        word = match.group(2).lower()
        vowel = word[0] in "aeiou" and not word.startswith(("uni", "use", "usu", "eu", "one", "once"))
        silent = word.startswith(("hour", "honest", "honour", "heir"))
        return match.group(1) + ("n " if vowel or silent else " ")
