"""One cell of a grid as a job: what state its run directory is in, and one attempt after the other to finish it. Light.

    runs/bench/SUITE/runs/CELL/        the run directory
                     cells/CELL.toml   the run file
                     cells/CELL.json   how it went: state, exit code, wall seconds, peak memory, attempts
                     cells/CELL.log    what `rlzoo run` printed
                     cells/CELL.lock   held by the process that works on it

A job can be given to any process of any machine that sees the folder, twice if need be: the second one waits for
the first and then finds the work done, or continues it from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock
from pydantic import ConfigDict

from rlzoo.bench.suite import Cell, Suite
from rlzoo.config.resolve import ResolvedRun
from rlzoo.errors import ConfigError, DataError, Diverged, Interrupted
from rlzoo.files.reading import Shape, check, read_object
from rlzoo.files.rundir import RunDirectory, is_torn
from rlzoo.files.writing import sweep, write_json, write_text

State = Literal["new", "torn", "resume", "done", "diverged", "failed"]
ATTEMPTS = 3
"""Number of times that a run is continued after its process was killed from outside (memory, preemption)."""


@dataclass(frozen=True)
class Job:
    """A cell with everything a process elsewhere needs to run it."""

    key: str
    folder: Path
    """The suite's folder, absolute."""
    plugin_files: tuple[Path, ...]
    threads: int

    @property
    def run(self) -> Path:
        """Run directory."""
        return self.folder / "runs" / self.key

    def beside(self, suffix: str) -> Path:
        """File of this cell in `cells/`."""
        return self.folder / "cells" / f"{self.key}{suffix}"

    def dumps(self) -> str:
        """As JSON, for another process."""
        return json.dumps([self.key, str(self.folder), [str(path) for path in self.plugin_files], self.threads])

    @classmethod
    def loads(cls, text: str) -> Self:
        """Inverse of `dumps`."""
        key, folder, files, threads = json.loads(text)
        return cls(key, Path(folder), tuple(map(Path, files)), threads)


class Outcome(Shape):
    """Outcome of a job. `seconds` is wall-clock time over all attempts, start-up included."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str
    state: Literal["done", "diverged", "failed", "interrupted"]
    exit_code: int
    seconds: float
    memory_mb: float | None
    gpu_memory_mb: float | None
    attempts: int
    error: str = ""


Attempt = Callable[[Job], int]
"""Does what is left of a job in a process of its own and returns its exit code, negative for a signal."""


def make(suite: Suite, cell: Cell, folder: Path, *, dry: bool = False) -> Job:
    """Write the cell's run file (but not `dry`) and return its job.

    ConfigError if its directory holds a run of something else.
    """
    job = Job(cell.key, folder.absolute(), suite.plugin_files, suite.table.threads)
    if state_of(job) not in ("new", "torn"):
        different = strays(suite, cell, RunDirectory.open(job.run).config())
        if different:
            raise ConfigError(
                f"'{job.run}' is a run of something else than suite '{suite.name}' asks for: {different[0]}",
                "move it away, or run the suite with another --out",
            )
    if not dry:
        write_text(job.beside(".toml"), suite.toml(cell))
    return job


def strays(suite: Suite, cell: Cell, config: Mapping[str, Any]) -> list[str]:
    """Differences between the values of a run and of its cell. An option newer than the run has its default in both.

    ConfigError or PluginError if the values are not those of a run.
    """
    return differences(suite.resolved(cell).to_dict(), ResolvedRun.from_dict(config, suite.registry).to_dict())


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """`train.steps is 30, not 60` for every value that differs; places of files do not count."""
    if path == "plugin_files":
        return []
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted(expected.keys() | found.keys())
        parts = [differences(expected.get(k), found.get(k), f"{path}.{k}".lstrip(".")) for k in keys]
        return [text for part in parts for text in part]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [differences(e, f, f"{path}.{i}") for i, (e, f) in enumerate(zip(expected, found, strict=True))]
        return [text for part in parts for text in part]
    return [] if expected == found else [f"{path} is {found!r}, not {expected!r}"]


def state_of(job: Job) -> State:
    """State of the job's run. DataError if `status.json` is damaged."""
    if not job.run.is_dir() or not any(job.run.iterdir()):
        return "new"
    if not (job.run / "config.json").is_file():
        return "torn"
    state = RunDirectory(job.run).status().get("state")
    if state == "done":
        return "done"
    if state == "failed":
        outcome = read_outcome(job)
        return "diverged" if outcome is not None and outcome.state == "diverged" else "failed"
    return "resume"


def read_outcome(job: Job) -> Outcome | None:
    """Outcome of the job's last attempt, or None if none has ended. DataError if the file is damaged."""
    path = job.beside(".json")
    if not path.is_file():
        return None
    return check(Outcome, read_object(path, "delete it"), f"'{path}' is not the outcome of a job", "delete it")


def execute(job: Job, attempt: Attempt | None = None) -> Outcome:
    """Bring the job to its end, from wherever it stands, and write the outcome. Waits while another process runs it."""
    attempt = attempt or spawned
    job.beside("").parent.mkdir(parents=True, exist_ok=True)
    with FileLock(job.beside(".lock")):  # its last holder is gone now
        sweep(job.beside("").parent, f"{job.key}.")
        if state_of(job) == "new":  # a directory that somebody removed takes its figures with it
            for suffix in (".json", ".result"):
                job.beside(suffix).unlink(missing_ok=True)
    before = read_outcome(job)
    if before is not None and state_of(job) in ("done", "diverged"):
        return before
    orphan = _figures(job)  # of an attempt that outlived its launcher
    spent = [*([before.model_dump()] if before else []), *orphan]
    attempts = (before.attempts if before else 0) + len(orphan)
    code = 0
    for _ in range(ATTEMPTS):
        if state_of(job) == "done":
            break
        started = time.monotonic()
        code = attempt(job)
        attempts += 1
        spent += _figures(job) or [{"seconds": time.monotonic() - started}]
        if code >= 0:
            break
    after = read_outcome(job)
    if code == 0 and after != before and after is not None:
        return after  # another launcher was faster, and its figures are those of the run
    outcome = Outcome(
        key=job.key,
        state=_verdict(job, code),
        exit_code=code,
        seconds=sum(part["seconds"] for part in spent),
        memory_mb=_largest(spent, "memory_mb"),
        gpu_memory_mb=_largest(spent, "gpu_memory_mb"),
        attempts=attempts,
        error=_error(job, code),
    )
    with FileLock(job.beside(".lock")):
        write_json(job.beside(".json"), outcome.model_dump())
    return outcome


def clear_torn(job: Job, state: State) -> None:
    """Make sure that the job's run directory can be made or continued. DataError if it holds something else."""
    if state == "torn" and not is_torn(job.run):
        first = min(path.name for path in job.run.iterdir())
        raise DataError(
            f"'{job.run}' is a damaged run directory: it holds '{first}' but no config.json",
            "move it away; the run will then be made again",
        )
    if state in ("new", "torn"):
        return
    named = [Path(name) for name in RunDirectory.open(job.run).config().get("plugin_files", ())]
    if named != list(job.plugin_files):
        raise DataError(
            f"'{job.run}' loads other plugin files than the suite: {', '.join(map(str, named)) or 'none'}",
            "move it away; the run will then be made again",
        )


def as_command(job: Job, state: State) -> list[str]:
    """The command that does what is left of the job, as a user would type it."""
    if state in ("new", "torn"):
        plugins = [item for path in job.plugin_files for item in ("--plugin", str(path))]
        return ["rlzoo", "run", "--config", str(job.beside(".toml")), "--strict", *plugins, "--out", str(job.run)]
    return ["rlzoo", "run", "--resume", str(job.run)]


def spawned(job: Job) -> int:
    """An attempt in a fresh interpreter."""
    count = str(job.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [sys.executable, "-m", "rlzoo.bench.worker", job.dumps(), str(os.getpid())]
    with job.beside(".log").open("ab") as log:
        return subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode


class _Figures(Shape):
    seconds: float


def _figures(job: Job) -> list[dict[str, Any]]:
    """Figures of the last attempt: one row, or none if it was killed before."""
    path = job.beside(".result")
    if not path.is_file():
        return []
    figures = read_object(path, "delete it")
    check(_Figures, figures, f"'{path}'", "delete it")
    path.unlink()
    return [figures]


def _largest(spent: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return max((part[name] for part in spent if part.get(name)), default=None)


def _verdict(job: Job, code: int) -> Literal["done", "diverged", "failed", "interrupted"]:
    if code == Diverged.exit_code:
        return "diverged"
    if code == Interrupted.exit_code:
        return "interrupted"
    return "done" if code == 0 and state_of(job) == "done" else "failed"


def _error(job: Job, code: int) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"killed by signal {-code}, {ATTEMPTS} times"
    status = job.run / "status.json"
    if status.is_file():
        said = RunDirectory(job.run).status().get("error")
        if said:
            return str(said)
    log = job.beside(".log")
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [f"exit code {code}"])[-1]
