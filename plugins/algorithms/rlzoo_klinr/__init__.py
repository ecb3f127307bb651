"""KLinR: the KL to the starting weights as part of the reward. Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class KLinROptions(Options):
    """Options of KLinR; the README of this plugin has the equations."""

    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the reward."""
    beta: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the KL of a whole trajectory to the starting weights."""
    estimator: Literal["k1", "k2", "k3", "exact"] = "exact"
    """Estimator of the KL of a step; only `k1` and `exact` give the gradient of the penalised objective."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region, for log-probabilities averaged over elements; or [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="klinr",
        summary="policy gradient on the reward minus the KL of the trajectory",
        target="rlzoo_klinr.algorithm:KLinR",
        options=KLinROptions,
        needs=frozenset({"log-prob"}),
        compares="advantages",
        reference="arXiv:2402.14740",
    )
