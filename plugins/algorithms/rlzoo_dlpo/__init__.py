"""DLPO: diffusion loss-guided policy optimisation (arXiv:2508.03123). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class DLPOOptions(Options):
    """Options of DLPO; the README of this plugin has the equations."""

    estimator: Literal["full", "scalar", "additive", "released"] = "full"
    """Gradient of the objective: exact; diffusion loss only in the reward; only in the loss; the authors' code."""
    credit: Literal["trajectory", "step"] = "trajectory"
    """Diffusion losses in a step's penalty: all of its trajectory (unbiased), or that of the same step (as printed)."""
    target: Literal["own", "data"] = "own"
    """Target of the diffusion loss: noise implied by the policy's own sample, or a recording noised afresh."""
    norm: Literal["policy", "l1", "l2"] = "policy"
    """Distance of the diffusion loss; `policy` is the one that the policy was pretrained with."""
    alpha: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the reward."""
    beta: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the diffusion loss, summed over the trained steps of a trajectory."""
    centre: bool = True
    """Subtract the batch's mean where the diffusion loss multiplies the score function: less variance, no bias."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region, for log-probabilities averaged over elements; or [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="dlpo",
        summary="policy gradient on the reward minus the diffusion loss",
        target="rlzoo_dlpo.algorithm:DLPO",
        options=DLPOOptions,
        needs=frozenset({"log-prob", "denoising-loss"}),
        compares="advantages",
        reference="arXiv:2508.03123",
    )
