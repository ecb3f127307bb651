"""Runs side by side on the same prompts, and one run against the band of a published benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlzoo.bench.collect import Document
from rlzoo.bench.jobs import differences
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.evaluations import read_evaluations
from rlzoo.files.rundir import RunDirectory
from rlzoo.stats.statistics import Estimate, Paired, paired, prediction_band


@dataclass(frozen=True)
class Evaluated:
    """The last evaluation of a run, a mean per prompt, and its whole held-out curve."""

    path: Path
    config: Mapping[str, Any]
    step: int
    scores: Mapping[str, Mapping[str, float]]
    """{score: {prompt: mean over its samples}}."""
    curve: tuple[tuple[int, Mapping[str, float], Mapping[str, float]], ...]
    """(step, mean scores, `budget/...` used by then)."""
    ended: str
    """State of the run: a score of an unfinished run is one of half a run."""


@dataclass(frozen=True)
class Comparison:
    """One run against the first."""

    run: Evaluated
    scores: Mapping[str, Paired]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """One evaluation of a run against the reference."""

    step: int
    used: float
    score: float
    band: Estimate

    @property
    def inside(self) -> bool:
        """Within the band; bounds that one seed cannot give exclude nothing."""
        low, high = self.band.low, self.band.high
        return (low is None or self.score >= low) and (high is None or self.score <= high)


def evaluated(path: Path) -> Evaluated:
    """Read a run. DataError if it is none or was never evaluated."""
    rundir = RunDirectory.open(path)
    rows = {row["step"]: row for row in rundir.metrics()}
    documents = read_evaluations(rundir.path)
    if not documents:
        raise DataError(f"'{path}' has no evaluation yet", "let the run reach its first evaluation")
    by: dict[str, dict[str, list[float]]] = {}
    for row in documents[-1]["rows"]:
        for name, value in row["scores"].items():
            by.setdefault(name, {}).setdefault(row["prompt"], []).append(value)
    curve = []
    for document in documents:
        used = {
            k.removeprefix("budget/"): v for k, v in rows.get(document["step"], {}).items() if k.startswith("budget/")
        }
        curve.append((document["step"], {name: f["mean"] for name, f in document["scores"].items()}, used))
    return Evaluated(
        path=path,
        config=rundir.config(),
        step=documents[-1]["step"],
        scores={name: {prompt: statistics.fmean(v) for prompt, v in values.items()} for name, values in by.items()},
        curve=tuple(curve),
        ended=str(rundir.status().get("state")),
    )


def compare(runs: Sequence[Evaluated]) -> list[Comparison]:
    """Every run but the first against the first, over the prompts and scores both have. ConfigError for none."""
    first, *others = runs
    found = []
    for other in others:
        names = [name for name in first.scores if name in other.scores]
        if not names:
            raise ConfigError(f"'{first.path}' and '{other.path}' were judged by different rewards", "use rlzoo eval")
        pairs = {}
        for name in names:
            prompts = [prompt for prompt in first.scores[name] if prompt in other.scores[name]]
            if not prompts:
                raise ConfigError(f"'{first.path}' and '{other.path}' share no held-out prompt", "use rlzoo eval")
            pairs[name] = paired([other.scores[name][p] for p in prompts], [first.scores[name][p] for p in prompts])
        found.append(Comparison(other, pairs, _notes(first, other)))
    return found


def _notes(first: Evaluated, other: Evaluated) -> tuple[str, ...]:
    notes = []
    for run in (first, other):
        if run.ended != "done":
            notes.append(f"'{run.path}' is not finished ({run.ended}); compared as of step {run.step}")
    if first.config["seed"] != other.config["seed"]:
        notes.append("the seeds differ: the prompts are paired, the noise is not")
    for key, what in (("policy", "policies"), ("prompts", "prompt sets"), ("eval", "evaluation settings")):
        if first.config[key] != other.config[key]:
            notes.append(f"the {what} differ: {differences(first.config[key], other.config[key], key)[0]}")
    spent = [run.curve[-1][2].get("samples") for run in (first, other)]
    if spent[0] != spent[1]:
        notes.append(
            f"the budgets differ: {spent[0]:g} and {spent[1]:g} samples"
            if None not in spent
            else "no budget is recorded"
        )
    return tuple(notes)


def against(document: Document, run: Evaluated) -> tuple[str, list[Point], list[str]]:
    """(system, points, how its values differ from the reference's). DataError if the reference has no such system.

    At every evaluation of the run within the reach of the reference's curves: the band that holds a further run of the
    same kind with 95 % probability. The reference's runs are read off at the same use of the budget, linearly between
    evaluations.
    """
    label, reward, different = _closest(document, run)
    limit, headline = next(iter(document["suite"]["budget"])), document["suite"]["headline"]
    mates = [c for c in document["cells"] if (c["algorithm"], c["reward"]) == (label, reward)]
    curves = [
        (
            [p["used"][limit] for p in cell["curve"][: cell["counted"] + 1]],
            [p["scores"][headline] for p in cell["curve"][: cell["counted"] + 1]],
        )
        for cell in mates
    ]
    reach = max(used[-1] for used, _ in curves)
    points = []
    for step, scores, used in run.curve:
        spent = used.get(limit, 0.0)
        if headline not in scores:
            raise DataError(f"'{run.path}' was not judged by '{headline}', the reference's headline score")
        if spent <= reach * (1 + 1e-9):
            points.append(Point(step, spent, scores[headline], prediction_band([np.interp(spent, *c) for c in curves])))
    return f"{label} on {reward}", points, different


def _closest(document: Document, run: Evaluated) -> tuple[str, str, list[str]]:
    own = {key: value for key, value in run.config.items() if key not in ("seed", "plugin_files")}
    name, rewards = own["algorithm"]["name"], [r["name"] for r in own["rewards"]]
    fits = []
    for key, config in document["configs"].items():
        if config["algorithm"]["name"] == name and [r["name"] for r in config["rewards"]] == rewards:
            label, reward = key.split("--")
            # Where results lie, how they are computed and how often they are saved does not change them.
            different = [
                d
                for d in differences(config, own)
                if not d.startswith(("train.device", "train.save_every", "train.keep", "train.score_cache"))
            ]
            fits.append((len(different), label, reward, different))
    if not fits:
        there = ", ".join(key.replace("--", " on ") for key in document["configs"])
        raise DataError(f"the reference has no '{name}' trained on {' + '.join(rewards)}", f"it has: {there}")
    _, label, reward, different = min(fits)
    return label, reward, different


__all__ = ["Comparison", "Evaluated", "Point", "against", "compare", "evaluated"]
