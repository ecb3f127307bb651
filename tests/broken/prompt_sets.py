"""Prompt sets with one bug each."""

from __future__ import annotations

import random
from collections.abc import Sequence

from rlzoo.api import Prompt

TRAIN, HELDOUT = [Prompt(f"t{i}", f"train {i}") for i in range(9)], [Prompt("h", "held out")]


class Sound:
    """A sound prompt set."""

    def train(self) -> Sequence[Prompt]:
        return TRAIN

    def heldout(self) -> Sequence[Prompt]:
        return HELDOUT


class Leaky(Sound):
    """A training text is held out as well."""

    def heldout(self) -> Sequence[Prompt]:
        return [Prompt("h", "train 3")]


class UnsafeNames(Sound):
    """An id that escapes from its folder."""

    def heldout(self) -> Sequence[Prompt]:
        return [Prompt("../h", "held out")]


class Shuffled(Sound):
    """Another order every time."""

    def train(self) -> Sequence[Prompt]:
        return random.Random().sample(TRAIN, len(TRAIN))


BROKEN = {"has_both_parts": Leaky, "names_are_unique_and_safe": UnsafeNames, "order_is_fixed": Shuffled}
