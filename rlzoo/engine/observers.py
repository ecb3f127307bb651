"""Tells a run's observers what happens, and keeps the run safe from them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlzoo.config.registry import import_target
from rlzoo.config.resolve import ResolvedRun
from rlzoo.core.fault import describe_fault
from rlzoo.core.observer import AudioSample, EndState, RunInfo, RunObserver
from rlzoo.engine.evaluate import read
from rlzoo.engine.events import Evaluated, Event, Note, Observer, Started, StepDone
from rlzoo.files.rundir import RunDirectory
from rlzoo.speech.audio import read_audio

Told = RunObserver[Any]


class Observers:
    """An `Observer` of the engine that passes events on, first to `shown` and then to the run's observers.

    PluginError if an observer cannot be imported: the user asked for it by name, and nothing has begun. Whatever else
    one raises, then or later, is reported once as a note; the run goes on without it.
    """

    def __init__(self, run: ResolvedRun, rundir: RunDirectory, shown: Observer) -> None:
        self._run, self._rundir, self._shown = run, rundir, shown
        self._told: dict[str, Told] = {}
        self._started = False
        for choice in run.observers:
            name = choice.spec.name
            with _unchanged():
                target = import_target(choice.spec.target, f"observer '{name}'", choice.spec.extra)
            with self._guarded(name, "__init__"):
                self._told[name] = target(choice.options)

    def __call__(self, event: Event) -> None:
        """Show an event, then tell the observers about it."""
        self._shown(event)
        match event:
            case Started():
                self._started = True
                about = RunInfo(event.directory, self._run.to_dict(), event.first_step, event.steps)
                self._tell("start", lambda told: told.start(copy.deepcopy(about)))
            case StepDone():
                self._tell("step", lambda told: told.step(event.step, dict(event.metrics)))
            case Evaluated():
                self._tell("evaluation", lambda told: told.evaluation(event.step, copy.deepcopy(dict(event.summary))))
                self._tell("audio", lambda told: self._play(told, event.step))

    def end(self, state: EndState) -> None:
        """Tell the observers how the run ended, if they were told that it began."""
        if self._started:
            self._tell("end", lambda told: told.end(state))
        self._told.clear()

    def _tell(self, method: str, call: Callable[[Told], None]) -> None:
        for name, told in list(self._told.items()):
            with self._guarded(name, method):
                call(told)

    def _play(self, told: Told, step: int) -> None:
        if type(told).audio is RunObserver.audio:
            return  # it does not listen, so nothing is read
        for sample in _samples(self._rundir, step):
            told.audio(step, sample)

    @contextmanager
    def _guarded(self, name: str, method: str) -> Iterator[None]:
        """Report what an observer raises, drop it, and put back what it may have changed."""
        try:
            with _unchanged(), torch.no_grad():
                yield
        except (Exception, SystemExit) as error:
            self._told.pop(name, None)
            self._shown(Note(f"observer '{name}' failed in {method}() and is switched off: {describe_fault(error)}"))


@contextmanager
def _unchanged() -> Iterator[None]:
    """Put the random generators of Python, NumPy and torch back."""
    python, numpy = random.getstate(), np.random.get_state()
    devices: Sequence[int] = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _samples(rundir: RunDirectory, step: int) -> Iterator[AudioSample]:
    """Read the evaluation from the run directory: no tensor of the run leaves the engine."""
    document = read(rundir, step)
    for row in document["rows"] if document else ():
        if row["file"]:
            wave, rate = read_audio(Path(rundir / row["file"]))
            yield AudioSample(row["prompt"], row["text"], wave, rate, dict(row["scores"]))
