"""One run directory of a grid: whether it is a whole run of its cell, and what a report needs of it. Light."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rlzoo.bench.jobs import Job, read_outcome, strays
from rlzoo.bench.suite import Cell, Suite
from rlzoo.errors import RlzooError
from rlzoo.files.evaluations import own_file, read_evaluations
from rlzoo.files.reading import read_object
from rlzoo.files.rundir import RunDirectory
from rlzoo.version import __version__

OVERRUN = 0.05
"""Tolerance of an evaluation beyond the budget, as runs end with the step that uses it up. Later ones are cut."""

Document = dict[str, Any]


class Unfit(Exception):
    """Why a run directory does not count."""


def read_cell(suite: Suite, cell: Cell, job: Job) -> Document:
    """Data of one run for a report. Unfit if the run directory is not a whole run of this cell."""
    try:
        return _read(suite, cell, job)
    except RlzooError as error:
        raise Unfit(error.message) from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # JSON that is well-formed and holds something else than a run writes: which field hardly matters.
        raise Unfit(f"damaged: {type(error).__name__}: {error}") from error


def _read(suite: Suite, cell: Cell, job: Job) -> Document:
    rundir = RunDirectory.open(job.run)
    status, config, metrics = rundir.status(), rundir.config(), rundir.metrics()
    outcome = read_outcome(job)
    environment = read_object(job.run / "env.json")
    evaluations = read_evaluations(job.run)
    diverged = status.get("state") == "failed" and outcome is not None and outcome.state == "diverged"
    if status.get("state") != "done" and not diverged:
        raise Unfit(f"not finished: {status.get('state')}" + (f", {status['error']}" if status.get("error") else ""))
    if environment.get("rlzoo") != __version__:
        raise Unfit(f"made by rlzoo {environment.get('rlzoo')}, this is {__version__}")
    different = strays(suite, cell, config)
    if different:
        raise Unfit(f"not this suite's run: {different[0]}")
    _check_metrics(metrics, status, diverged)
    _check_evaluations(evaluations, metrics, diverged)
    curve = [_point(evaluation, metrics) for evaluation in evaluations]
    counted = _within_budget(curve, suite.budget.model_dump(exclude_none=True))
    files = {"base": _files(evaluations[0]), "tuned": _files(evaluations[counted])}
    _check_audio(job, files)
    used = metrics[-1] if metrics else {}
    return {
        "algorithm": cell.algorithm,
        "reward": cell.reward,
        "seed": cell.seed,
        "state": "diverged" if diverged else "done",
        "steps": status["step"],
        "curve": curve,
        "counted": counted,
        "prompts": _by_prompt(evaluations[0], evaluations[counted]),
        "used": {name: _short(used.get(f"budget/{name}", 0.0)) for name in _LIMITS},
        "wall_seconds": _short(outcome.seconds) if outcome else None,
        "memory_mb": _short(outcome.memory_mb) if outcome and outcome.memory_mb else None,
        "gpu_memory_mb": _short(outcome.gpu_memory_mb) if outcome and outcome.gpu_memory_mb else None,
        "spread": {name: _short(figures["std"]) for name, figures in evaluations[0]["scores"].items()},
        "origin": _environment(environment),
        "files": files,
    }


_LIMITS = ("samples", "network_evaluations", "reward_calls", "updates", "seconds")


def _check_metrics(metrics: Sequence[Mapping[str, Any]], status: Mapping[str, Any], diverged: bool) -> None:
    steps = [row.get("step") for row in metrics]
    if steps != list(range(1, len(steps) + 1)):
        raise Unfit("metrics.jsonl lacks steps")
    if not diverged and len(steps) != status.get("step"):
        raise Unfit(f"metrics.jsonl ends at step {len(steps)}, the run at {status.get('step')}")


def _check_evaluations(
    evaluations: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, Any]], diverged: bool
) -> None:
    if not evaluations or evaluations[0].get("step") != 0:
        raise Unfit("the evaluation before the first step is missing")
    if not diverged and evaluations[-1].get("step") != len(metrics):
        raise Unfit("the evaluation after the last step is missing")
    first = [(row["prompt"], row["index"]) for row in evaluations[0].get("rows", ())]
    for evaluation in evaluations:
        where = f"evaluation of step {evaluation.get('step')}"
        if [(row["prompt"], row["index"]) for row in evaluation.get("rows", ())] != first or not first:
            raise Unfit(f"{where} has other prompts than the first")
        if evaluation["step"] > len(metrics):
            raise Unfit(f"{where} lies after the last step")
        values = [value for row in evaluation["rows"] for value in row["scores"].values()]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
            raise Unfit(f"{where} holds a score that is no finite number")


def _point(evaluation: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]) -> Document:
    """Scores after `step` steps, what was used by then, and the KL: measured on the samples of the next step, which
    come from this very policy; after the last step on those of the last, one update before."""
    step = evaluation["step"]
    row = metrics[step - 1] if step else {}
    near = metrics[min(step, len(metrics) - 1)] if metrics else {}
    return {
        "step": step,
        "scores": {name: _short(figures["mean"]) for name, figures in evaluation["scores"].items()},
        "used": {name: _short(row.get(f"budget/{name}", 0.0)) for name in _LIMITS},
        "kl": 0.0 if step == 0 else _short(near["policy/kl"]) if "policy/kl" in near else None,
    }


def _within_budget(curve: Sequence[Mapping[str, Any]], budget: Mapping[str, float]) -> int:
    """Index of the last evaluation that did not overrun a limit."""
    fits = [
        index
        for index, point in enumerate(curve)
        if all(point["used"][name] <= (1 + OVERRUN) * limit for name, limit in budget.items())
    ]
    return fits[-1]  # before the first step nothing is used


def _by_prompt(base: Mapping[str, Any], tuned: Mapping[str, Any]) -> Document:
    """Mean score of each prompt over its samples: {names, base: {score: [...]}, tuned: {score: [...]}}."""
    names = list(dict.fromkeys(row["prompt"] for row in base["rows"]))

    def means(document: Mapping[str, Any]) -> Document:
        by: dict[str, dict[str, list[float]]] = {}
        for row in document["rows"]:
            for score, value in row["scores"].items():
                by.setdefault(score, {}).setdefault(row["prompt"], []).append(value)
        return {score: [_short(statistics.fmean(values[name])) for name in names] for score, values in by.items()}

    return {"names": names, "base": means(base), "tuned": means(tuned)}


def _environment(environment: Mapping[str, Any]) -> Document:
    git = environment.get("git") or {}
    commit = f"{git.get('commit', '')[:12]}{' with changes' if git.get('dirty') else ''}" if git else "no repository"
    return {
        "commit": commit,
        "machine": f"{environment.get('platform')}, {environment.get('cpus')} CPUs",
        "python": str(environment.get("python")),
        "packages": dict(environment.get("packages") or {}),
    }


def _short(value: float) -> float:
    """Six significant digits: more would be noise, and the file several times as long."""
    return float(f"{value:.6g}")


def _files(evaluation: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        row["prompt"]: {"file": row["file"], "text": row["text"] or row["prompt"]}
        for row in evaluation["rows"]
        if row["index"] == 0 and row["file"]
    }


def _check_audio(job: Job, files: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    for entries in files.values():
        for entry in entries.values():
            if not os.path.isfile(own_file(job.run, entry["file"])):
                raise Unfit(f"'{entry['file']}' is missing")


__all__ = ["OVERRUN", "Document", "Unfit", "read_cell"]
