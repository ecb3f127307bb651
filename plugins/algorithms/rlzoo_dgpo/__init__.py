"""DGPO: direct group preference optimisation (arXiv:2510.08425). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class DGPOOptions(Options):
    """Options of DGPO; the README of this plugin has the equations."""

    beta: Annotated[float, Field(gt=0)] = 100.0
    """Sharpness with which a group loses weight once its preference is met."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the predictions of the starting weights."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Times and noises per group; the samples of a group share them."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Gradient updates on each step's samples, all with the same draws."""
    clip: Clip = 1e-3
    """A sample is left out of further updates once exp(old loss - loss) has moved so far its advantage's way; or
    [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="dgpo",
        summary="direct preference between the good and the bad part of a group",
        target="rlzoo_dgpo.algorithm:DGPO",
        options=DGPOOptions,
        needs=frozenset({"denoising-loss"}),
        compares="advantages",
        learning_rate_scale=0.1,
        reference="arXiv:2510.08425",
    )
