"""Letter-to-sound: how a word that is in no dictionary is probably pronounced.

The model is a joint n-gram over (letter, phones) pairs, made from the CMU dictionary by `train_letters.py`; decoding is
a beam search over the letters. Pure numpy and the standard library; about a megabyte.
"""

from __future__ import annotations

import json
import lzma
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

ORDER = 6
"""Longest run of pairs that the model knows."""
BITS = 10
"""Bits of one pair's number inside a packed n-gram; ORDER * BITS must fit 64."""
START, END = 0, 1
_LOWEST = 255


def pack(units: Sequence[int]) -> int:
    """A run of pair numbers as one integer, the last pair in the low bits."""
    key = 0
    for unit in units:
        key = key << BITS | unit
    return key


class LetterToSound:
    """Most probable phones of a spelling."""

    def __init__(self, units: list[tuple[str, tuple[str, ...]]], keys: list[array[int]], logs: list[bytes]) -> None:
        self._phones = {index + 2: phones for index, (_, phones) in enumerate(units)}
        self._by_letter: dict[str, list[int]] = {}
        for index, (letter, _) in enumerate(units):
            self._by_letter.setdefault(letter, []).append(index + 2)
        self._keys, self._logs = keys, logs

    @classmethod
    def load(cls, path: Path) -> LetterToSound:
        """Read what `train_letters.save` wrote."""
        data = lzma.decompress(path.read_bytes())
        line, _, body = data.partition(b"\n")
        header = json.loads(line)
        if (header["order"], header["bits"]) != (ORDER, BITS):
            raise ValueError(f"'{path}' was made with order {header['order']}, {header['bits']} bits: train it again")
        keys, logs, position = [], [], 0
        for size in header["sizes"]:
            planes = np.frombuffer(body, np.uint8, 8 * size, position).reshape(8, size)
            gaps = np.ascontiguousarray(planes.T).view(np.uint64)[:, 0]
            keys.append(array("Q", np.cumsum(gaps, dtype=np.uint64).tobytes()))
            logs.append(body[position + 8 * size : position + 10 * size])
            position += 10 * size
        return cls([(letter, tuple(phones)) for letter, phones in header["units"]], keys, logs)

    def phones(self, word: str, beam: int = 24) -> list[str]:
        """'zorb' -> ['Z', 'AO1', 'R', 'B']; letters other than a-z are passed over."""
        # Hypotheses that share the last ORDER - 1 pairs have the same future: keep the better one of them.
        hypotheses: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {(START,) * (ORDER - 1): (0.0, ())}
        for letter in word:
            options = self._by_letter.get(letter)
            if options is None:
                continue
            grown: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
            for context, (cost, path) in hypotheses.items():
                for unit in options:
                    total = cost + self._cost(context, unit)
                    key = (*context[1:], unit)
                    if key not in grown or total < grown[key][0]:
                        grown[key] = (total, (*path, unit))
            ranked = sorted(grown.items(), key=lambda item: item[1][0])
            hypotheses = dict(ranked[:beam])
        best = min(hypotheses.items(), key=lambda item: item[1][0] + self._cost(item[0], END))
        return [phone for unit in best[1][1] for phone in self._phones[unit]]

    def _cost(self, context: tuple[int, ...], unit: int) -> int:
        """-16 log p(unit | context), backing off to shorter contexts."""
        penalty = 0
        full = pack((*context, unit))
        for length in range(ORDER, 0, -1):
            found = self._find(length, full & ((1 << BITS * length) - 1))
            if found is not None and found[0] != _LOWEST:
                return penalty + found[0]
            if length > 1:
                before = self._find(length - 1, (full >> BITS) & ((1 << BITS * (length - 1)) - 1))
                penalty += before[1] if before is not None else 0
        return penalty + _LOWEST

    def _find(self, length: int, key: int) -> tuple[int, int] | None:
        keys, logs = self._keys[length - 1], self._logs[length - 1]
        index = bisect_left(keys, key)
        if index == len(keys) or keys[index] != key:
            return None
        return logs[index], logs[len(keys) + index]


@cache
def shipped() -> LetterToSound:
    """The model that comes with the package, read once."""
    return LetterToSound.load(Path(__file__).with_name("letters.xz"))
