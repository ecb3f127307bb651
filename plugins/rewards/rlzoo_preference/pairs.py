"""Parting pairs so that nothing heard is on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rlzoo.errors import DataError
from rlzoo.preferences import Preference


def groups(pairs: Sequence[Preference]) -> NDArray[np.int64]:
    """(P,) pairs -> (P,) numbers, alike for pairs that share a prompt or a recording, directly or through others."""
    names: dict[tuple[str, str], int] = {}
    edges = []
    for pair in pairs:
        keys = [("prompt", pair.prompt.id), *(("file", str(file)) for file in pair.recordings)]
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
    """(P,) groups -> (P,) True for about `share` of them, whole groups. DataError if one side would be empty."""
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
