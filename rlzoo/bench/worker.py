"""One run of a grid in a process of its own: what `rlzoo run` would do, with its figures written down.

python -m rlzoo.bench.worker JOB PARENT     JOB: fields of `jobs.Job` as JSON; PARENT: process that this one ends with

A process holds its cell's lock from before it looks at the run directory until it ends, so that two launchers, or the
survivor of a launcher that was killed and its successor, never write to one directory together.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from filelock import FileLock

from rlzoo.bench.jobs import Job, State, as_command, clear_torn, state_of
from rlzoo.engine.console import err, exit_code, print_error
from rlzoo.engine.progress import ConsoleReporter
from rlzoo.engine.start import prepare, resume, start
from rlzoo.errors import RlzooError
from rlzoo.files.writing import write_json

_GLANCE = 0.5
"""Seconds between two looks at whether the parent still lives."""


def main(job: Job) -> int:
    """Do what is left of the job and return the exit code of `rlzoo`; exit code, seconds and peak memory go to its
    `.result`, which is not written where nothing was left."""
    with FileLock(job.beside(".lock")):
        state = state_of(job)
        if state in ("done", "diverged"):
            return 0
        try:
            clear_torn(job, state)
        except RlzooError as error:
            print_error(error)
            return error.exit_code
        return _work(job, state)


def _work(job: Job, state: State) -> int:
    command = shlex.join(as_command(job, state))
    err.print(f"$ {command}")  # where the log's attempts begin
    started = time.monotonic()

    def run() -> None:
        reporter = ConsoleReporter()
        if state in ("new", "torn"):
            prepared = prepare(job.beside(".toml"), plugins=job.plugin_files)
            start(prepared, job.run, strict=True, command=command, reporter=reporter)
        else:
            # Its values are the suite's own, see `make`; on a node without our secret it would seem a stranger's.
            resume(job.run, trust=True, reporter=reporter)

    code = exit_code(run)
    figures = {"exit_code": code, "seconds": time.monotonic() - started, **peak_memory()}
    write_json(job.beside(".result"), figures)
    return code


def forked(job: Job) -> None:
    """`main` in a process that multiprocessing made, its output appended to the job's log. Ends the process."""
    import torch

    parent = multiprocessing.parent_process()
    assert parent is not None
    _end_with(parent.is_alive)
    with job.beside(".log").open("ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(job.threads)
    sys.exit(main(job))


def _end_with(alive: Callable[[], bool]) -> None:
    """Once the parent is gone, stop as after SIGTERM: at once, or with everything saved where a run has begun."""

    def watch() -> None:
        while alive():
            time.sleep(_GLANCE)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def peak_memory() -> dict[str, Any]:
    """`memory_mb` of this process so far, and `gpu_memory_mb` (None without a GPU in use)."""
    import resource

    import torch

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    memory = size / 2**20 if sys.platform == "darwin" else size / 2**10
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else None
    return {"memory_mb": memory, "gpu_memory_mb": gpu}


if __name__ == "__main__":
    started_by = int(sys.argv[2])
    _end_with(lambda: os.getppid() == started_by)
    sys.exit(main(Job.loads(sys.argv[1])))
