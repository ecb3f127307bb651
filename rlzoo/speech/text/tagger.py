"""Parts of speech of spoken words: which reading 'record' has in 'they record a record'.

A greedy averaged perceptron over words, endings and the tags before (Collins, "Discriminative training methods for
hidden Markov models", EMNLP 2002), made by `train_tagger.py`. Standard library only; the file is read when a sentence
first needs it.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

START = "^"
END = "$"


class Tagger:
    """Lower-case words to Penn Treebank tags, nouns of all kinds being NN or NNS.

    Args:
        weights: {feature: {tag: weight}}.
        usual: {word: the tag it has most often}, which stands for the tags of words to come.
    """

    def __init__(self, weights: Mapping[str, Mapping[str, float]], usual: Mapping[str, str]) -> None:
        self.weights, self.usual = weights, usual

    @classmethod
    def load(cls, path: Path) -> Tagger:
        """Read what `train_tagger.save` wrote."""
        data = json.loads(lzma.decompress(path.read_bytes()))
        tags = data["tags"]
        weights = {name: {tags[tag]: weight for tag, weight in row} for name, row in data["weights"].items()}
        return cls(weights, data["usual"])

    def tag(self, words: Sequence[str]) -> list[str]:
        """['they', 'record', 'a', 'record'] -> ['PRP', 'VBP', 'DT', 'NN']."""
        context = Context(words, self.usual)
        tags: list[str] = []
        for place in range(len(words)):
            tags.append(self.best(context.features(place, tags)))
        return tags

    def best(self, features: Sequence[str], among: Sequence[str] = ()) -> str:
        """The tag of the highest score; only of those in `among`, where there are any."""
        scores = dict.fromkeys(among, 0.0)
        for feature in features:
            for tag, weight in self.weights.get(feature, {}).items():
                if not among or tag in scores:
                    scores[tag] = scores.get(tag, 0.0) + weight
        return max(scores, key=lambda tag: (scores[tag], tag)) if scores else "NN"


class Context:
    """A sentence with what the tagger looks at."""

    def __init__(self, words: Sequence[str], usual: Mapping[str, str]) -> None:
        self.words = [START, START, *words, END, END]
        self.usual = [usual.get(word, "?" + word[-2:]) for word in self.words]

    def features(self, place: int, tags: Sequence[str]) -> list[str]:
        """Features for the tag of the word at `place`; `tags` are those of the words before."""
        at = place + 2
        before2, before, word, after, after2 = self.words[at - 2 : at + 3]
        tag = tags[place - 1] if place else START
        tag2 = tags[place - 2] if place > 1 else START
        usual = self.usual
        return [
            "", "w" + word, "3" + word[-3:], "2" + word[-2:], "1" + word[:1],
            "t" + tag, f"T{tag2} {tag}", f"b{tag} {word}", "p" + before, "P" + before2, f"c{before} {word}",
            "n" + after, "N" + after2, "u" + usual[at + 1], f"U{usual[at + 1]} {usual[at + 2]}",
            f"x{tag} {usual[at + 1]}", f"y{word} {usual[at + 1]}", f"z{tag} {word} {usual[at + 1]}", f"d{word} {after}",
            f"k{tag2} {tag} {usual[at + 1]}", "e" + before[-3:],
        ]  # fmt: skip


@cache
def shipped() -> Tagger:
    """The tagger that comes with the package, read once."""
    return Tagger.load(Path(__file__).with_name("tagger.xz"))
