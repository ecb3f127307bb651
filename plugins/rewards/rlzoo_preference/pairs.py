"""Pairs as `rlzoo listen export` writes them: reading, and parting them so that nothing heard is on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlzoo.errors import DataError

_FORM = '{"prompt": {"id": ...}, "preferred": path, "rejected": path, "rater": id, "tie": false}'


@dataclass(frozen=True)
class Pair:
    """One answer of one rater. Of a tie, which is `preferred` means nothing."""

    prompt: str
    preferred: Path
    rejected: Path
    rater: str
    tie: bool


def read(path: Path) -> list[Pair]:
    """JSON lines -> pairs; relative paths start at the file's folder. DataError with the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read '{path}': {error}", "give what `rlzoo listen export` wrote") from error
    pairs = [_pair(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not pairs:
        raise DataError(f"'{path}' holds no pairs", "let people listen first: rlzoo listen")
    return pairs


def _pair(path: Path, number: int, line: str) -> Pair:
    where = f"'{path}', line {number}"
    try:
        row = json.loads(line)
        preferred, rejected = path.parent / str(row["preferred"]), path.parent / str(row["rejected"])
        rater, tie = str(row.get("rater", "")), bool(row.get("tie", False))
        pair = Pair(str(row["prompt"]["id"]), preferred, rejected, rater, tie)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where} is no pair ({type(error).__name__}: {error})", f"a line is {_FORM}") from error
    for file in (preferred, rejected):
        if not file.is_file():
            raise DataError(f"{where}: recording '{file}' does not exist", "pairs point at the original files")
    if pair.preferred == pair.rejected:
        raise DataError(f"{where} compares '{pair.preferred}' with itself", f"a line is {_FORM}")
    return pair


def groups(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """(P,) pairs -> (P,) numbers, alike for pairs that share a prompt or a recording, directly or through others."""
    names: dict[tuple[str, str], int] = {}
    edges = []
    for pair in pairs:
        keys = (("prompt", pair.prompt), ("file", str(pair.preferred)), ("file", str(pair.rejected)))
        prompt, a, b = (names.setdefault(key, len(names)) for key in keys)
        edges += [(prompt, a), (prompt, b)]
    rows, columns = np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(names), len(names)))
    _, label = connected_components(graph, directed=False)
    found: NDArray[np.int64] = label[rows[::2]].astype(np.int64)
    return found


def parted(group: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(P,) groups -> (P,) numbers of parts 0 ... count - 1, of about equal size; no group is in two of them."""
    labels = generator.permutation(np.unique(group))
    sizes = {label: int((group == label).sum()) for label in labels}
    filled, part = [0] * count, {}
    for label in labels:
        smallest = filled.index(min(filled))
        part[label] = smallest
        filled[smallest] += sizes[label]
    return np.array([part[label] for label in group])


def held_out(group: NDArray[np.int64], share: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """(P,) groups -> (P,) True for about `share` of them, whole groups. DataError where one side would be empty."""
    chosen: list[int] = []
    for label in generator.permutation(np.unique(group)):
        if chosen and np.isin(group, chosen).mean() >= share:
            break
        chosen.append(int(label))
    mask: NDArray[np.bool_] = np.isin(group, chosen)
    if mask.all() or len(np.unique(group[~mask])) < 2:
        count = len(np.unique(group))
        raise DataError(
            f"{len(group)} answers to {count} independent prompts are too few to train on some and judge by the others",
            "let people hear more prompts (answers that share a prompt or a recording stay together)",
        )
    return mask
