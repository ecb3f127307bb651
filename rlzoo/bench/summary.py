"""From the document of `collect` to the figures that tables and plots show. Only numbers; nothing is drawn here.

A *system* is an algorithm, or the base. The score of a run is its mean over the held-out prompts after the last
evaluation within the budget; a run that diverged counts with the last evaluation it reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rlzoo.bench.cell import OVERRUN, Document
from rlzoo.bench.suite import BASE
from rlzoo.stats.hacking import Verdict, hacking_flag
from rlzoo.stats.statistics import (
    Estimate,
    aggregate,
    iqm,
    performance_profile,
    probability_of_gain,
    probability_of_improvement,
)

# The order of the paper's table, then ours.
_ORDER = ("total", "utmos", "nisqa", "nisqa-tts", "dnsmos", "dnsmos-pro", "wer", "cer", "similarity", "guard")
COLLAPSE = 2.0
COVERAGE = {3: 0.75, 4: 0.87, 5: 0.89}
"""Coverage of the 95 % bootstrap interval by number of runs; `tests/test_statistics.py` simulates it."""
_ERROR_RATES = frozenset({"wer", "cer"})
"""Rewards that are minus an error rate; shown as the rate in percent."""


@dataclass(frozen=True)
class Column:
    """One score of a table."""

    name: str
    trained: bool
    """True if it is a term of the reward: then it does not judge."""

    @property
    def title(self) -> str:
        """Heading."""
        if self.name in _ERROR_RATES:
            return f"{self.name.upper()} %"
        return {"total": "reward", "utmos": "UTMOS", "nisqa": "NISQA", "nisqa-tts": "NISQA-TTS"}.get(
            self.name, "DNSMOS" if self.name == "dnsmos" else self.name
        )

    @property
    def lower_is_better(self) -> bool:
        """Only error rates, as shown."""
        return self.name in _ERROR_RATES

    def shown(self, estimate: Estimate) -> Estimate:
        """As the column shows it."""
        if not self.lower_is_better:
            return estimate
        low = None if estimate.high is None else -100 * estimate.high
        high = None if estimate.low is None else -100 * estimate.low
        return Estimate(-100 * estimate.value, low, high)

    def shown_change(self, change: float) -> float:
        """A difference as the column shows it."""
        return -100 * change if self.lower_is_better else change


@dataclass(frozen=True)
class Row:
    """One system of a table."""

    system: str
    runs: int
    diverged: int
    collapsed: int
    """Runs that ended more than `COLLAPSE` standard deviations of the base's samples below their base."""
    scores: Mapping[str, Estimate]
    gain: Estimate
    """Gain of the headline score over the base of the same seed."""
    gains: tuple[float, ...]
    """The same for every run."""
    beats_base: Estimate | None
    """Probability that a run ends above the base of its own seed."""
    kl: Estimate | None
    """None if it was not measured, or only steps without noise were trained, which have none."""
    used: Mapping[str, float]
    """Mean over runs of what was spent."""
    gain_at_equal_seconds: Estimate
    """Gain of the headline score after `Section.equal_seconds` of training."""
    wall_seconds: float | None
    memory_mb: float | None
    gpu_memory_mb: float | None
    hacking: Verdict | None
    """None without a judge that did not train."""
    search_trials: int
    cut: bool
    """True if an evaluation beyond the budget was cut."""
    preference: Mapping[str, float] | None


class Section:
    """Everything about one reward of the suite."""

    def __init__(self, document: Document, reward: Mapping[str, Any]) -> None:
        self.document = document
        self.reward = reward
        self.label: str = reward["label"]
        self.headline: str = document["suite"]["headline"]
        self.cells = [cell for cell in document["cells"] if cell["reward"] == self.label]
        self.trained = {"total", *(term["name"] for term in reward["terms"])}

    @cached_property
    def systems(self) -> list[str]:
        """Algorithms that have runs, in the suite's order."""
        there = {cell["algorithm"] for cell in self.cells}
        return [entry["label"] for entry in self.document["suite"]["algorithms"] if entry["label"] in there]

    def of(self, system: str) -> list[Document]:
        """A system's runs, by seed."""
        return sorted((c for c in self.cells if c["algorithm"] == system), key=lambda c: c["seed"])

    @cached_property
    def columns(self) -> list[Column]:
        """Training rewards, then the judges; the sum only if it has several terms."""
        names = sorted({name for cell in self.cells for name in cell["curve"][0]["scores"]})
        terms = self.reward["terms"]
        if len(terms) == 1 and terms[0]["weight"] == 1.0 and len(names) > 1:
            names.remove("total")
        names.sort(key=lambda n: (n not in self.trained, _ORDER.index(n) if n in _ORDER else len(_ORDER), n))
        return [Column(name, name in self.trained) for name in names]

    def base_scores(self, name: str) -> list[float]:
        """The base's score of each seed."""
        first: dict[int, float] = {}
        for cell in self.cells:
            first.setdefault(cell["seed"], cell["curve"][0]["scores"][name])
        return [first[seed] for seed in sorted(first)]

    def scores(self, system: str, name: str) -> list[float]:
        """The system's score of each run."""
        if system == BASE:
            return self.base_scores(name)
        return [counted(cell)["scores"][name] for cell in self.of(system)]

    def gains(self, system: str, seconds: float | None = None) -> list[float]:
        """Headline score of each run minus that of its own base: what counts, or after `seconds` of training.

        Between two evaluations the score is taken to change evenly.
        """
        name, found = self.headline, []
        for cell in self.of(system):
            base = cell["curve"][0]["scores"][name]
            points = cell["curve"][: cell["counted"] + 1]
            score = points[-1]["scores"][name]
            if seconds is not None:
                times = [point["used"]["seconds"] for point in points]
                score = float(np.interp(seconds, times, [point["scores"][name] for point in points]))
            found.append(score - base)
        return found

    @cached_property
    def equal_seconds(self) -> float:
        """Seconds of training that the quickest system needed for the budget, mean over its runs."""
        return min(float(np.mean([counted(c)["used"]["seconds"] for c in self.of(s)])) for s in self.systems)

    def normalised(self, system: str) -> list[float]:
        """Gains as the share of the way to the optimum, or in standard deviations of the base's samples."""
        optimum = self.reward["optimum"] if self.headline == "total" else None
        found = []
        for cell, gain in zip(self.of(system), self.gains(system), strict=True):
            base = cell["curve"][0]["scores"][self.headline]
            unit = optimum - base if optimum is not None else cell["spread"][self.headline]
            found.append(gain / unit if unit else 0.0)
        return found

    @cached_property
    def rows(self) -> list[Row]:
        """The base, then the systems, best headline score first."""
        rows = [self._row(system) for system in self.systems]
        rows.sort(key=lambda row: (-row.scores[self.headline].value, row.system))
        return [self._base(), *rows]

    def _base(self) -> Row:
        names = {self.headline, *(column.name for column in self.columns)}
        return Row(
            system=BASE,
            runs=len(self.base_scores("total")),
            diverged=0,
            collapsed=0,
            scores={name: aggregate([self.base_scores(name)]) for name in sorted(names)},
            gain=Estimate(0.0, None, None),
            gains=(),
            beats_base=None,
            kl=Estimate(0.0, None, None),
            used={},
            gain_at_equal_seconds=Estimate(0.0, None, None),
            wall_seconds=None,
            memory_mb=None,
            gpu_memory_mb=None,
            hacking=None,
            search_trials=0,
            cut=False,
            preference=self._preference(BASE),
        )

    def _row(self, system: str) -> Row:
        cells = self.of(system)
        names = {self.headline, *(column.name for column in self.columns)}
        kl = [counted(cell)["kl"] for cell in cells]
        entry = next(a for a in self.document["suite"]["algorithms"] if a["label"] == system)
        return Row(
            system=system,
            runs=len(cells),
            diverged=sum(cell["state"] == "diverged" for cell in cells),
            collapsed=self._collapsed(system),
            scores={name: aggregate([self.scores(system, name)]) for name in sorted(names)},
            gain=aggregate([self.gains(system)]),
            gains=tuple(self.gains(system)),
            beats_base=probability_of_gain(self.gains(system)),
            kl=aggregate([kl]) if all(value is not None for value in kl) and any(kl) else None,
            used={name: float(np.mean([c["used"][name] for c in cells])) for name in cells[0]["used"]},
            gain_at_equal_seconds=aggregate([self.gains(system, self.equal_seconds)]),
            wall_seconds=_mean([cell["wall_seconds"] for cell in cells]),
            memory_mb=_largest([cell["memory_mb"] for cell in cells]),
            gpu_memory_mb=_largest([cell["gpu_memory_mb"] for cell in cells]),
            hacking=self.verdict(system),
            search_trials=entry["search_trials"],
            cut=any(cell["counted"] < len(cell["curve"]) - 1 for cell in cells),
            preference=self._preference(system),
        )

    def _collapsed(self, system: str) -> int:
        spreads = [cell["spread"][self.headline] for cell in self.of(system)]
        return sum(g < -COLLAPSE * s for g, s in zip(self.gains(system), spreads, strict=True))

    def _preference(self, system: str) -> Mapping[str, float] | None:
        collected = self.document.get("preference", {}).get(self.label, {})
        found: Mapping[str, float] | None = collected.get(system)
        return found

    def verdict(self, system: str) -> Verdict | None:
        """The hacking flag over prompts, each averaged over samples and seeds."""
        judges = [c.name for c in self.columns if not c.trained]
        if not judges:
            return None

        def both(name: str) -> tuple[Any, Any]:
            tuned = np.mean([cell["prompts"]["tuned"][name] for cell in self.of(system)], axis=0)
            return tuned, np.mean([cell["prompts"]["base"][name] for cell in self.of(system)], axis=0)

        return hacking_flag(both("total"), {name: both(name) for name in judges})

    def curve(self, system: str) -> list[dict[str, Any]]:
        """Budget use, headline score and KL after each evaluation that all runs of the system have."""
        cells = self.of(system)
        length = min(cell["counted"] for cell in cells) + 1
        points = []
        for index in range(length):
            at = [cell["curve"][index] for cell in cells]
            if len({point["step"] for point in at}) > 1:
                break  # runs that were cut elsewhere end at different steps
            kl = [point["kl"] for point in at]
            points.append(
                {
                    "used": {name: float(np.mean([p["used"][name] for p in at])) for name in at[0]["used"]},
                    "score": aggregate([[point["scores"][self.headline] for point in at]]),
                    "kl": float(iqm(kl)) if all(value is not None for value in kl) else None,
                }
            )
        return points

    def improvement(self) -> list[list[float]]:
        """P(row's run scores above column's), systems in the order of `rows`."""
        scores = {row.system: self.scores(row.system, self.headline) for row in self.rows}
        order = [row.system for row in self.rows]
        return [[probability_of_improvement([scores[a]], [scores[b]], resamples=2).value for b in order] for a in order]


class Summary:
    """Everything of a document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        found = [Section(document, reward) for reward in document["suite"]["rewards"]]
        self.sections = [section for section in found if section.cells]

    @cached_property
    def limit(self) -> str:
        """Quantity that the budget limits; the first if there are several."""
        return str(next(iter(self.document["suite"]["budget"])))

    def profile(self, thresholds: Sequence[float]) -> dict[str, Any]:
        """Performance profile of every system over all rewards: normalised gains."""
        systems = [e["label"] for e in self.document["suite"]["algorithms"]]
        tasks = {s: [x.normalised(s) for x in self.sections if s in x.systems] for s in systems}
        return {system: performance_profile(scores, thresholds) for system, scores in tasks.items() if scores}

    def overall(self) -> dict[str, Estimate]:
        """IQM of normalised gains over all rewards, best first."""
        systems = [e["label"] for e in self.document["suite"]["algorithms"]]
        tasks = {s: [x.normalised(s) for x in self.sections if s in x.systems] for s in systems}
        found = {system: aggregate(scores) for system, scores in tasks.items() if scores}
        return dict(sorted(found.items(), key=lambda item: (-item[1].value, item[0])))

    @property
    def warnings(self) -> list[str]:
        """Cautions for the reader."""
        document, notes = self.document, []
        if document["missing"]:
            some = ", ".join(document["missing"][:5]) + (" ..." if len(document["missing"]) > 5 else "")
            notes.append(f"{len(document['missing'])} runs of the grid are missing: {some}")
        seeds = {len(section.of(system)) for section in self.sections for system in section.systems}
        if min(seeds) < 3:
            notes.append("a system has fewer than three seeds; its interval says little or is missing")
        elif min(seeds) in COVERAGE:
            notes.append(
                f"a system has {min(seeds)} seeds: its 95 % bootstrap interval then covers the true value about "
                f"{COVERAGE[min(seeds)]:.0%} of the time"
            )
        trials = {entry["search_trials"] for entry in document["suite"]["algorithms"]}
        if len(trials) > 1:
            notes.append(f"unequal search: options were tuned with {min(trials)} to {max(trials)} trials")
        for section in self.sections:
            cut = [row.system for row in section.rows if row.cut]
            if cut:
                notes.append(f"cut at the budget (+{OVERRUN:.0%}), later evaluations do not count: {', '.join(cut)}")
        if len(document["origin"]["machines"]) > 1 and "seconds" in document["suite"]["budget"]:
            notes.append("the budget is in seconds, and the runs come from different machines")
        return notes


def counted(cell: Mapping[str, Any]) -> Document:
    """The point of a run's curve that stands for the run."""
    point: Document = cell["curve"][cell["counted"]]
    return point


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


__all__ = ["Column", "Row", "Section", "Summary", "counted"]
