"""Results of a run, read from its directory. Light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlzoo.engine.events import RunResult
from rlzoo.errors import DataError
from rlzoo.files.evaluations import read_evaluations
from rlzoo.files.rundir import RunDirectory

PLOT, REPORT = "reward.png", "report.html"


def evaluations(rundir: RunDirectory) -> list[dict[str, Any]]:
    """Every eval/*.json, by step. DataError for a damaged one."""
    return read_evaluations(rundir.path)


def result_of(rundir: RunDirectory, stopped_by: str = "steps") -> RunResult:
    """The run's first and newest evaluation and its files. DataError if it was not evaluated yet."""
    every = evaluations(rundir)
    if not every or every[0]["step"] != 0:
        raise DataError(f"'{rundir.path}' has no evaluation of its start", "let the run reach it, or resume the run")

    def there(name: str) -> Path | None:
        return rundir / name if (rundir / name).exists() else None

    step = every[-1]["step"]
    return RunResult(
        directory=rundir.path,
        steps=step,
        stopped_by=stopped_by,
        scores=every[-1]["scores"],
        base=every[0]["scores"],
        plot=there(PLOT),
        report=there(REPORT),
        samples=there(f"samples/{step:06d}"),
    )
