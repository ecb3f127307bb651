"""OnlyDL: DLPO's control, the diffusion loss as the only reward (arXiv:2508.03123). No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class OnlyDLOptions(Options):
    """Options of OnlyDL; the README of this plugin has the equations."""

    norm: Literal["policy", "l1", "l2"] = "policy"
    """Distance of the diffusion loss; `policy` is the one that the policy was pretrained with."""
    beta: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the diffusion loss."""
    monitor: bool = True
    """Score the samples although no score is used, so that the run shows how the reward moves."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region, for log-probabilities averaged over elements; or [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="onlydl",
        summary="control: policy gradient on minus the diffusion loss, no score",
        target="rlzoo_onlydl.algorithm:OnlyDL",
        options=OnlyDLOptions,
        needs=frozenset({"log-prob", "denoising-loss"}),
        reference="arXiv:2508.03123",
        expected_failures={"follows_the_reward": "a control: the score does not enter its loss"},
    )
