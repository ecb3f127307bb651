"""DDPO: denoising diffusion policy optimisation (arXiv:2305.13301). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlzoo.plugin import AlgorithmSpec, Clip, Options, hookimpl


class DDPOOptions(Options):
    """Options of DDPO; the README of this plugin has the equations."""

    estimator: Literal["is", "sf"] = "is"
    """Importance-sampled with a clipped ratio, for any number of updates; score function, for one update per step."""
    clip: Clip = 1e-4
    """Half-width of the ratio's trust region (`is`), per element; or [below 1, above 1]."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="ddpo",
        summary="policy gradient over denoising steps, clipped or score function",
        target="rlzoo_ddpo.algorithm:DDPO",
        options=DDPOOptions,
        needs=frozenset({"log-prob"}),
        compares="advantages",
        reference="arXiv:2305.13301",
    )
