"""Contract of every prompt set. Each check takes a `PromptSubject` and raises `Broken`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlzoo.core.prompts import PromptSet
from rlzoo.testing.results import Broken


@dataclass(frozen=True)
class PromptSubject:
    """A prompt set to check."""

    make: Callable[[], PromptSet]


def has_both_parts(subject: PromptSubject) -> None:
    """There are training and held-out prompts, with text, and none is in both."""
    prompts = subject.make()
    train, heldout = prompts.train(), prompts.heldout()
    for part, found in (("train", train), ("heldout", heldout)):
        if not found:
            raise Broken(f"{part}() is empty")
        silent = [prompt.id for prompt in found if not prompt.text.strip()]
        if silent:
            raise Broken(f"{part}() has prompts without text: {', '.join(silent[:3])}")
    both = {p.id for p in train} & {p.id for p in heldout} or {p.text for p in train} & {p.text for p in heldout}
    if both:
        raise Broken(f"in both parts: {', '.join(sorted(both)[:3])}; held-out scores would mean nothing")


def names_are_unique_and_safe(subject: PromptSubject) -> None:
    """Ids are unique in the set and can be file names."""
    prompts = subject.make()
    ids = [prompt.id for prompt in (*prompts.train(), *prompts.heldout())]
    if len(ids) != len(set(ids)):
        raise Broken("two prompts have one id; noise and statistics are kept by id")
    unsafe = [name for name in ids if not re.fullmatch(r"[\w.-]{1,100}", name)]
    if unsafe:
        raise Broken(f"not safe in a file name: {unsafe[0]!r}")


def order_is_fixed(subject: PromptSubject) -> None:
    """Two instances give the same prompts in the same order: a resumed run depends on it."""
    first, second = subject.make(), subject.make()
    if list(first.train()) != list(second.train()) or list(first.heldout()) != list(second.heldout()):
        raise Broken("two instances give other prompts or another order; likely cause: a set, or an unseeded shuffle")


CHECKS: Sequence[Callable[[PromptSubject], None]] = (has_both_parts, names_are_unique_and_safe, order_is_fixed)
