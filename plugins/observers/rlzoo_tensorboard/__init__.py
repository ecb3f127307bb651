"""Logs a run for TensorBoard: `--observe tensorboard`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import ObserverSpec, Options, hookimpl


class TensorBoardOptions(Options):
    """What is logged, and where to."""

    folder: Path | None = None
    """Folder for the event files; unset: `tensorboard` in the run directory."""
    audio: Annotated[int, Field(ge=0, le=10_000)] = 4
    """Held-out samples per evaluation to log as audio; 0: none."""


@hookimpl
def rlzoo_observers() -> Iterator[ObserverSpec]:
    yield ObserverSpec(
        name="tensorboard",
        summary="metrics, held-out scores and audio as TensorBoard event files",
        target="rlzoo_tensorboard.observer:TensorBoardObserver",
        options=TensorBoardOptions,
        extra="tensorboard",
    )
