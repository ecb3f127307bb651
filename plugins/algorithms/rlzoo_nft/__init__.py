"""DiffusionNFT: reward learning on the forward process (arXiv:2509.16117). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class NFTOptions(Options):
    """Options of DiffusionNFT; the README of this plugin has the equations."""

    beta: Annotated[float, Field(gt=0)] = 1.0
    """Distance of the implicit positive and negative policies from the old one."""
    kl: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of the squared distance to the starting weights' predictions."""
    advantage_max: Annotated[float, Field(gt=0)] = 5.0
    """Advantage that counts as certainly good."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Gradient updates on each step's samples, each with fresh draws."""
    draws: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Times and noises per sample that an update averages over."""
    decay_flat: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Gradient updates in which the old policy keeps nothing of itself."""
    decay_rate: Annotated[float, Field(ge=0)] = 1e-3
    """After u gradient updates it keeps min(decay_rate (u - decay_flat), decay_max) of itself."""
    decay_max: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Largest share that the old policy keeps of itself."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="nft",
        summary="DiffusionNFT: learn good and bad samples on the forward process",
        target="rlzoo_nft.algorithm:NFT",
        options=NFTOptions,
        needs=frozenset({"denoising-loss"}),
        compares="advantages",
        learning_rate_scale=0.1,
        reference="arXiv:2509.16117",
    )
