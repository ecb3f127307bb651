"""D3PO: direct preference for denoising diffusion policy optimisation (arXiv:2311.13231). No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class D3POOptions(Options):
    """Options of D3PO; the README of this plugin has the equations."""

    beta: Annotated[float, Field(gt=0)] = 0.1
    """Strength of the KL constraint: larger keeps nearer to the starting weights."""
    credit: Literal["step", "trajectory"] = "step"
    """Prefer every step of the better trajectory by itself, as published, or the trajectory as a whole."""
    preference: Literal["better", "bradley-terry"] = "better"
    """The sample that scores higher wins, or wins with probability sigmoid of the difference of the advantages."""
    eps: Annotated[float, Field(gt=0, lt=1)] | None = 0.1
    """Ratios to the starting weights outside 1 -+ this have no gradient; unset: all have one."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="d3po",
        summary="DPO on denoising steps: every step of the better sample is preferred",
        target="rlzoo_d3po.algorithm:D3PO",
        options=D3POOptions,
        needs=frozenset({"log-prob"}),
        compares="samples",
        reference="arXiv:2311.13231",
    )
