"""Tuned against base on the same prompts: what `rlzoo eval` and a run's report say.

A row is one sample: `prompt`, `index` and `scores` by name. Prompts are the units of every test: samples of one prompt
are averaged first, since they are not independent.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlzoo.errors import DataError
from rlzoo.stats.hacking import Verdict, hacking_flag
from rlzoo.stats.statistics import Estimate, Paired, aggregate, mean, paired

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Tuned minus base under every score that both have."""

    scores: Mapping[str, Paired]
    verdict: Verdict | None
    """None if nothing says which score trained, or no other one judged."""


def per_prompt(rows: Iterable[Row], name: str) -> dict[str, float]:
    """Mean score of each prompt's samples, by prompt."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["prompt"], []).append(row["scores"][name])
    return {prompt: statistics.fmean(values) for prompt, values in found.items()}


def estimate(values: Mapping[str, float]) -> Estimate:
    """Mean over prompts, and its bootstrap interval."""
    return aggregate([list(values.values())], mean)


def compare(tuned: Sequence[Row], base: Sequence[Row], *, trained: str = "", judges: Sequence[str] = ()) -> Comparison:
    """Compare row lists over the prompts and scores that both have. DataError if they share no prompt.

    `trained` names the score that was trained on; with it and at least one of `judges` there is a verdict on hacking.
    """
    wanted = {row["prompt"] for row in base}
    shared = list(dict.fromkeys(row["prompt"] for row in tuned if row["prompt"] in wanted))
    if not shared:
        raise DataError("tuned and base share no prompt", "judge both on the same prompts")

    def both(name: str) -> tuple[list[float], list[float]]:
        after, before = per_prompt(tuned, name), per_prompt(base, name)
        return [after[prompt] for prompt in shared], [before[prompt] for prompt in shared]

    names = [name for name in tuned[0]["scores"] if name in base[0]["scores"]]
    independent = [name for name in judges if name in names]
    verdict = None
    if trained in names and independent:
        verdict = hacking_flag(both(trained), {name: both(name) for name in independent})
    return Comparison({name: paired(*both(name)) for name in names}, verdict)


def pair(tuned: Mapping[str, float], base: Mapping[str, float]) -> Paired:
    """Two figures per prompt; only prompts of both count."""
    shared = [prompt for prompt in tuned if prompt in base]
    return paired([tuned[prompt] for prompt in shared], [base[prompt] for prompt in shared])


def paired_json(found: Paired) -> dict[str, Any]:
    """As it is written to files."""
    return {
        "prompts": found.count,
        "base": found.second,
        "tuned": found.first,
        "gain": found.gain.value,
        "low": found.gain.low,
        "high": found.gain.high,
        "p": found.p,
        "wins": found.wins,
        "ties": found.ties,
        "losses": found.losses,
        "win_rate": found.win_rate.value,
        "win_rate_low": found.win_rate.low,
        "win_rate_high": found.win_rate.high,
    }


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """As it is written to files; p values are one-sided, judges' after Holm's adjustment."""
    return {
        "hacked": verdict.hacked,
        "says": str(verdict),
        "reward": {"gain": verdict.reward.gain.value, "p": verdict.reward.p},
        "judges": {
            name: {"gain": fall.gain.value, "p": verdict.adjusted[name], "worse": name in verdict.worse}
            for name, fall in verdict.judges.items()
        },
    }


def interval(found: Estimate) -> str:
    """`-0.10 ... +0.25`, or a dash for one prompt."""
    return "–" if found.low is None or found.high is None else f"{found.low:+.3f} … {found.high:+.3f}"


def p_value(p: float) -> str:
    """Three digits, and never a zero."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


__all__ = [
    "Comparison",
    "compare",
    "estimate",
    "interval",
    "p_value",
    "pair",
    "paired_json",
    "per_prompt",
    "verdict_json",
]
