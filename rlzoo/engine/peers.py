"""Find the process that failed first: the others only see a broken connection.

Each that fails for a reason of its own writes it into the run directory before it leaves; the first process, which
writes `status.json`, then names that reason and not the loss of its peer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from rlzoo import errors
from rlzoo.errors import DataError, RlzooError
from rlzoo.files.reading import Shape, check, read_object
from rlzoo.files.rundir import RunDirectory

_PATIENCE = 3.0
"""Seconds until what another process has written must have arrived, on a network file system, too."""
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "gloo", "nccl", "socket")


class _Failure(Shape):
    kind: str
    message: str
    hint: str


class Peers:
    """The processes of one launch. Collective: all of them make one."""

    def __init__(self, rundir: RunDirectory, fabric: Fabric) -> None:
        self._rundir, self._rank, self._count = rundir, fabric.global_rank, fabric.world_size
        if self._count > 1:
            if self._rank == 0:
                for path in self._files():
                    path.unlink(missing_ok=True)
            fabric.barrier()

    def cause(self, error: BaseException) -> BaseException:
        """The error to report for `error`: itself, or that of the process that failed first."""
        if self._count == 1:
            return error
        if not is_lost_peer(error):
            self._say(error)
            return error
        return (self._first() if self._rank == 0 else None) or error

    def _say(self, error: BaseException) -> None:
        if self._rank == 0:
            return  # writes status.json itself
        row = {
            "kind": type(error).__name__,
            "message": getattr(error, "message", f"{type(error).__name__}: {error}"),
            "hint": getattr(error, "hint", ""),
        }
        try:
            self._rundir.write_json(f".rank-{self._rank}.json", row)
        except DataError as unwritten:
            error.add_note(f"nor could the other processes be told: {unwritten.message}")

    def _first(self) -> RlzooError | None:
        end = time.monotonic() + _PATIENCE
        while not (found := self._files()) and time.monotonic() < end:
            time.sleep(0.05)
        if not found:
            return RlzooError(
                "another process ended without a word, perhaps killed for its memory",
                "look at the output of all processes; then continue with --resume",
            )
        path = min(found, key=lambda file: file.stat().st_mtime)
        told: dict[str, Any] = read_object(path)
        failure = check(_Failure, told, f"'{path}'")
        kind = getattr(errors, failure.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, RlzooError)):
            kind = RlzooError
        rank = path.stem.removeprefix(".rank-")
        return kind(f"process {rank} of {self._count}: {failure.message}", failure.hint)

    def _files(self) -> list[Path]:
        return list(self._rundir.path.glob(".rank-*.json"))


def is_lost_peer(error: BaseException) -> bool:
    """True if an error only says that another process has left."""
    if isinstance(error, RlzooError):
        return False
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(word in str(error).lower() for word in _LOST)
