"""Events that a run sends to its observer. Light: importing this must not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """The run is set up; nothing was sampled yet."""

    directory: Path
    device: str
    processes: int
    first_step: int
    """0, or the step a resumed run goes on from."""
    steps: int
    rows_per_step: int
    denoising_steps: int
    parameters: int
    """Number of parameters of the policy."""
    trainable: int


@dataclass(frozen=True)
class Progress:
    """Part of a step: `done` of `total` units of `phase` (`sampling`, `scoring`, `evaluating`)."""

    phase: str
    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """One optimisation step; `step` counts finished steps, from 1. `metrics` is its line of metrics.jsonl."""

    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Evaluated:
    """Held-out prompts were judged after `step` steps; `summary` is `scores` of eval/<step>.json."""

    step: int
    summary: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Saved:
    """A checkpoint is on disk."""

    step: int
    directory: Path


@dataclass(frozen=True)
class Note:
    """Something the user should read: a check that was skipped, a budget that is used up."""

    message: str


@dataclass(frozen=True)
class RunResult:
    """Result of a run. `scores`, `base`: held-out summaries after the last step and before the first."""

    directory: Path
    steps: int
    stopped_by: str
    """`steps`, or the budget that was used up: `samples`, `seconds` ..."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    base: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    report: Path | None = None
    plot: Path | None = None
    samples: Path | None = None


@dataclass(frozen=True)
class Finished:
    """The run is over and everything is written."""

    result: RunResult


Event = Started | Progress | StepDone | Evaluated | Saved | Note | Finished
Observer = Callable[[Event], None]
