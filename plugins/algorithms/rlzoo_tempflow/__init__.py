"""TempFlow-GRPO: credit for single denoising steps by branching there (arXiv:2508.04324). No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class TempFlowOptions(Options):
    """Options of TempFlow-GRPO; the README of this plugin has the equations."""

    branches: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Denoising steps at which samples branch in one optimisation step, each with rollouts of its own; at most all."""
    weights: Literal["noise", "none"] = "noise"
    """Weigh a step's loss by its noise, relative to the mean over steps, or weigh all alike."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL to the starting weights, per trained step."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region, for log-probabilities averaged over elements; or [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="tempflow",
        summary="TempFlow-GRPO: samples branch at one step, which alone is rewarded",
        target="rlzoo_tempflow.algorithm:TempFlow",
        options=TempFlowOptions,
        needs=frozenset({"log-prob"}),
        compares="advantages",
        reference="arXiv:2508.04324",
    )
