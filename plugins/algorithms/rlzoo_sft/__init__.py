"""SFT: the control that everybody forgets, supervised training on the same budget. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class SFTOptions(Options):
    """Options of supervised fine-tuning; the README of this plugin has the equations."""

    source: Literal["reference", "recordings"] = "reference"
    """Learn samples of the starting weights, or the recordings of a prompt set that has them."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Gradient updates on each step's data, each with fresh draws."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Times and noises per sample that an update averages over."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="sft",
        summary="control: continued supervised training on the same budget",
        target="rlzoo_sft.algorithm:SFT",
        options=SFTOptions,
        needs=frozenset({"denoising-loss"}),
        reference="arXiv:2006.11239",
        expected_failures={"follows_the_reward": "a control: the score does not enter its loss"},
    )
