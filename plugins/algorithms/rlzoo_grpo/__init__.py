"""GRPO for diffusion and flow models: Flow-GRPO, DanceGRPO and MixGRPO. Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class GRPOOptions(Options):
    """Options of GRPO; the README of this plugin has the equations."""

    form: Literal["flow", "dance", "mix"] = "flow"
    """Flow-GRPO: KL in the loss. DanceGRPO: a group starts from one noise. MixGRPO: noise in a sliding window only."""
    beta: Annotated[float, Field(ge=0)] = 0.04
    """Weight of the KL to the starting weights, per trained step (`flow`; the other two have none)."""
    kl: Literal["step", "rate"] = "step"
    """KL of the step that was drawn, or the same times the step's length, as Flow-GRPO's code leaves that out."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region, for log-probabilities averaged over elements; or [below 1, above 1]."""
    ratio: Literal["density", "distance"] = "density"
    """Ratio of densities, or the exponential of how much nearer the draw lies, squared, as in Flow-CPS's code."""
    init_same_noise: bool | None = None
    """True if the samples of a prompt start from one noise; unset: in `dance` alone."""
    window: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Steps in a row that are drawn and trained (`mix`)."""
    place: Literal["progressive", "random"] = "progressive"
    """The window slides, or lies at a random place in every optimisation step, as in Flow-GRPO-Fast (`mix`)."""
    window_range: tuple[Annotated[int, Field(ge=0, le=10_000)], Annotated[int, Field(ge=1, le=10_000)]] | None = None
    """First step of the window's range and the one behind its last (`mix`); unset: all steps that have noise."""
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
        compares="advantages",
        reference="arXiv:2505.05470",
    )
