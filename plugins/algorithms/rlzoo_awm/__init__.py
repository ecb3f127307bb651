"""AWM: advantage-weighted matching (arXiv:2509.25050). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class AWMOptions(Options):
    """Options of AWM; the README of this plugin has the equations."""

    draws: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Times and noises per sample at which the matching loss stands in for the log-probability."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Gradient updates on each step's samples, all with the same draws: the ratio compares like with like."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region; or [below 1, above 1]."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the squared distance to the predictions of the anchor, by default the starting weights."""
    anchor: Literal["reference", "ema"] = "reference"
    """Anchor of that distance: the starting weights, or a moving average of the policy."""
    anchor_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving average."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="awm",
        summary="advantage-weighted matching: the training loss as log-probability",
        target="rlzoo_awm.algorithm:AWM",
        options=AWMOptions,
        needs=frozenset({"denoising-loss"}),
        compares="advantages",
        learning_rate_scale=0.1,
        reference="arXiv:2509.25050",
    )
