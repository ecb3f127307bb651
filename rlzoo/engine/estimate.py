"""Estimate of a step before the first one, from the measured time and memory of one row.

One row of the longest prompt of the first step goes through the network without and with a gradient. Memory is counted
tensor by tensor, as they come and go, which needs no allocator's statistics and sees what a policy computes again.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.policy import Policy
from rlzoo.core.types import Batch, Prompt, Schedule
from rlzoo.engine.rollout import rows_at_once

SHARE, MOST = 0.6, 256
"""Share of a GPU's free memory for the graph of a micro-batch, and its largest number of rows."""
ON_CORES = 16
"""Rows of a micro-batch on a CPU where each has a core: an even share for 2, 4, 8 and 16 cores."""


@dataclass(frozen=True)
class Row:
    """One row, once through the network."""

    elements: int
    """Number of elements of its state."""
    frames: int
    """Length of its state's last axis."""
    forward_seconds: float
    train_seconds: float
    """Forward and backward, of a window where the run trains windows."""
    graph_bytes: int
    """Most that is alive at once in forward and backward, but for what stays: weights, their gradients, caches."""


def measure(policy: Policy, prompts: Sequence[Prompt], table: RolloutTable, train: TrainTable, rows: int = 1) -> Row:
    """Time and memory of the longest of these prompts; leaves no gradient behind and draws nothing.

    `rows` of it go at once, for what pays in a batch only: a compiler makes one graph for two rows and more.
    """
    with torch.no_grad():
        cond = policy.condition(prompts)
        longest = policy.lengths(cond).argmax()[None]
        cond = policy.condition([prompts[int(longest)]]).repeat(rows)
    schedule = policy.schedule(table.num_steps)
    x = torch.zeros(rows, *policy.state_shape(cond), device=longest.device)
    part = cond
    if train.window_frames:
        frames = policy.frames(cond)
        count = frames.clamp(max=train.window_frames)
        part, place = policy.crop(cond, (frames - count) // 2, count)
    k = torch.zeros(rows, dtype=torch.int64, device=x.device)
    y = place.cut(x) if train.window_frames else x

    def both() -> None:
        loss = _loss(policy, y, k, part, schedule)
        if loss.requires_grad:  # a policy that carries none is the self-checks' affair
            loss.backward()

    with torch.random.fork_rng(devices=[]):
        both()  # warm-up, and time to compile
        policy.zero_grad(set_to_none=True)
        # A compiler refuses to work while its tensors are watched; it would keep no more than is counted without it.
        with torch.compiler.set_stance("force_eager"), Memory() as memory:
            both()
        trained = _timed(x.device, both)
    policy.zero_grad(set_to_none=True)
    with torch.no_grad():
        policy.transition(x, k, cond, schedule)  # warms up
        forward = _timed(x.device, lambda: policy.transition(x, k, cond, schedule))
    return Row(x[0].numel(), x.shape[-1], forward / rows, trained / rows, memory.most() // rows)


class Memory(TorchDispatchMode):
    """Hears of every tensor that is made inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, int] = {}  # storage -> its number
        self._log: list[tuple[int, int]] = []  # number, bytes that came or went
        self._count = itertools.count()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._came(tensor.untyped_storage())
        return made

    def _came(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._alive:
            self._alive[id(storage)] = number = next(self._count)
            self._log.append((number, storage.nbytes()))
            weakref.finalize(storage, self._went, id(storage), storage.nbytes())

    def _went(self, key: int, size: int) -> None:
        self._log.append((self._alive.pop(key), -size))

    def most(self) -> int:
        """Largest number of bytes at once of tensors that are gone by now."""
        here = set(self._alive.values())
        return max(itertools.accumulate((size for number, size in self._log if number not in here), initial=0))


def _loss(policy: Policy, x: Tensor, k: Tensor, cond: Batch, schedule: Schedule) -> Tensor:
    # The mode and not a log-probability: not every policy has one.
    return policy.transition(x, k, cond, schedule).mode.square().mean()


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    started = _now(device)
    work()
    return _now(device) - started


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def automatic(row: Row, device: torch.device, rows_on_cores: bool = False) -> int:
    """On a CPU one row, or some if the policy gives each a core: gradients are then summed alike however rows are
    shared out, and a network of convolutions gains little from more in one call. On a GPU the largest power of two of
    rows whose graphs fit, at least 1."""
    if device.type == "cpu":
        return ON_CORES if rows_on_cores else 1
    free, _ = torch.cuda.mem_get_info(device)
    rows = int(SHARE * free // max(row.graph_bytes, 1))
    return max(1, min(MOST, 2 ** (rows.bit_length() - 1))) if rows else 1


def in_use(device: torch.device) -> int:
    """Bytes of the device that this process uses now. On a CPU: of main memory, programs and files included."""
    if device.type == "cuda":
        allocated: int = torch.cuda.memory_allocated(device)
        return allocated
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def needed(policy: Policy, train: TrainTable, used: int, states: int, graph: int) -> int:
    """Bytes at the peak of a step, or while its checkpoint is written. `used` of them are in use before the first step,
    by the policy, its starting weights and the rewards; `states` is a rollout's, `graph` what goes back at once.
    """
    parameters = list(policy.parameters())
    weights: int = sum(value.numel() * value.element_size() for value in policy.state_dict().values())
    trained = [p for p in parameters if p.requires_grad]
    one = sum(p.numel() * p.element_size() for p in trained)
    kept = one * (3 if train.ema_decay else 2)  # AdamW's two moments, the average
    training = sum(p.numel() * 8 for p in trained) + states + graph  # gradients are summed in float64
    # Checkpoints are written from main memory: a copy of the weights, and safetensors' two; then the rest, twice.
    saving = 2 * weights + max(weights, 2 * kept)
    on_cpu = bool(parameters) and parameters[0].device.type == "cpu"
    return used + weights + kept + (max(training, saving) if on_cpu else training)  # the reference's are weights too


def text(
    row: Row,
    policy: Policy,
    table: RolloutTable,
    train: TrainTable,
    processes: int,
    passes: int | None,
    used: int,
) -> str:
    """One line for the user. `passes`: over the samples of who trains samples; None: of who trains transitions. `used`:
    bytes that are in use already, see `in_use`.
    """
    schedule = policy.schedule(table.num_steps)
    rows = -(-table.prompts_per_step * table.samples_per_prompt // processes)
    steps = int(schedule.stochastic.sum())
    if passes is None and train.step_selection != "all":
        steps = max(1, round(train.step_fraction * steps))
    trainings = rows * (train.inner_epochs * steps if passes is None else passes)
    sampling, training = rows * len(schedule) * row.forward_seconds, trainings * row.train_seconds
    states = rows * (len(schedule) + 1) * row.elements * 4
    together = min(trainings, rows_at_once(train.micro_batch, train.micro_batch_frames, row.frames))
    graph = row.graph_bytes * together
    total = needed(policy, train, used, states, graph)
    step = sampling + training
    at_once = "one row" if together == 1 else f"{together} rows"
    return (
        f"estimate, from one row of {row.elements} elements measured now: {_duration(step)} a step (sampling "
        f"{_duration(sampling)}, training {_duration(training)}), {_duration(step * train.steps)} in all, scoring and "
        f"evaluation not counted; memory {_size(total)}, of which {_size(used)} are in use already and {_size(graph)} "
        f"are for {at_once} at once"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
