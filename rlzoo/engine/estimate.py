"""Estimate of a step before the first one, from the measured time and memory of one row.

One row of the longest prompt of the first step goes through the network without and with a gradient. Memory is counted
tensor by tensor, as they come and go, which needs no allocator's statistics and sees what a policy computes again.
"""

from __future__ import annotations

import itertools
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.policy import Policy
from rlzoo.core.types import Batch, Prompt, Schedule

SHARE, MOST = 0.6, 256
"""Share of a GPU's free memory for the graph of a micro-batch, and its largest number of rows."""


@dataclass(frozen=True)
class Row:
    """One row, once through the network."""

    elements: int
    """Number of elements of its state."""
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
    return Row(x[0].numel(), forward / rows, trained / rows, memory.most() // rows)


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


def automatic(row: Row, device: torch.device) -> int:
    """On a CPU one row: gradients are then summed alike however rows are shared out, and a network of convolutions
    gains little from more. On a GPU the largest power of two of rows whose graphs fit, at least 1."""
    if device.type == "cpu":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    rows = int(SHARE * free // max(row.graph_bytes, 1))
    return max(1, min(MOST, 2 ** (rows.bit_length() - 1))) if rows else 1


def text(row: Row, policy: Policy, table: RolloutTable, train: TrainTable, processes: int, passes: int | None) -> str:
    """One line for the user. `passes`: over the samples of who trains samples; None: of who trains transitions."""
    schedule = policy.schedule(table.num_steps)
    rows = -(-table.prompts_per_step * table.samples_per_prompt // processes)
    steps = int(schedule.stochastic.sum())
    if passes is None and train.step_selection != "all":
        steps = max(1, round(train.step_fraction * steps))
    trainings = rows * (train.inner_epochs * steps if passes is None else passes)
    sampling, training = rows * len(schedule) * row.forward_seconds, trainings * row.train_seconds
    parameters = list(policy.parameters())
    weights = sum(p.numel() * p.element_size() for p in parameters)
    trained = sum(p.numel() * (8 + 2 * p.element_size()) for p in parameters if p.requires_grad)
    states = rows * (len(schedule) + 1) * row.elements * 4
    graph = row.graph_bytes * train.micro_batch
    total = 2 * weights + trained + states + graph  # reference; a gradient in float64 and AdamW's two moments
    step = sampling + training
    at_once = "one row" if train.micro_batch == 1 else f"{train.micro_batch} rows"
    return (
        f"estimate, from one row of {row.elements} elements measured now: {_duration(step)} a step (sampling "
        f"{_duration(sampling)}, training {_duration(training)}), {_duration(step * train.steps)} in all, scoring and "
        f"evaluation not counted; memory {_size(total)}, of which {_size(graph)} for {at_once} at once"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
