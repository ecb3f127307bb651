"""The training loop: schedule, averaged weights, log, validation, and checkpoints that resume exactly.

A run leaves in its folder `train.jsonl` (losses and validations), `train.pt` (to resume), `voice.safetensors` (the
averaged weights, to use) and `validation/STEP/` (to listen to). Losses stay on the device and are read every
`log_every` steps only, so that a GPU does not wait for the host.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlzoo.errors import ConfigError, DataError, Diverged, Interrupted
from rlzoo.files.reading import Shape, check, read_lines
from rlzoo.files.signals import stop_requests
from rlzoo.files.voices import VoiceFormat
from rlzoo.files.writing import append_lines, replacing, sweep, write_text
from rlzoo.pretraining.options import PretrainingOptions

OnStep = Callable[[dict[str, float]], None]
"""Called with every row of `train.jsonl`."""

_ON_FULL = "free some space on the disk, then --resume"
_BUFFER_BYTES = 16 << 20
"""Size of the write buffer of a checkpoint: torch writes it in thousands of small pieces."""


class _LogRow(Shape):
    step: int


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of `train.jsonl`, without an unfinished last one. DataError if another line is damaged."""
    rows = read_lines(path)
    for number, row in enumerate(rows, 1):
        check(_LogRow, row, f"'{path}' line {number} is no row of a training log")
    return rows


class Task(ABC):
    """Network, losses and validation of a training. Seed torch before the weights are drawn; the loop draws none."""

    network: nn.Module
    """Module that becomes the voice; part of `trained`."""
    trained: nn.Module
    """All that has parameters to train, on its device."""
    voices: VoiceFormat[Any]

    @abstractmethod
    def losses(self, generator: torch.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of a fresh batch: the scalar to minimise, and the scalars to log.

        `generator` draws on the CPU (which recordings), `noise` on the device; checkpoints hold both.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The voice's description; the loop adds `step`, `minutes` and `options` to its `card`."""

    @abstractmethod
    def validate(self, voice: Path, out: Path) -> dict[str, float]:
        """Metrics to log of a voice on recordings it has not seen; samples go to the folder `out`."""


def choose_device(name: str) -> torch.device:
    """The device of an option: `auto` is the GPU if there is one."""
    return torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def learning_rate(step: int, elapsed: float, options: PretrainingOptions) -> float:
    """Linear warm-up, then a cosine down to `final_learning_rate` over the budget of steps or minutes."""
    progress = step / options.steps
    if options.minutes:
        progress = max(progress, elapsed / (60 * options.minutes))
    low, high = options.final_learning_rate, options.learning_rate
    decayed = low + (high - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return decayed * min(1.0, (step + 1) / options.warmup_steps)


class Pretraining:
    """One training run: everything that a resumed run needs, and the files it writes."""

    def __init__(self, task: Task, out: Path, options: PretrainingOptions) -> None:
        self.task, self.out, self.options = task, out, options
        self.checkpoint, self.voice, self.log = out / "train.pt", out / "voice.safetensors", out / "train.jsonl"
        self.device = next(task.trained.parameters()).device
        self.generator = torch.Generator().manual_seed(options.seed)
        self.noise = torch.Generator(self.device).manual_seed(options.seed)
        self.average = {name: value.detach().clone() for name, value in task.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            task.trained.parameters(), options.learning_rate, weight_decay=options.weight_decay, fused=True
        )
        self.step, self.seconds = 0, 0.0
        self.validated = -1
        """The last step that was validated."""
        self.running: dict[str, Tensor] = {}

    def train_step(self) -> None:
        """One update; its losses and the gradient's norm are added to `running`, on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.seconds, self.options)
        total, parts = self.task.losses(self.generator, self.noise)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.task.trained.parameters(), self.options.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._update_average()
        for name, value in {**parts, "grad_norm": norm}.items():
            self.running[name] = self.running.get(name, 0.0) + value.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        # The average forgets its random start: its horizon grows with the steps made.
        decay = min(self.options.ema_decay, self.step / (self.step + 9))
        pairs = [(self.average[name], value) for name, value in self.task.network.state_dict().items()]
        mixed = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in mixed], [value for _, value in mixed], 1 - decay)
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)

    def read_losses(self) -> dict[str, float]:
        """Means since the last call. Diverged if one is not finite, before anything is written."""
        count = (self.step - 1) % self.options.log_every + 1
        means = {name: round(value.item() / count, 5) for name, value in self.running.items()}
        self.running = {}
        for name, value in means.items():
            if not math.isfinite(value):
                hint = "lower learning_rate, then --resume"
                raise Diverged(f"{name} is {value} within the last {count} of {self.step} steps", hint)
        return means

    def store(self) -> None:
        """Write the voice and, last and whole, the checkpoint; never weights that a loss has spoilt (Diverged)."""
        if any(not bool(torch.isfinite(value)) for value in self.running.values()):
            self.read_losses()
        description = self.task.describe()
        made = {"step": self.step, "minutes": round(self.seconds / 60, 2)}
        # A voice is given to others: it tells the names of files, not in whose folders they were.
        names = {key: value.name for key, value in self.options if isinstance(value, Path)}
        card = {**made, **description.get("card", {}), "options": {**self.options.model_dump(mode="json"), **names}}
        self.task.voices.save(self.voice, self.average, {**description, "card": card}, half=self.options.half)
        state = {
            "losses": self.task.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "running": self.running,
            "generator": self.generator.get_state(),
            "noise": self.noise.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "step": self.step,
            "seconds": self.seconds,
        }
        # Through a file of Python: of its own, torch reports a full disk as an error without a reason.
        with replacing(self.checkpoint, full=_ON_FULL) as temporary, temporary.open("wb", _BUFFER_BYTES) as file:
            torch.save(state, file)

    def restore(self) -> None:
        """Go on from the checkpoint; rows of the log behind it are dropped."""
        if not self.checkpoint.exists():
            raise DataError(f"nothing to resume in '{self.out}'", "leave out --resume to start a new training run")
        try:
            state = torch.load(self.checkpoint, weights_only=True, map_location=self.device)
            self.task.trained.load_state_dict(state["losses"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.running = state["average"], state["running"]
            self.generator.set_state(state["generator"].cpu())
            self.noise.set_state(state["noise"].cpu())
            torch.set_rng_state(state["torch_rng"].cpu())
            if state["cuda_rng"] is not None and self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
            self.step, self.seconds = state["step"], state["seconds"]
        except Exception as error:  # torch's unpickler checks little: a damaged file fails in any way that Python knows
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise DataError(f"cannot read '{self.checkpoint}': {reason}", "start again in another --out") from error
        kept = [row for row in read_log(self.log) if row["step"] <= self.step]
        # A checkpoint is written before the validation of its step, whose row comes after that of the losses.
        if sum(row["step"] == self.step for row in kept) > (self.step % self.options.log_every == 0):
            self.validated = self.step
        write_text(self.log, "".join(json.dumps(row) + "\n" for row in kept))

    def run(self, on_step: OnStep) -> None:
        """Train until the budget is used up or a signal asks to stop; log, validate and save on the way."""
        o = self.options
        started = time.monotonic() - self.seconds
        self.task.network.train()
        with stop_requests() as stop:
            if self.step and self.step % o.validate_every == 0 and self.validated != self.step:
                self._validate(on_step)  # the process was killed before it was done
            while not stop and self.step < o.steps and not (o.minutes and self.seconds >= 60 * o.minutes):
                self.train_step()
                self.seconds = time.monotonic() - started
                if self.step % o.log_every == 0:
                    self._report(self.read_losses(), on_step)
                if self.step % o.validate_every == 0:
                    self._validate(on_step)
                elif self.step % o.save_every == 0:
                    self.store()
            if stop:
                self.store()
                saved = f"{stop.signal} after step {self.step}; everything is saved"
                raise Interrupted(saved, "continue with --resume")
        if self.validated != self.step:
            self._validate(on_step)

    def _validate(self, on_step: OnStep) -> None:
        self.store()
        # The draws of a validation, such as weights that are then read from the voice, are none of the training: it
        # goes on alike whether the step was validated before or after a kill.
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            metrics = self.task.validate(self.voice, self.out / "validation" / f"{self.step:07d}")
        self._report(metrics, on_step)
        self.validated = self.step

    def _report(self, metrics: dict[str, float], on_step: OnStep) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 1), **metrics}
        append_lines(self.log, [row], full=_ON_FULL)
        on_step(row)


def train(
    make_task: Callable[[], Task],
    out: Path,
    options: PretrainingOptions,
    *,
    resume: bool,
    on_step: OnStep,
) -> Path:
    """Train until the budget is used up; the voice is `out/voice.safetensors`, returned, and `out/train.pt` resumes.

    `make_task` may take its time: it is called when `out` is known to be free, and `out` is made when it has returned.

    Raises:
        ConfigError: `out` holds another run.
        DataError: what is wrong with the files in `out`; what `make_task` raises.
        Diverged: a loss that is not finite; the last checkpoint stays.
        Interrupted: after Ctrl-C or SIGTERM, when the step is finished and saved; a second one stops at once.
    """
    if (out / "train.pt").exists() and not resume:
        raise ConfigError(f"'{out}' already holds a training run", "continue it with --resume, or choose another --out")
    training = Pretraining(make_task(), out, options)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make '{out}': {error.strerror}", "choose another --out") from error
    for folder in (out, *out.glob("validation/*/")):
        sweep(folder)
    if resume:
        training.restore()
    else:
        training.log.unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
    training.run(on_step)
    return training.voice


__all__ = ["OnStep", "Task", "choose_device", "train"]
