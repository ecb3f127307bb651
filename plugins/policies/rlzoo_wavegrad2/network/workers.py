"""Rows, tiles or windows side by side, each from its first operation to its last on one core.

PyTorch splits every operation among the cores anew, and what one of them has written the next operation reads on the
other: on the machine where this was measured the transfers took as long as the arithmetic.
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
from torch.utils._python_dispatch import _get_current_dispatch_mode

_crew = local()
"""Of this thread: how many work at the tiles it has to compute."""

_memory = local()
"""Of this thread: its scratch of each type."""

_SCRATCH, _FEWEST_ROWS = 2**19, 256
"""Numbers that stay in a core's cache, and rows of a product that are worth reading all weights for (measured)."""


def size() -> int:
    """How many tiles are computed at once."""
    count: int = getattr(_crew, "size", 1)
    return count


@contextmanager
def crew() -> Iterator[None]:
    """Inside, `each` shares its work among as many threads as PyTorch may use, and operations run on one.

    Not where somebody watches the operations: they would see this thread's alone.
    """
    before = size()
    threads = _gather()
    try:
        yield
    finally:
        if threads > 1:
            _crew.size = before
            torch.set_num_threads(threads)


def _gather() -> int:
    """Make a crew of all threads that PyTorch may use, and say how many there were."""
    threads = torch.get_num_threads()
    watched = torch._C._autograd._profiler_enabled() or _get_current_dispatch_mode() is not None
    if threads == 1 or watched:
        return 1
    _helpers(threads - 1, os.getpid())
    _crew.size = threads
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
                _crew.size = 1
                torch.set_num_threads(threads)

            torch.autograd.Variable._execution_engine.queue_callback(dissolve)
        return grads[0]


def crew_from_here_back(x: Tensor) -> Tensor:
    """`x`; its gradient and whatever follows in the same backward pass is for a crew to compute.

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

    def labour() -> None:
        for piece in waiting:  # whoever is free takes the next one
            work(*piece)

    def help_out() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            labour()

    if threads <= 1:
        labour()
        return
    others = [_helpers(before - 1, os.getpid()).submit(help_out) for _ in range(threads - 1)]
    try:
        _crew.size = 1  # what is shared already is not shared again
        labour()
    finally:
        _crew.size = before
        wait(others)  # whatever went wrong, nobody works on behind the caller's back
    for other in others:
        other.result()


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
    pool = ThreadPoolExecutor(count, "rlzoo-tiles", initializer=_alone)
    for _ in range(count):
        pool.submit(ready.wait)
    ready.wait()
    # What a thread sets for itself is also what later threads begin with: leave that as it was.
    torch.set_num_threads(threads)
    return pool


def _alone() -> None:
    torch.get_num_threads()  # a thread's first question sets its number to everyone's: let that be behind it
    torch.set_num_threads(1)


__all__ = ["crew", "crew_from_here_back", "each", "portions", "scratch", "shares", "size"]
