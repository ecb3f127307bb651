"""GRPO for diffusion and flow models: Flow-GRPO, DanceGRPO and MixGRPO. Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class GRPOOptions(Options):
    """Options of GRPO; the README of this plugin has the equations."""

    form: Literal["flow", "dance", "mix"] = "flow"
    """Flow-GRPO: KL in the loss. DanceGRPO: a group starts from one noise. MixGRPO: noise in a sliding window only."""
    beta: Annotated[float, Field(ge=0)] = 0.04
    """Weight of the KL to the starting weights, per trained step (`flow`; the other two have none)."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 1e-4
    """Half-width of the ratio's trust region, for log-probabilities averaged over elements."""
    window: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Steps in a row that are drawn and trained (`mix`)."""
    shift_every: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Optimisation steps after which the window moves (`mix`)."""
    stride: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Denoising steps by which it moves, from the noisiest on (`mix`)."""
    at_end: Literal["stay", "restart"] = "stay"
    """At the last steps that have noise the window stays, as published, or starts again (`mix`)."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="grpo",
        summary="group-relative policy gradient: Flow-GRPO, DanceGRPO, MixGRPO",
        target="rlzoo_grpo.algorithm:GRPO",
        options=GRPOOptions,
        needs=frozenset({"log-prob"}),
        reference="arXiv:2505.05470",
    )
