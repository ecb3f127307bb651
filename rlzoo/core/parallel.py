"""Rows, tiles or windows side by side on a CPU: each on one core, from its first operation to its last.

PyTorch splits every operation among the cores again, and what one core has written the next operation reads on the
other. Where this was measured, the transfers took as long as the arithmetic. Inside `pool`, each thread runs its
operations alone, so a row's bits do not depend on the number of cores.

`map_rows` is all that most policies and rewards need.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

RowFunction = Callable[[int, Tensor], Tensor]

_pool = local()
"""Number of threads that compute the tiles of this thread."""

_memory = local()
"""Scratch memory of this thread, by type."""

_SCRATCH, _FEWEST_ROWS = 2**19, 256
"""Numbers that stay in a core's cache, and rows of a product that are worth reading all weights for (measured)."""


def size() -> int:
    """Return the number of tiles that are computed at once."""
    count: int = getattr(_pool, "size", 1)
    return count


@contextmanager
def pool() -> Iterator[None]:
    """Inside, `each` shares its work among as many threads as PyTorch may use, and operations run on one thread.

    Not under a profiler or a dispatch mode: they would see the operations of this thread alone.
    """
    before = size()
    threads = _gather()
    try:
        yield
    finally:
        if threads > 1:
            _pool.size = before
            torch.set_num_threads(threads)


def _gather() -> int:
    """Turn all threads that PyTorch may use into a pool, and return their number."""
    # Three things in this file have no public name in PyTorch: whether a profiler is on, whether a dispatch mode is on
    # (the module that defines these modes is itself private), and a callback at the end of a backward pass, for which
    # PyTorch's own DDP and FSDP call the same method.
    threads = torch.get_num_threads()
    watched = torch._C._autograd._profiler_enabled() or is_in_torch_dispatch_mode()
    if threads == 1 or watched:
        return 1
    _helpers(threads - 1, os.getpid())
    _pool.size = threads
    torch.set_num_threads(1)
    return threads


class _FromHereBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        threads = _gather()
        if threads > 1:

            def dissolve() -> None:
                _pool.size = 1
                torch.set_num_threads(threads)

            torch.autograd.Variable._execution_engine.queue_callback(dissolve)
        return grads[0]


def pool_from_here_back(x: Tensor) -> Tensor:
    """`x`; a pool computes its gradient and all that follows in the same backward pass.

    Threads of PyTorch's that have just worked at an operation look for more for some milliseconds, in the way of ours:
    so none of the operations between ours is theirs. (A backward pass that fails leaves PyTorch with one thread.)
    """
    out: Tensor = _FromHereBack.apply(x)
    return out


def each(work: Callable[..., None], pieces: Sequence[tuple[int, ...]]) -> None:
    """`work(*piece)` for every piece, on a core each; what it shares of a single one in its turn is shared by all."""
    before, waiting = size(), iter(pieces)
    threads = min(before, len(pieces))
    inference = torch.is_inference_mode_enabled()

    def work_through() -> None:
        for piece in waiting:  # a free thread takes the next one
            work(*piece)

    def help_out() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work_through()

    if threads <= 1:
        work_through()
        return
    others = [_helpers(before - 1, os.getpid()).submit(help_out) for _ in range(threads - 1)]
    try:
        _pool.size = 1  # what is shared already is not shared again
        work_through()
    finally:
        _pool.size = before
        wait(others)  # whatever went wrong, nobody works on behind the caller's back
    for other in others:
        other.result()


def map_rows(function: RowFunction, x: Tensor, parameters: Sequence[Tensor] = ()) -> Tensor:
    """Apply `function` to every row of `x` (N, ...), a row to a core, and put the results together.

    Results and gradients are the same to the last bit on any number of cores.

    Args:
        function: (row's index, its values (1, ...)) -> (1, ...), of one shape for all rows; called in several threads.
        x: on a CPU; differentiable.
        parameters: what else `function` uses and what a gradient is wanted of.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    if torch.is_grad_enabled() and (x.requires_grad or wanted):
        out: Tensor = _Rows.apply(function, x, *wanted)
        return out
    rows: list[Tensor] = [x] * len(x)

    def work(row: int) -> None:
        rows[row] = function(row, x[row : row + 1])

    with pool():
        each(work, [(row,) for row in range(len(x))])
    return torch.cat(rows)


class _Rows(torch.autograd.Function):
    """`map_rows` with a gradient: each row has a graph of its own, and its backward pass runs on the row's core."""

    @staticmethod
    def forward(ctx: Any, function: RowFunction, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        ctx.inputs = [row.detach().requires_grad_(x.requires_grad) for row in x.split(1)]
        ctx.outputs = list(ctx.inputs)

        def work(row: int) -> None:
            # Under activation checkpointing the graphs of rows stay whole: it replays what one thread saved, in order,
            # and which rows a thread gets is not the same twice.
            with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
                ctx.outputs[row] = function(row, ctx.inputs[row])

        with pool():
            each(work, [(row,) for row in range(len(x))])
        return torch.cat([output.detach() for output in ctx.outputs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found: list[tuple[Tensor | None, ...]] = [()] * len(ctx.outputs)

        def work(row: int) -> None:
            own = [ctx.inputs[row]] if ctx.inputs[row].requires_grad else []
            if ctx.outputs[row].requires_grad:
                targets = [*own, *ctx.parameters]
                parts = torch.autograd.grad(ctx.outputs[row], targets, grad[row : row + 1], allow_unused=True)
                found[row] = parts if own else (None, *parts)

        with pool():
            each(work, [(row,) for row in range(len(ctx.outputs))])
        ctx.outputs = None  # and with them the graphs
        columns = list(zip(*(row for row in found if row), strict=True))
        if not columns:
            return (None,) * (2 + len(ctx.parameters))
        # In the order of the rows, however many cores there were.
        sums = [_add([part for part in column if part is not None]) for column in columns[1:]]
        inputs = None
        if ctx.inputs[0].requires_grad:
            rows = [row[0] if row else None for row in found]
            inputs = torch.cat([torch.zeros_like(x) if g is None else g for g, x in zip(rows, ctx.inputs, strict=True)])
        return None, inputs, *sums


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _add(parts: list[Tensor]) -> Tensor | None:
    if not parts:
        return None
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def shares(count: int) -> list[tuple[int, int]]:
    """(first, last) for each of those who work at so many things."""
    step = -(-count // size())
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def portions(begin: int, end: int, floats: int, rows: int = 1, least: int = 2) -> list[tuple[int, int]]:
    """(first, last) of what is dealt with together; each between is so many rows of a product and wants scratch.

    However many cores there are: results are the same to the last bit on any number.
    """
    most, count = max(_SCRATCH / floats, _FEWEST_ROWS / rows), end - begin
    pieces = max(least if count * rows >= _FEWEST_ROWS / 2 else 1, 2 * round(count / (2 * most)))
    step = -(-count // pieces)
    return [(first, min(first + step, end)) for first in range(begin, end, step)]


def scratch(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Uninitialised tensors in this thread's memory, in place of its last ones: they stay in its core's cache."""
    sizes = [math.prod(shape) for shape in shapes]
    memory: Tensor | None = getattr(_memory, str(dtype), None)
    if memory is None or len(memory) < sum(sizes):
        with torch.inference_mode(False):  # it outlives the mode that it was first asked for in
            memory = torch.empty(sum(sizes), dtype=dtype)
        setattr(_memory, str(dtype), memory)
    parts = memory[: sum(sizes)].split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


@cache
def _helpers(count: int, process: int) -> ThreadPoolExecutor:
    """Threads that compute on one core each; a forked process needs its own."""
    del process
    threads, ready = torch.get_num_threads(), Barrier(count + 1)
    executor = ThreadPoolExecutor(count, "rlzoo-tiles", initializer=_alone)
    for _ in range(count):
        executor.submit(ready.wait)
    ready.wait()
    # What a thread sets for itself is also what later threads begin with: leave that as it was.
    torch.set_num_threads(threads)
    return executor


def _alone() -> None:
    torch.get_num_threads()  # the first call in a thread sets the number of all threads, so make it now
    torch.set_num_threads(1)


__all__ = ["each", "map_rows", "pool", "pool_from_here_back", "portions", "scratch", "shares", "size"]
