"""One cell of a grid as a job: what state its run directory is in, and one attempt after the other to finish it. Light.

    runs/bench/SUITE/runs/CELL/        the run directory
                     cells/CELL.toml   the run file
                     cells/CELL.json   how it went: state, exit code, wall seconds, peak memory, attempts
                     cells/CELL.log    what `rlzoo run` printed

A job can be given to any process of any machine that sees the folder, twice if need be: whoever comes second waits for
the first and then finds the work done, or continues it from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from rlzoo.bench.suite import Cell, Suite
from rlzoo.errors import ConfigError, DataError, Diverged, Interrupted
from rlzoo.rundir import RunDirectory

State = Literal["new", "torn", "resume", "done", "diverged", "failed"]
ATTEMPTS = 3
"""How often a run is continued whose process was killed from outside (memory, preemption)."""

_CREATED_FIRST = frozenset({"config.toml", ".lock"})


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


@dataclass(frozen=True)
class Outcome:
    """How a job went. `seconds` is wall-clock time over all attempts, start-up included."""

    key: str
    state: Literal["done", "diverged", "failed", "interrupted"]
    exit_code: int
    seconds: float
    memory_mb: float | None
    gpu_memory_mb: float | None
    attempts: int
    error: str = ""


Attempt = Callable[[Job, Sequence[str]], int]
"""Runs `rlzoo ARGUMENTS` in a process of its own and returns its exit code, negative for a signal."""


def make(suite: Suite, cell: Cell, folder: Path) -> Job:
    """Write the cell's run file and return its job. ConfigError where its directory holds a run of something else."""
    job = Job(cell.key, folder.absolute(), suite.plugin_files, suite.table.threads)
    if state_of(job) not in ("new", "torn"):
        different = differences(suite.resolved(cell).to_dict(), RunDirectory.open(job.run).config())
        if different:
            raise ConfigError(
                f"'{job.run}' is a run of something else than suite '{suite.name}' asks for: {different[0]}",
                "move it away, or run the suite with another --out",
            )
    job.beside("").parent.mkdir(parents=True, exist_ok=True)
    job.beside(".toml").write_text(suite.toml(cell), encoding="utf-8")
    return job


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
    """What is left to do. DataError where `status.json` is damaged."""
    if not job.run.is_dir() or not any(job.run.iterdir()):
        return "new"
    if not (job.run / "config.json").is_file() or not (job.run / "status.json").is_file():
        return "torn"
    state = RunDirectory(job.run).status().get("state")
    if state == "done":
        return "done"
    if state == "failed":
        outcome = read_outcome(job)
        return "diverged" if outcome is not None and outcome.state == "diverged" else "failed"
    return "resume"


def read_outcome(job: Job) -> Outcome | None:
    """How the job's last attempt went, or None where none ended. DataError where the file is damaged."""
    path = job.beside(".json")
    if not path.is_file():
        return None
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"cannot read '{path}': {error}", "delete it") from error


def execute(job: Job, attempt: Attempt | None = None) -> Outcome:
    """Bring the job to its end, from wherever it stands, and write the outcome. Waits while another process runs it."""
    attempt = attempt or spawned
    if job.run.is_dir():
        with FileLock(job.run / ".lock"):
            pass  # whoever held it is gone now
    before = read_outcome(job)
    if state_of(job) in ("done", "diverged") and before is not None:
        return before
    seconds, attempts = (before.seconds, before.attempts) if before else (0.0, 0)
    memory: list[float] = [before.memory_mb] if before and before.memory_mb else []
    gpu: list[float] = [before.gpu_memory_mb] if before and before.gpu_memory_mb else []
    code = 0
    for _ in range(ATTEMPTS):
        state = state_of(job)
        if state == "done":
            break
        job.beside(".result").unlink(missing_ok=True)
        code = attempt(job, arguments(job, state))
        attempts += 1
        figures = _figures(job)
        seconds += figures.get("seconds") or 0.0
        memory += [figures["memory_mb"]] if figures.get("memory_mb") else []
        gpu += [figures["gpu_memory_mb"]] if figures.get("gpu_memory_mb") else []
        if code >= 0:
            break
    outcome = Outcome(
        key=job.key,
        state=_verdict(job, code),
        exit_code=code,
        seconds=seconds,
        memory_mb=max(memory, default=None),
        gpu_memory_mb=max(gpu, default=None),
        attempts=attempts,
        error=_error(job, code),
    )
    _write(job.beside(".json"), asdict(outcome))
    return outcome


def arguments(job: Job, state: State) -> list[str]:
    """Of `rlzoo`, to start or to continue the job's run. DataError where somebody else's files are in the way."""
    if state == "torn":
        strange = sorted(path.name for path in job.run.iterdir() if not _made_first(path.name))
        if strange:
            raise DataError(
                f"'{job.run}' is a damaged run directory: '{strange[0]}' but no config.json and status.json",
                "move it away; the run will then be made again",
            )
        shutil.rmtree(job.run)
    if state in ("new", "torn"):
        plugins = [item for path in job.plugin_files for item in ("--plugin", str(path))]
        return ["run", "--config", str(job.beside(".toml")), "--strict", *plugins, "--out", str(job.run)]
    return ["run", "--resume", str(job.run)]


def _made_first(name: str) -> bool:
    """Whether a run that was killed while its directory was made may have left this file."""
    return name in _CREATED_FIRST | {"config.json", "env.json"} or (name.startswith(".") and name.endswith(".tmp"))


def spawned(job: Job, arguments: Sequence[str]) -> int:
    """An attempt in a fresh interpreter."""
    count = str(job.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    command = [sys.executable, "-m", "rlzoo.bench.worker", str(job.beside(".result")), *arguments]
    with job.beside(".log").open("ab") as log:
        return subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode


def _figures(job: Job) -> dict[str, Any]:
    path = job.beside(".result")
    if not path.is_file():
        return {}  # killed before it could write
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return figures


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
    return lines[-1] if lines else f"exit code {code}"


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
