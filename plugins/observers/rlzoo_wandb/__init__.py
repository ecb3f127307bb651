"""Logs a run to Weights & Biases: `--observe wandb`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import ObserverSpec, Options, hookimpl


class WandbOptions(Options):
    """Options: the place of the log, and how much is logged."""

    project: str = "rlzoo"
    """Project of the run."""
    entity: str | None = None
    """User or team that owns the project; unset: the default of the account."""
    mode: Literal["online", "offline"] = "online"
    """`offline` only writes files, for `wandb sync` later. `WANDB_MODE` overrides `online`."""
    audio: Annotated[int, Field(ge=0, le=10_000)] = 4
    """Held-out samples per evaluation to log as audio; 0: none."""


@hookimpl
def rlzoo_observers() -> Iterator[ObserverSpec]:
    yield ObserverSpec(
        name="wandb",
        summary="metrics, held-out scores and audio to Weights & Biases",
        target="rlzoo_wandb.observer:WandbObserver",
        options=WandbOptions,
        extra="wandb",
        acts="send the run's configuration, metrics and audio to Weights & Biases",
    )
