"""Train the tagger that `tagger.py` reads.

    python -m rlzoo.speech.text.train_tagger --treebank UD_English-EWT --homographs WikipediaHomographData \\
        --out tagger.xz

Three sources: the tags of the English Web Treebank (universaldependencies.org, CC BY-SA 4.0, which is the licence of
the trained weights too, see NOTICE); readings of homographs in sentences of Wikipedia (Gorman, Mazovetskiy and
Nikolaev, "Improving homograph disambiguation with supervised machine learning", LREC 2018; Apache-2.0), where any tag
of the right reading counts as right; and short sentences with one homograph, which are what prompts look like and
what neither has many of: patterns of our own.
"""

from __future__ import annotations

import argparse
import csv
import json
import lzma
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rlzoo.speech.text.heteronyms import table
from rlzoo.speech.text.tagger import Context, Tagger

Sentence = list[tuple[str, tuple[str, ...]]]
"""Words with the tags that are right; none if it is not known."""

VERBS = ("VB", "VBP", "VBZ", "VBD", "VBN", "VBG")
_LABELS = {
    "vrb": VERBS, "nou": ("NN", "NNS"), "adj": ("JJ", "RB"), "adj-nou": ("NN", "NNS", "JJ", "RB"),
    "past": ("VBD", "VBN"), "present": ("VB", "VBP", "NN"), "adj-nou-vrb": ("JJ", "VB", "VBP", "VBD"),
}  # fmt: skip
_SPECIAL = {"sow": VERBS, "isolate": VERBS, "compress": VERBS, "transform": VERBS, "minute": ("NN",), "dove": ("NN",)}
_SPECIAL |= {"wound_vrb": ("VBD", "VBN"), "wound_nou-vrb": ("NN", "VB", "VBP"), "dove_vrb": ("VBD",)}
_IGNORED = re.compile("(tear|lead|bow|bass|row|axes|polish|job|pasty|sake|rodeo|mate|jesus|nestle|ravel|reading)")
_SAME = {
    "NNP": "NN",
    "NNPS": "NNS",
    "AFX": "JJ",
    "HYPH": ",",
    "NFP": ",",
    ".": ",",
    ":": ",",
    "-LRB-": ",",
    "-RRB-": ",",
}


def treebank(files: Iterable[Path]) -> Iterator[Sentence]:
    """Sentences of CoNLL-U files as the front end gives them: lower case, contractions whole, quotes left out."""
    for path in files:
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            rows = [line.split("\t") for line in block.splitlines() if line and line[0] != "#"]
            whole = {row[0].split("-")[0]: row[1] for row in rows if "-" in row[0]}
            inside = {str(n) for row in rows if "-" in row[0] for n in range(*_span(row[0]))}
            sentence: Sentence = []
            for row in rows:
                if not row[0].isdigit() or row[0] in inside or row[4] in ("``", "''"):
                    continue
                word = whole.get(row[0], row[1]).lower().replace("’", "'")
                tag = _SAME.get(row[4], row[4])
                if tag != ",":
                    sentence.append(("seven" if re.search(r"\d", word) else word, (tag,)))
                elif sentence and sentence[-1][0] != ",":
                    sentence.append((",", (",",)))
            if sentence:
                yield sentence


def _span(numbers: str) -> tuple[int, int]:
    first, last = numbers.split("-")
    return int(first) + 1, int(last) + 1


def homographs(folder: Path) -> Iterator[tuple[Sentence, int, str]]:
    """Sentences, the place of the homograph, and the name of its reading."""
    from rlzoo.speech.text.normalize import spoken

    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                raw = row["sentence"].encode()
                start, end = int(row["start"]), int(row["end"])
                before = spoken(raw[:start].decode(errors="ignore"), lambda word: True)
                after = spoken(raw[end:].decode(errors="ignore"), lambda word: True)
                tags = _SPECIAL.get(row["wordid"]) or _LABELS.get(row["wordid"].partition("_")[2], ())
                if _IGNORED.match(row["homograph"]):
                    tags = ()
                unknown: Sentence = [(word, ()) for word in after]
                yield (
                    [*((word, ()) for word in before), (row["homograph"].lower(), tags), *unknown],
                    len(before),
                    row["wordid"],
                )


_PEOPLE = str.split("i you we they people children doctors workers")
_NOUNS = str.split("team door house song paper car book town plan water army game city tree dog boat film story letter")
_NAMES = str.split("he she it john mary")
_BEFORE_NOUN = str.split("a the this that my your his her our their its no some another every each")
_LATER = [
    [("now", "RB")], [("today", "NN")], [("again", "RB")], [("well", "RB")], [("here", "RB")], [("please", "UH")],
    [("in", "IN"), ("the", "DT"), ("city", "NN")], [("every", "DT"), ("day", "NN")], [],
]  # fmt: skip


def patterns(source: random.Random, rounds: int) -> Iterator[Sentence]:
    """Short sentences around every homograph that is a noun, a verb or an adjective by its reading."""
    of_determiner = {
        "my": "PRP$",
        "your": "PRP$",
        "his": "PRP$",
        "her": "PRP$",
        "our": "PRP$",
        "their": "PRP$",
        "its": "PRP$",
    }
    choose = source.choice

    def noun() -> list[tuple[str, str]]:
        determiner = choose(_BEFORE_NOUN)
        return [(determiner, of_determiner.get(determiner, "DT"))]

    def thing() -> list[tuple[str, str]]:
        return choose([[*noun(), (choose(_NOUNS), "NN")], [(choose(["it", "them", "us", "me", "him"]), "PRP")]])

    for _ in range(rounds):
        for word, readings in table().items():
            made: list[list[tuple[str, str]]] = []
            person = choose(_PEOPLE)
            who = (person, "PRP" if person in ("i", "you", "we", "they") else "NNS")
            if "V" in readings and not word.endswith("s"):
                made += [
                    [who, (word, "VBP"), *thing(), *choose(_LATER)],
                    [
                        who,
                        (choose(["will", "can", "must", "may", "should"]), "MD"),
                        (word, "VB"),
                        *thing(),
                        *choose(_LATER),
                    ],
                    [who, (choose(["want", "try", "have", "need"]), "VBP"), ("to", "TO"), (word, "VB"), *thing()],
                    [(word, "VB"), *thing(), *choose(_LATER)],
                    [("please", "UH"), (word, "VB"), *thing(), *choose(_LATER)],
                    [("do", "VBP"), ("not", "RB"), (word, "VB"), *thing()],
                    [("don't", "VBP"), (word, "VB"), *thing()],
                ]
            if "V" in readings and ("N" in readings or "J" in readings) and word.endswith("s"):
                made += [[(choose(_NAMES), "PRP"), (word, "VBZ"), *thing(), *choose(_LATER)]]
            if "N" in readings and not word.endswith("s"):
                made += [
                    [
                        *noun(),
                        (word, "NN"),
                        *choose(
                            [
                                [("is", "VBZ"), ("good", "JJ")],
                                [("was", "VBD"), ("here", "RB")],
                                [("fell", "VBD")],
                                [("of", "IN"), ("the", "DT"), (choose(_NOUNS), "NN")],
                                [("will", "MD"), ("come", "VB")],
                            ]
                        ),
                    ],
                    [
                        (choose(_NAMES), "PRP"),
                        (choose(["has", "saw", "made", "took"]), "VBD"),
                        *noun(),
                        (word, "NN"),
                        *choose(_LATER),
                    ],
                    [("the", "DT"), (choose(["old", "new", "big", "first"]), "JJ"), (word, "NN"), *choose(_LATER)],
                ]
            if "J" in readings:
                made += [
                    [*noun(), (word, "JJ"), (choose(_NOUNS), "NN"), ("is", "VBZ"), ("here", "RB")],
                    [
                        *choose(
                            [
                                [("he", "PRP"), ("is", "VBZ")],
                                [("it", "PRP"), ("was", "VBD")],
                                [("they", "PRP"), ("are", "VBP")],
                            ]
                        ),
                        *choose([[], [("very", "RB")], [("not", "RB")]]),
                        (word, "JJ"),
                        *choose(_LATER),
                    ],
                ]
            for sentence in made:
                yield [*((w, (t,)) for w, t in sentence), (",", (",",))]


def train(sentences: list[Sentence], rounds: int, source: random.Random) -> Tagger:
    """Averaged perceptron: at a wrong tag, features gain the best right tag and lose the wrong one."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in sentences:
        for word, tags in sentence:
            if len(tags) == 1:
                counts[word][tags[0]] += 1
    usual = {word: tags.most_common(1)[0][0] for word, tags in counts.items() if sum(tags.values()) > 2}
    weights: dict[str, dict[str, float]] = {}
    totals: dict[tuple[str, str], float] = defaultdict(float)
    stamps: dict[tuple[str, str], int] = defaultdict(int)
    tagger = Tagger(weights, usual)
    step = 0

    def move(feature: str, tag: str, by: float) -> None:
        row = weights.setdefault(feature, {})
        key = feature, tag
        totals[key] += (step - stamps[key]) * row.get(tag, 0.0)
        stamps[key] = step
        row[tag] = row.get(tag, 0.0) + by

    for _ in range(rounds):
        source.shuffle(sentences)
        for sentence in sentences:
            context = Context([word for word, _ in sentence], usual)
            found_tags: list[str] = []
            for place, (_, right) in enumerate(sentence):
                features = context.features(place, found_tags)
                found = tagger.best(features)
                step += 1
                if right and found not in right:
                    better = tagger.best(features, right)
                    for feature in features:
                        move(feature, better, 1.0)
                        move(feature, found, -1.0)
                    found = better if len(right) == 1 else found
                found_tags.append(found)
    averaged: dict[str, dict[str, float]] = {}
    for (feature, tag), total in totals.items():
        mean = (total + (step - stamps[feature, tag]) * weights[feature][tag]) / step
        if abs(mean) > 0.02:
            averaged.setdefault(feature, {})[tag] = mean
    return Tagger(averaged, usual)


def save(tagger: Tagger, path: Path, keep: float) -> Tagger:
    """Weights in steps of 1/10, those under `keep` left out; returns the tagger as it is read again."""
    tags = sorted({tag for row in tagger.weights.values() for tag in row})
    rows = {}
    for feature, row in sorted(tagger.weights.items()):
        kept = [[tags.index(tag), round(weight * 10)] for tag, weight in sorted(row.items()) if abs(weight) >= keep]
        if kept:
            rows[feature] = kept
    data = {"tags": tags, "usual": dict(sorted(tagger.usual.items())), "weights": rows}
    raw = json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
    path.write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
    return Tagger.load(path)


def tag_errors(tagger: Tagger, sentences: Iterable[Sentence]) -> tuple[int, int]:
    """Wrong tags and words."""
    wrong = total = 0
    for sentence in sentences:
        found = tagger.tag([word for word, _ in sentence])
        wrong += sum(tag not in right for tag, (_, right) in zip(found, sentence, strict=True) if right)
        total += sum(bool(right) for _, right in sentence)
    return wrong, total


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save, and measure on held-out sentences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--treebank", type=Path, required=True, help="folder of UD_English-EWT")
    parser.add_argument("--homographs", type=Path, required=True, help="folder of WikipediaHomographData")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--keep", type=float, default=0.25)
    args = parser.parse_args(argv)
    source = random.Random(0)
    test = list(treebank([args.treebank / "en_ewt-ud-test.conllu"]))
    held = {tuple(word for word, _ in sentence) for sentence in test}
    files = sorted(p for p in args.treebank.rglob("*.conllu") if p.name != "en_ewt-ud-test.conllu")
    base = [s for s in treebank(files) if tuple(word for word, _ in s) not in held]
    extra = [sentence for sentence, _, _ in homographs(args.homographs / "data" / "train")]
    short = list(patterns(source, 4))
    tagger = train([*base, *extra, *short], args.rounds, source)
    tagger = save(tagger, args.out, args.keep)
    wrong, total = tag_errors(tagger, test)
    sys.stdout.write(f"{len(base)} + {len(extra)} + {len(short)} sentences, {args.out.stat().st_size} bytes\n")
    sys.stdout.write(f"tags right in the treebank's test part: {1 - wrong / total:.4f} of {total}\n")
    readings = [item for item in homographs(args.homographs / "data" / "eval") if item[0][item[1]][1]]
    right = sum(tagger.tag([w for w, _ in s])[place] in s[place][1] for s, place, _ in readings)
    sys.stdout.write(f"readings of homographs right: {right / len(readings):.4f} of {len(readings)}\n")


if __name__ == "__main__":
    main()
