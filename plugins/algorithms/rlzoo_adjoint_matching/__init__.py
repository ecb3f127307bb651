"""Adjoint Matching: reward fine-tuning as stochastic optimal control (arXiv:2409.08861). No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class AdjointMatchingOptions(Options):
    """Options of Adjoint Matching; the README of this plugin has the equations."""

    beta: Annotated[float, Field(gt=0)] = 0.01
    """Weight of the KL of a trajectory to the starting weights; the paper's reward multiplier is 1 / beta."""
    steps: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Denoising steps of each trajectory that are matched, at random and always the last drawn one; unset: all."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="adjoint-matching",
        summary="regress each step on the reward's gradient, carried back",
        target="rlzoo_adjoint_matching.algorithm:AdjointMatching",
        options=AdjointMatchingOptions,
        needs=frozenset({"log-prob", "sampling-grad", "reward-grad"}),
        reference="arXiv:2409.08861",
    )
