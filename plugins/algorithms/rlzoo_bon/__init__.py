"""Best-of-N fine-tuning. Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class BoNOptions(Options):
    """Options of best-of-N fine-tuning; the README of this plugin has the equations."""

    best: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Number of samples of each prompt that are trained on."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Gradient updates on each step's best samples, each with fresh draws."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Times and noises per sample that an update averages over."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="bon",
        summary="the diffusion loss on the best of each prompt's samples",
        target="rlzoo_bon.algorithm:BoN",
        options=BoNOptions,
        needs=frozenset({"denoising-loss"}),
        compares="samples",
        reference="arXiv:2304.06767",
    )
