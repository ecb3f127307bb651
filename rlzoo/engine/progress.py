"""Display of a run in a terminal or a notebook: a line for each step, a bar, a summary at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console

from rlzoo.config.fallback import Replacement
from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine.console import columns, duration, out, warn_replacement
from rlzoo.engine.events import (
    Evaluated,
    Event,
    Finished,
    Note,
    Observer,
    Progress,
    RunResult,
    Saved,
    Started,
    StepDone,
)
from rlzoo.files.rundir import RunDirectory

_LINES = 200
"""About how many step lines a run prints, however long it is."""


class RunProgress:
    """Observer of a run: a line for a step, and a bar below where somebody watches."""

    def __init__(self, run: ResolvedRun, console: Console | None = None, *, summarise: bool = False) -> None:
        self.run = run
        self.summarise = summarise
        self.console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self.bar = bars.Progress(
            bars.TextColumn("{task.description:>22}"),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            bars.TextColumn("{task.fields[left]}"),
            bars.TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=None, left="")
        self.log: Path | None = None
        self.first_step = 0
        self.steps = run.train.steps
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.bar.stop()

    def __call__(self, event: Event) -> None:
        """Show one event of the engine."""
        match event:
            case Started():
                self._start(event)
            case Progress():
                self._part(event)
            case StepDone():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Note():
                self._say(f"note: {event.message}")
            case Finished():
                self.bar.stop()
                if self.summarise:
                    out.print(summary(self.run, event.result))
            case Saved():
                pass

    def _say(self, line: str) -> None:
        """Show a line, and keep it in the run's `log.txt`."""
        self.console.print(line)
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {line}\n")

    def _start(self, event: Started) -> None:
        self.log = event.directory / "log.txt"
        self.first_step, self.steps, self.started = event.first_step, event.steps, time.monotonic()
        rewards = " + ".join(_named(r.used, r.requested, r.weight) for r in self.run.rewards)
        many = f" x {event.processes} processes" if event.processes > 1 else ""
        self._say(
            f"{self.run.algorithm.spec.name} on {self.run.policy.spec.name} "
            f"({event.trainable:,} of {event.parameters:,} parameters train), reward {rewards}, {event.device}{many}"
        )
        self._say(
            f"{_steps(event.steps)} of {event.rows_per_step} samples in {event.denoising_steps} denoising steps; "
            f"directory {_short(event.directory)}"
        )
        if event.first_step:
            self._say(f"continues after step {event.first_step}")

    def _part(self, event: Progress) -> None:
        self.bar.update(self.task, description=event.phase, completed=event.done, total=event.total)

    def _step(self, event: StepDone) -> None:
        elapsed = time.monotonic() - self.started
        done = event.step - self.first_step
        left = duration(elapsed / done * (self.steps - event.step)) if done else "?"
        self.bar.update(self.task, left=f"{left} left")
        if event.step != self.steps and event.step % max(1, self.steps // _LINES):
            return
        m = event.metrics
        parts = [f"step {event.step:>{len(str(self.steps))}}/{self.steps}"]
        parts.append(f"reward {m['reward/total']:.3f} ± {m['reward/total_std']:.3f}" if "reward/total" in m else "")
        parts.append(f"KL {m['policy/kl']:.2e}" if "policy/kl" in m else "")
        parts.append(f"grad {m['optim/grad_norm']:.2e}" if "optim/grad_norm" in m else "")
        parts.append(f"{left} left")
        self._say("  ".join(part for part in parts if part))

    def _evaluated(self, event: Evaluated) -> None:
        shown = []
        for name, figures in event.summary.items():
            if name == "total" and len(self.run.rewards) == 1 and self.run.rewards[0].weight == 1:
                continue
            gain = f" ({figures['gain']:+.3f} ± {figures['gain_error']:.3f})" if "gain" in figures else ""
            shown.append(f"{name} {figures['mean']:.3f} ± {figures['std']:.3f}{gain}")
        self._say(f"held-out after {event.step} steps: {'; '.join(shown)}")


class ConsoleReporter:
    """Shows runs on the console; a `rlzoo.engine.start.Reporter`.

    `summarise` prints the summary at the end; `profile` records a trace of two steps in the run's directory.
    """

    def __init__(self, *, summarise: bool = True, profile: bool = False) -> None:
        self.summarise, self.profile = summarise, profile

    def replaced(self, replacement: Replacement) -> None:
        """Warn in a panel."""
        warn_replacement(replacement)

    @contextmanager
    def watch(self, run: ResolvedRun, directory: RunDirectory) -> Iterator[Observer]:
        """The progress bar, with a profiler around it if asked for."""
        if not self.profile:
            with RunProgress(run, summarise=self.summarise) as shown:
                yield shown
        else:
            from rlzoo.engine.profiling import TRACE, Profile

            with RunProgress(run, summarise=self.summarise) as shown, Profile(directory, shown) as observer:
                yield observer
            out.print(f"trace: {directory / TRACE} (open it in https://ui.perfetto.dev)")


def summary(run: ResolvedRun, result: RunResult) -> str:
    """The last words of a run: what changed, and where to listen."""
    ended = "." if result.stopped_by == "steps" else f": {result.stopped_by} used up."
    lines = ["", f"Done after {_steps(result.steps)}{ended}"]
    rows = []
    for name, after in result.scores.items():
        before = result.base.get(name)
        if before is None or (name == "total" and len(run.rewards) == 1 and run.rewards[0].weight == 1):
            continue
        row = f"{before['mean']:.3f} -> {after['mean']:.3f}"
        if "gain" in after:
            row += f"   gain {after['gain']:+.3f} ± {after['gain_error']:.3f}"
            row += f", {100 * after['improved']:.0f} % of {after['count']:.0f} samples rose"
        rows.append((f"held-out {name}", row))
    for reward in run.rewards:
        if reward.requested != reward.used:
            rows.append(("reward", f"'{reward.used}' was used, because '{reward.requested}' was unavailable"))
    speaks = result.samples is not None and any(result.samples.glob("*.wav"))
    audio = result.samples if speaks else None
    places = {"report": result.report, "plot": result.plot, "audio": audio, "everything": result.directory}
    rows += [(name, _short(path)) for name, path in places.items() if path is not None]
    if speaks:
        rows.append(("speak", f'rlzoo synth --checkpoint {_short(result.directory)} --text "..." --out x.wav'))
    return "\n".join([*lines, columns(rows)])


def _named(used: str, requested: str, weight: float) -> str:
    name = used if used == requested else f"{used} (instead of {requested})"
    return name if weight == 1 else f"{weight:g} x {name}"


def _short(path: Path) -> str:
    """Relative to here where it lies below here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"
