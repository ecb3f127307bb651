"""Tiles side by side, each from its first operation to its last on one core.

PyTorch splits every operation among the cores anew, and what one of them has written the next operation reads on the
other: on the machine where this was measured the transfers took as long as the arithmetic.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Barrier, local

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

_crew = local()
"""Of this thread: how many work at the tiles it has to compute."""


def size() -> int:
    """How many tiles are computed at once."""
    count: int = getattr(_crew, "size", 1)
    return count


@contextmanager
def crew() -> Iterator[None]:
    """Inside, `each` shares its work among as many threads as PyTorch may use, and operations run on one.

    Not where gradients are kept, nor where somebody watches the operations: they would see this thread's alone.
    """
    threads = torch.get_num_threads()
    watched = torch._C._autograd._profiler_enabled() or _get_current_dispatch_mode() is not None
    if threads == 1 or watched or torch.is_grad_enabled():
        yield
        return
    _helpers(threads - 1, os.getpid())
    _crew.size = threads
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _crew.size = 1
        torch.set_num_threads(threads)


@contextmanager
def together() -> Iterator[None]:
    """Inside, each operation runs on all of the crew's cores, for work that is not worth dividing otherwise."""
    threads = size()
    if threads == 1:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def each(work: Callable[..., None], pieces: list[tuple[int, int, int, int]]) -> None:
    """`work(*piece)` for every piece; for fewer than there are threads by all together, one after the other."""
    threads, waiting = size(), iter(pieces)
    inference = torch.is_inference_mode_enabled()

    def labour() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            for piece in waiting:  # whoever is free takes the next one
                work(*piece)

    if len(pieces) < threads:
        with together():
            labour()
        return
    others = [_helpers(threads - 1, os.getpid()).submit(labour) for _ in range(threads - 1)]
    try:
        labour()
    finally:
        wait(others)  # whatever went wrong, nobody works on behind the caller's back
    for other in others:
        other.result()


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


__all__ = ["crew", "each", "size", "together"]
