"""RWR: reward-weighted regression (arXiv:2305.13301, section 4.2). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class RWROptions(Options):
    """Options of RWR; the README of this plugin has the equations."""

    weighting: Literal["exponential", "sparse"] = "exponential"
    """Weights exp(b r), or 1 for the best samples and 0 for the others."""
    inverse_temperature: Annotated[float, Field(gt=0)] = 1.0
    """b of the exponential weights, per unit of advantage."""
    keep: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of samples that the sparse weights keep; at least one."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Gradient updates on each step's samples, each with fresh draws."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Times and noises per sample that an update averages over."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="rwr",
        summary="the diffusion loss on own samples, weighted by the score",
        target="rlzoo_rwr.algorithm:RWR",
        options=RWROptions,
        needs=frozenset({"denoising-loss"}),
        compares="advantages",
        reference="arXiv:2305.13301",
    )
