"""The observer interface: what a plugin may see of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from torch import Tensor

from rlzoo.core.specs import Options

O = TypeVar("O", bound=Options)
EndState = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class RunInfo:
    """A run that begins, or goes on."""

    directory: Path
    """The run directory; an observer may add a folder of its own to it."""
    config: Mapping[str, Any]
    """Every value of the run, as in `config.json`."""
    first_step: int
    """0, or the step after which a resumed run goes on: what was reported of later steps no longer counts."""
    steps: int
    """Steps that the run is asked to take."""


@dataclass(frozen=True)
class AudioSample:
    """One held-out sample of an evaluation."""

    prompt: str
    """Id of its prompt."""
    text: str
    wave: Tensor
    """(L,) float32 in [-1, 1], on the CPU."""
    sample_rate: int
    """In Hz."""
    scores: Mapping[str, float]
    """`total`, and the score of each reward and judge."""


class RunObserver(Generic[O]):
    """Sees a run and cannot change it. Derive from it, and override what you want to know.

    Only the first process calls an observer, and only with copies. Its random numbers are its own: the
    generators of Python, NumPy and torch are put back after each call. If a method raises, the run says so once, goes
    on, and calls this observer no more. The methods are called in the run's thread; training waits for them.
    """

    def __init__(self, options: O) -> None:
        self.options = options

    def start(self, run: RunInfo) -> None:
        """The run is set up; nothing was sampled yet."""

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Optimisation step `step`, counted from 1, is done. `metrics` is its line of `metrics.jsonl`."""

    def evaluation(self, step: int, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Held-out prompts were judged after `step` steps. Each score has `mean`, `std` and, after the base, `gain`."""

    def audio(self, step: int, sample: AudioSample) -> None:
        """A held-out sample of the evaluation after `step` steps; called for each of them. Only if they are audio."""

    def end(self, state: EndState) -> None:
        """The run is over, whether it is done, failed or was interrupted: write what is left, and close files."""
