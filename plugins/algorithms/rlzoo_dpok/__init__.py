"""DPOK: policy gradient with a learned value baseline and KL in the loss (arXiv:2305.16381). No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class DPOKOptions(Options):
    """Options of DPOK; the README of this plugin has the equations."""

    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the reward."""
    beta: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the KL to the starting weights, per trained step."""
    kl_space: Literal["mean", "eps"] = "mean"
    """Exact Gaussian KL of the transition, or the authors' squared difference of network outputs."""
    baseline: Literal["value", "advantage"] = "value"
    """Subtract a learned value of (state, text, step), or take the run's advantage normalisation."""
    scale: bool = True
    """Divide the advantage by the batch's standard deviation of scores (`value`)."""
    value_learning_rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Adam's, for the value network."""
    value_updates: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Updates of the value network per step."""
    value_width: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Hidden units of the value network's two layers."""
    clip: Clip = 1e-4
    """The ratio is clamped to 1 -+ this, for log-probabilities averaged over elements; or [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="dpok",
        summary="policy gradient with a value baseline and KL in the loss",
        target="rlzoo_dpok.algorithm:DPOK",
        options=DPOKOptions,
        needs=frozenset({"log-prob"}),
        compares="advantages",
        reference="arXiv:2305.16381",
    )
