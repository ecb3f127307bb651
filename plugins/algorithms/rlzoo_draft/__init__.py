"""DRaFT and AlignProp: back-propagate a differentiable reward through the sampler. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class DRaFTOptions(Options):
    """Options of DRaFT; the README of this plugin has the equations."""

    form: Literal["draft", "alignprop"] = "draft"
    """Differentiate through the last `steps` denoising steps, or through a random number of them."""
    steps: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Denoising steps with a gradient (`draft`); mean of their random number (`alignprop`). At most all."""
    spread: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviation of the random number of steps (`alignprop`)."""
    checkpointing: bool = True
    """Keep no activations and compute them again in the backward pass: less memory, a third more time."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="draft",
        summary="DRaFT, AlignProp: the reward's gradient through the sampler",
        target="rlzoo_draft.algorithm:DRaFT",
        options=DRaFTOptions,
        needs=frozenset({"sampling-grad", "reward-grad"}),
        reference="arXiv:2309.17400",
    )
