"""Diffusion-DPO, online and from a file of preferences (arXiv:2311.12908). Announcement and options; no torch here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import AlgorithmSpec, Options, hookimpl


class DPOOptions(Options):
    """Options of Diffusion-DPO; the README of this plugin has the equations."""

    preferences: Path | None = None
    """File of pairs, as `rlzoo listen export` writes it, to learn (offline). Unset: pairs of own samples (online)."""
    pairs_per_step: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Pairs of the file in one optimisation step (offline)."""
    beta: Annotated[float, Field(gt=0)] = 500.0
    """Strength of the KL constraint: larger keeps nearer to the starting weights."""
    updates: Annotated[int, Field(ge=1, le=10_000)] = 4
    """Gradient updates on each step's pairs, each with fresh times and noise."""


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    yield AlgorithmSpec(
        name="dpo",
        summary="Diffusion-DPO on best and worst of own samples, or on a file",
        target="rlzoo_dpo.algorithm:DPO",
        options=DPOOptions,
        needs=frozenset({"denoising-loss"}),
        compares="samples",
        learning_rate_scale=0.1,
        reference="arXiv:2311.12908",
    )
