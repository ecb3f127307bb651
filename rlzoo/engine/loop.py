"""One run from its first step to its report."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from rlzoo.config.resolve import ResolvedRun
from rlzoo.core.fault import describe_fault
from rlzoo.engine import checkpoint, selfcheck
from rlzoo.engine.evaluate import evaluate, read
from rlzoo.engine.events import Evaluated, Event, Finished, Note, Observer, RunResult, Saved, Started, StepDone
from rlzoo.engine.observers import Observers
from rlzoo.engine.peers import Peers
from rlzoo.engine.processes import any_process, gather, make_fabric
from rlzoo.engine.results import result_of
from rlzoo.engine.rollout import share
from rlzoo.engine.run import RunState, build
from rlzoo.errors import DataError, Diverged, Interrupted, PluginError
from rlzoo.files.rundir import RunDirectory
from rlzoo.files.signals import StopRequest, stop_requests


def train(
    run: ResolvedRun, rundir: RunDirectory, *, resume: bool = False, observer: Observer | None = None
) -> RunResult:
    """Do the run, or what is left of it, and write its report.

    Under torchrun every process calls this; the first one writes and observes. Resuming goes on from the newest
    finished checkpoint, or from the start where there is none. Raises errors of `rlzoo.errors`; Interrupted after a
    signal, when everything is saved. `status.json` says how it ended in any case.
    """
    fabric = make_fabric(run.train.device, run.train.precision)
    return Loop(run, rundir, fabric, observer or _nobody).run(resume)


def _nobody(event: Event) -> None:
    """The observer of a run that nobody watches."""


def _said(error: BaseException) -> BaseException:
    """`sys.exit` inside a plugin would end the run without a word, and with the exit code of one that is done."""
    if not isinstance(error, SystemExit):
        return error
    return PluginError(f"the run was ended by sys.exit: {describe_fault(error)}", "a plugin raises an error instead")


class Loop:
    """The run's control flow; what it controls lives in `Context`."""

    def __init__(self, config: ResolvedRun, rundir: RunDirectory, fabric: Fabric, observer: Observer) -> None:
        self.config = config
        self.rundir = rundir
        self.fabric = fabric
        self.writes = fabric.global_rank == 0
        # Observers are made here, where every error ends in `status.json`, and only by the process that writes.
        self.observers = Observers(config, rundir, observer) if self.writes else None
        self.observe: Observer = self.observers or _nobody
        self.step = 0
        self.stop = StopRequest()

    def run(self, resume: bool) -> RunResult:
        """See `train`."""
        peers = Peers(self.rundir, self.fabric)
        # Signals are heard to the end: torchrun sends one to the processes that wait for the cause of a failure, and
        # its default action would end the process before the cause is written.
        with stop_requests() as self.stop:
            try:
                live = build(self.config, self.rundir, self.fabric, self.observe)
                self._begin(live, resume)
                stopped_by = self._steps(live)
                result = self._finish(live, stopped_by)
            except BaseException as error:
                cause = peers.cause(_said(error))
                self._failed(cause)
                if cause is not error:
                    raise cause from error
                raise
            self._status("done")
        self.observe(Finished(result))
        return result

    def _begin(self, live: RunState, resume: bool) -> None:
        ctx, config = live.ctx, self.config
        folder = checkpoint.latest(self.rundir) if resume else None
        if folder is not None:
            checkpoint.restore(folder, ctx, live.algorithm)
        self.step = ctx.step
        if self.writes:
            self.rundir.sweep()
            checkpoint.tidy(self.rundir, config.train.keep_checkpoints)  # a kill may have come between saving and this
            self.rundir.truncate_metrics(ctx.step)
        self._status("running")
        parameters = list(ctx.policy.parameters())
        self.observe(
            Started(
                directory=self.rundir.path,
                device=str(self.fabric.device),
                processes=self.fabric.world_size,
                first_step=ctx.step,
                steps=config.train.steps,
                rows_per_step=config.rollout.prompts_per_step * config.rollout.samples_per_prompt,
                denoising_steps=len(ctx.policy.schedule(config.rollout.num_steps)),
                parameters=sum(p.numel() for p in parameters),
                trainable=sum(p.numel() for p in parameters if p.requires_grad),
            )
        )
        if live.estimate:
            self.observe(Note(live.estimate))
        every = config.train.eval_every
        if ctx.step == 0 or (every and ctx.step % every == 0 and read(self.rundir, ctx.step) is None):
            self._evaluate(live)  # a signal saves at once and leaves a due evaluation to us

    def _steps(self, live: RunState) -> str:
        """Step until the number, a budget or a signal ends it; returns `steps` or the budget's name."""
        ctx, table = live.ctx, self.config.train
        checks = selfcheck.SelfCheck(live.algorithm, ctx, enabled=table.self_checks and ctx.step == 0)
        exhausted = ctx.counters.exhausted(table.budget)
        while ctx.step < table.steps and not exhausted:
            self._step(live, checks)
            # The clock is not the same everywhere; the first process decides.
            exhausted = self.fabric.broadcast(ctx.counters.exhausted(table.budget))
            stopped = any_process(self.fabric, bool(self.stop))
            last = ctx.step == table.steps or bool(exhausted)
            if not stopped and (last or (table.eval_every and ctx.step % table.eval_every == 0)):
                self._evaluate(live)
            if last or stopped or ctx.step % table.save_every == 0:
                self._save(live)
            if stopped and not last:
                raise Interrupted(
                    f"stopped after step {ctx.step} of {table.steps}; everything is saved",
                    f"continue with rlzoo run --resume {self.rundir.path}",
                )
        if read(self.rundir, ctx.step) is None:
            # A run that was interrupted, and whose number of steps was lowered below that.
            self._evaluate(live)
        if exhausted:
            self.observe(Note(f"the budget of {exhausted} is used up after step {ctx.step}"))
        return exhausted or "steps"

    def _step(self, live: RunState, checks: selfcheck.SelfCheck) -> None:
        ctx = live.ctx
        started = time.monotonic()
        ctx.metrics = {}
        with checks.around_step() as (checked, notes):
            own = live.algorithm.step(checked)
        for note in notes:
            self.observe(Note(note))
        if self.config.train.self_checks:
            selfcheck.check_updates(live.algorithm, ctx)
        ctx.counters.collect(self.fabric)
        seconds = self.fabric.broadcast(time.monotonic() - started)
        ctx.counters.seconds += seconds
        ctx.step += 1
        row = {"step": ctx.step, "seconds": seconds, **self._agreed(own), **ctx.metrics, **ctx.counters.metrics()}
        for name, value in row.items():
            if not math.isfinite(value):
                raise Diverged(f"'{name}' is {value} in step {ctx.step}", "lower train.learning_rate")
        if self.writes:
            self.rundir.append_metrics(row)
        self.step = ctx.step
        self.observe(StepDone(ctx.step, row))

    def _agreed(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """An algorithm's metrics over processes: the largest of `..._max`, the smallest of `..._min`, else the mean.

        A mean over rows was taken over each process's own, of which there are as many as its share of the prompts has.
        """
        fabric, agreed = self.fabric, dict[str, float]()
        own_prompts = len(share(self.config.rollout.prompts_per_step, fabric.global_rank, fabric.world_size))
        weights = gather(fabric, torch.tensor([own_prompts], dtype=torch.float64))
        for name, value in sorted(metrics.items()):
            gathered = gather(fabric, torch.tensor([float(value)], dtype=torch.float64))
            one = (
                gathered.max()
                if name.endswith("_max")
                else gathered.min()
                if name.endswith("_min")
                else (gathered * weights).sum() / weights.sum()
            )
            agreed[name] = float(one)
        return agreed

    def _evaluate(self, live: RunState) -> None:
        document = evaluate(live.ctx, live.heldout, live.judges, self.config.eval, self.rundir)
        self.observe(Evaluated(live.ctx.step, document["scores"]))

    def _save(self, live: RunState) -> None:
        if self.writes:
            folder = checkpoint.save(self.rundir, live.ctx, live.algorithm, self.config.train.keep_checkpoints)
            self.observe(Saved(live.ctx.step, folder))
        self.fabric.barrier()

    def _finish(self, live: RunState, stopped_by: str) -> RunResult:
        if read(self.rundir, live.ctx.step) is None or read(self.rundir, 0) is None:
            raise DataError(f"'{self.rundir / 'eval'}' lacks the first or the last evaluation", "somebody removed it")
        if self.writes:
            from rlzoo.engine.report import write_plot, write_report  # matplotlib and statistics: not before the end

            write_plot(self.rundir)
            write_report(self.rundir)
        return result_of(self.rundir, stopped_by)

    def _status(self, state: Any, error: str = "", hint: str = "") -> None:
        if not self.writes:
            return
        try:
            signal = self.stop.signal if state == "interrupted" else ""
            self.rundir.set_status(state, step=self.step, error=error, hint=hint, signal=signal)
        finally:
            if self.observers and state != "running":
                self.observers.end(state)

    def _failed(self, error: BaseException) -> None:
        """Say in `status.json` how it ended; the error goes on to the caller."""
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        folder = checkpoint.latest(self.rundir)
        if isinstance(error, Diverged) and folder is not None:
            error.hint += f"; last good checkpoint: {folder}"
        message = getattr(error, "message", f"{type(error).__name__}: {error}")
        try:
            self._status("interrupted" if stopped else "failed", message, getattr(error, "hint", ""))
        except DataError as unwritten:
            error.add_note(f"nor could this be written to status.json: {unwritten.message}")
