"""Checks of an observer. Each check takes an `ObserverSubject` and raises `Broken`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlzoo.core.observer import AudioSample, EndState, RunInfo, RunObserver
from rlzoo.testing.results import Broken, Skipped

SCORES = {"total": {"mean": 1.5, "std": 0.25, "count": 2.0}}
GAIN = {
    "total": {"mean": 1.75, "std": 0.25, "count": 2.0, "base": 1.5, "gain": 0.25, "gain_error": 0.1, "improved": 1.0}
}


@dataclass(frozen=True)
class ObserverSubject:
    """An observer to check; `acts`: what it does outside the machine, as its record says."""

    make: Callable[[], RunObserver[Any]]
    acts: str = ""


def _tell(observer: RunObserver[Any], folder: Path, first_step: int, state: EndState) -> None:
    """What the engine tells an observer of a run of two steps, or of its second half."""
    config = {"seed": 0, "policy": {"name": "toy"}, "rewards": [{"name": "toy"}], "train": {"steps": 2}}
    observer.start(RunInfo(folder, copy.deepcopy(config), first_step, 2))
    if not first_step:
        observer.evaluation(0, copy.deepcopy(SCORES))
        observer.audio(0, AudioSample("p-1", "A text.", torch.linspace(-1, 1, 800), 8000, {"total": 1.5}))
    for step in range(first_step + 1, 3):
        observer.step(step, {"step": step, "seconds": 0.5, "reward/total": 1.5, "optim/grad_norm": 0.1})
    observer.evaluation(2, copy.deepcopy(GAIN))
    observer.audio(2, AudioSample("p-1", "A text.", torch.linspace(1, -1, 800), 8000, {"total": 1.75}))
    observer.end(state)


def sees_a_whole_run(subject: ObserverSubject) -> None:
    """It takes every call of a run that is done, of one that fails, and of one that is resumed."""
    if subject.acts:
        raise Skipped(f"it would {subject.acts}")
    with tempfile.TemporaryDirectory() as folder:
        for first_step, state in ((0, "interrupted"), (1, "done")):
            _tell(subject.make(), Path(folder), first_step, state)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        _tell(subject.make(), Path(folder), 0, "failed")


def leaves_the_run_files_alone(subject: ObserverSubject) -> None:
    """Files that the run directory has already stay as they are."""
    if subject.acts:
        raise Skipped(f"it would {subject.acts}")
    with tempfile.TemporaryDirectory() as folder:
        names = ("config.json", "metrics.jsonl", "status.json", "log.txt")
        for name in names:
            (Path(folder) / name).write_text(name, encoding="utf-8")
        _tell(subject.make(), Path(folder), 0, "done")
        changed = [name for name in names if (Path(folder) / name).read_text(encoding="utf-8") != name]
        if changed:
            raise Broken(f"it changes {', '.join(changed)} of the run; write files of your own beside them")


CHECKS: Sequence[Callable[[ObserverSubject], None]] = (sees_a_whole_run, leaves_the_run_files_alone)
