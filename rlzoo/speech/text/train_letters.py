"""Train the letter-to-sound model that `letters.py` reads: a joint n-gram over (letter, phones) pairs.

    python -m rlzoo.speech.text.train_letters --out letters.xz [--held-out 0.05]

Each letter emits zero, one or two phones. The alignment of letters with phones is learnt by expectation maximisation,
after which a word is a sequence of joint units and an interpolated Kneser-Ney n-gram is counted over them
(Bisani and Ney, "Joint-sequence models for grapheme-to-phoneme conversion", Speech Communication 50, 2008, with
chunks of one letter and at most two phones).
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np

from rlzoo.speech.text.letters import BITS, END, ORDER, START, LetterToSound, pack
from rlzoo.speech.text.lexicon import Lexicon

Unit = tuple[str, tuple[str, ...]]
MAX_PHONES = 2
Word = tuple[str, tuple[str, ...]]


def training_words(lexicon: Lexicon) -> list[Word]:
    """Words of letters only, without spelled-out acronyms and abbreviations, which follow no letter-to-sound rule."""
    words = []
    for word, phones in lexicon.entries():
        if not re.fullmatch("[a-z]{2,}", word) or len(phones) > MAX_PHONES * len(word):
            continue
        if re.search("[aeiouy]", word) and len(phones) <= len(word) + 2:
            words.append((word, tuple(phones)))
    return words


def _spans(phones: Sequence[str], start: int) -> Iterable[tuple[str, ...]]:
    return (tuple(phones[start : start + n]) for n in range(min(MAX_PHONES, len(phones) - start) + 1))


def fit_units(words: Sequence[Word], rounds: int = 6) -> dict[Unit, float]:
    """Probability of each phone string given its letter, by the forward-backward algorithm."""
    probability: dict[Unit, float] = defaultdict(lambda: 1e-9)
    for letters, phones in words:
        for letter in letters:
            for start in range(len(phones)):
                for span in _spans(phones, start):
                    # A flat start, but for two phones under one letter, which must earn their place.
                    probability[letter, span] = (0.3, 1.0, 0.02)[len(span)]
    for _ in range(rounds):
        counts: dict[Unit, float] = defaultdict(float)
        for letters, phones in words:
            _count(letters, phones, probability, counts)
        totals: dict[str, float] = defaultdict(float)
        for (letter, _), count in counts.items():
            totals[letter] += count
        probability = defaultdict(lambda: 1e-9, {u: c / totals[u[0]] for u, c in counts.items() if c > 1e-6})
    return probability


def _count(letters: str, phones: Sequence[str], probability: dict[Unit, float], counts: dict[Unit, float]) -> None:
    num_phones = len(phones)
    forward = [[0.0] * (num_phones + 1) for _ in range(len(letters) + 1)]
    forward[0][0] = 1.0
    for i, letter in enumerate(letters):
        for j in range(num_phones + 1):
            if forward[i][j]:
                for span in _spans(phones, j):
                    forward[i + 1][j + len(span)] += forward[i][j] * probability[letter, span]
    total = forward[-1][-1]
    if total <= 0:
        return
    after = [0.0] * num_phones + [1.0]
    for i in range(len(letters) - 1, -1, -1):
        before = [0.0] * (num_phones + 1)
        for j in range(num_phones + 1):
            for span in _spans(phones, j):
                weight = probability[letters[i], span] * after[j + len(span)]
                before[j] += weight
                if weight and forward[i][j]:
                    counts[letters[i], span] += forward[i][j] * weight / total
        after = before


def align(letters: str, phones: Sequence[str], probability: dict[Unit, float]) -> list[Unit]:
    """The most probable split of `phones` over `letters`."""
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for letter in letters:
        row: dict[int, tuple[float, int]] = {}
        for j, (score, _) in best[-1].items():
            for span in _spans(phones, j):
                new = score + math.log(probability[letter, span])
                if j + len(span) not in row or new > row[j + len(span)][0]:
                    row[j + len(span)] = (new, j)
        best.append(row)
    units: list[Unit] = []
    end = len(phones)
    for i in range(len(letters), 0, -1):
        start = best[i][end][1]
        units.append((letters[i - 1], tuple(phones[start:end])))
        end = start
    return units[::-1]


def kneser_ney(
    sequences: Sequence[Sequence[int]], order: int, min_count: Sequence[int]
) -> list[dict[int, list[float]]]:
    """Per n-gram length, packed n-gram -> [log probability, log back-off weight], interpolated Kneser-Ney.

    N-grams seen fewer than min_count[n - 1] times are left out; what they held goes to the back-off.
    """
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(order)]
    for sequence in sequences:
        padded = [START] * (order - 1) + list(sequence) + [END]
        for i in range(order - 1, len(padded)):
            counts[order - 1][tuple(padded[i - order + 1 : i + 1])] += 1
    for n in range(order - 1, 0, -1):
        # Lower orders count in how many different contexts something occurs, not how often.
        for gram in counts[n]:
            counts[n - 1][gram[1:]] += 1
    tables: list[dict[int, list[float]]] = []
    probability: dict[tuple[int, ...], float] = {}
    num_units = len({gram for gram in counts[0]})
    for n in range(order):
        ones = sum(c == 1 for c in counts[n].values())
        twos = sum(c == 2 for c in counts[n].values())
        discount = ones / (ones + 2 * twos) if ones else 0.5
        total: Counter[tuple[int, ...]] = Counter()
        kept: Counter[tuple[int, ...]] = Counter()
        for gram, count in counts[n].items():
            total[gram[:-1]] += count
            if count >= min_count[n]:
                kept[gram[:-1]] += 1
        held: dict[tuple[int, ...], float] = defaultdict(float)
        for gram, count in counts[n].items():
            held[gram[:-1]] += count - discount if count >= min_count[n] else 0.0
        table: dict[int, list[float]] = {}
        current: dict[tuple[int, ...], float] = {}
        for gram, count in counts[n].items():
            if count < min_count[n]:
                continue
            context = gram[:-1]
            backoff = 1.0 - held[context] / total[context]
            lower = _lower(gram[1:], probability, tables) if n else 1.0 / num_units
            current[gram] = (count - discount) / total[context] + backoff * lower
            table[pack(gram)] = [math.log(current[gram]), 0.0]
        if n:
            for context in kept:
                # A context is itself a shorter n-gram, except where it begins before the word.
                entry = tables[n - 1].setdefault(pack(context), [-99.0, 0.0])
                entry[1] = math.log(max(1.0 - held[context] / total[context], 1e-9))
        tables.append(table)
        probability = current
    return tables


def _lower(
    gram: tuple[int, ...], probability: dict[tuple[int, ...], float], tables: list[dict[int, list[float]]]
) -> float:
    if gram in probability:
        return probability[gram]
    weight = 0.0
    while len(gram) > 1:
        entry = tables[len(gram) - 1].get(pack(gram))
        if entry is not None and entry[0] > -99.0:
            return math.exp(weight + entry[0])
        context = tables[len(gram) - 2].get(pack(gram[:-1]))
        weight += context[1] if context is not None else 0.0
        gram = gram[1:]
    return math.exp(weight + tables[0][pack(gram)][0])


def save(path: Path, units: Sequence[Unit], tables: Sequence[dict[int, list[float]]]) -> None:
    """xz of a JSON line (units, sizes) and, per n-gram length, gaps between sorted keys and two quantised logs."""
    header = {
        "order": ORDER,
        "bits": BITS,
        "units": [[g, list(p)] for g, p in units],
        "sizes": [len(t) for t in tables],
    }
    parts = [json.dumps(header, separators=(",", ":")).encode() + b"\n"]
    for table in tables:
        keys = np.array(sorted(table), dtype=np.uint64)
        values = np.array([table[int(key)] for key in keys])
        # 1/16 nat is far below what separates two readings; 255 marks a context that is not an n-gram.
        logs = np.where(values <= -99, 255, np.clip(np.rint(-values * 16), 0, 254)).astype(np.uint8)
        gaps = np.diff(keys, prepend=np.uint64(0))
        # Bytes of equal significance together: this halves what xz makes of them.
        parts.append(np.ascontiguousarray(gaps.view(np.uint8).reshape(-1, 8).T).tobytes())
        parts.append(np.ascontiguousarray(logs.T).tobytes())
    path.write_bytes(lzma.compress(b"".join(parts), preset=9 | lzma.PRESET_EXTREME))


def phone_errors(model: LetterToSound, words: Sequence[Word]) -> tuple[float, float, float]:
    """Phone error rate, phone error rate without stress, word error rate on `words`."""
    errors = bare = wrong = total = 0
    for word, phones in words:
        guess = model.phones(word)
        errors += edit_distance(guess, phones)
        bare += edit_distance([p.rstrip("012") for p in guess], [p.rstrip("012") for p in phones])
        wrong += tuple(guess) != tuple(phones)
        total += len(phones)
    return errors / total, bare / total, wrong / len(words)


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Insertions, deletions and substitutions between two phone strings."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def is_held_out(word: str, fraction: float) -> bool:
    """A fixed choice that depends on the word alone; inflections of a word go with it ('walk', 'walks', 'walked')."""
    stem = re.sub("(s|es|ed|ing|er|ers)$", "", word)[:6]
    return crc32(stem.encode()) % 10_000 < fraction * 10_000


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save, and measure on the held-out words."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--held-out", type=float, default=0.0, help="share of the words kept back and measured")
    parser.add_argument("--min-count", default="1,1,1,2,2,2", help="rarest n-gram kept, per length")
    args = parser.parse_args(argv)
    words = training_words(Lexicon.load())
    train = [w for w in words if not is_held_out(w[0], args.held_out)]
    test = [w for w in words if is_held_out(w[0], args.held_out)]
    probability = fit_units(train[:: max(1, len(train) // 15_000)])
    aligned = [align(letters, phones, probability) for letters, phones in train]
    frequent = Counter(unit for word in aligned for unit in word)
    aligned = [word for word in aligned if all(frequent[unit] >= 3 for unit in word)]
    units = sorted({unit for word in aligned for unit in word})
    ids = {unit: index + 2 for index, unit in enumerate(units)}
    tables = kneser_ney(
        [[ids[u] for u in word] for word in aligned], ORDER, [int(n) for n in args.min_count.split(",")]
    )
    save(args.out, units, tables)
    sizes = f"n-grams {[len(t) for t in tables]}, {args.out.stat().st_size} bytes"
    sys.stdout.write(f"{len(aligned)} words, {len(units)} units, {sizes}\n")
    if test:
        per, bare, wer = phone_errors(LetterToSound.load(args.out), test[:: max(1, len(test) // 2000)])
        sys.stdout.write(f"held out: phone error rate {per:.3f}, without stress {bare:.3f}, words {wer:.3f}\n")


if __name__ == "__main__":
    main()
