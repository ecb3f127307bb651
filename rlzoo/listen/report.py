"""Report of a listening test: preferences, and their reliability.

Ties ("about the same") are left out of the main figures: the preference is the share of b among the decided answers,
with Wilson's interval (1927) and the exact two-sided binomial test against 1/2. Beside them stand the same figures with
ties split evenly (half to either side; of an odd number one tie is dropped, so that the counts stay whole), and, as
answers to one prompt or of one rater are not independent, sign tests over prompts and over raters.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from rlzoo.config.registry import import_target
from rlzoo.errors import ConfigError, DataError
from rlzoo.listen.study import Answer, Study

LEVEL = 0.95
_VALUES = {"a": -1, None: 0, "b": 1}


def report(study: Study, min_anchors: float = 0.0) -> dict[str, Any]:
    """Every figure of a test, JSON-able; `docs/listening.md` lists the keys.

    Raters who found fewer than `min_anchors` (a share) of their anchors are left out, and named. DataError if there
    is no answer at all.
    """
    answers = study.answers()
    if not answers:
        raise DataError(f"'{study.folder}' has no answers yet", "start it with `rlzoo listen` and send people the link")
    excluded = unreliable(answers, min_anchors)
    kept = [answer for answer in answers if answer.rater not in excluded]
    plain = [answer for answer in kept if answer.kind == "pair"]
    return {
        "study": str(study.folder),
        "question": study.settings.question,
        "a": study.labels[0],
        "b": study.labels[1],
        "raters": len({answer.rater for answer in plain}),
        "prompts": len({answer.pair for answer in plain}),
        "answers": len(plain),
        "excluded": sorted(study.raters()[rater] for rater in excluded),
        "preference": preference(*_counts(plain)),
        "over_prompts": majorities(plain, [answer.pair for answer in plain]),
        "over_raters": majorities(plain, [answer.rater for answer in plain]),
        "agreement": agreement(plain),
        "consistency": consistency(kept),
        "by_rater": [
            {"id": rater, "name": name, "excluded": rater in excluded}
            | _rater([answer for answer in answers if answer.rater == rater])
            for rater, name in study.raters().items()
        ],
    }


def unreliable(answers: Sequence[Answer], min_anchors: float) -> set[int]:
    """Raters who found fewer than this share of the anchors they have heard. ConfigError outside [0, 1]."""
    if not 0 <= min_anchors <= 1:
        raise ConfigError(f"the share of anchors is {min_anchors}, expected 0 to 1", "for example --min-anchors 0.5")
    found: defaultdict[int, list[bool]] = defaultdict(list)
    for answer in answers:
        if answer.kind == "anchor":
            found[answer.rater].append(_found(answer))
    return {rater for rater, right in found.items() if sum(right) / len(right) < min_anchors}


def preference(a: int, b: int, ties: int) -> dict[str, Any]:
    """Share of b, Wilson's interval and the exact binomial test, with ties left out and with ties split evenly."""
    half = ties // 2
    return {
        "a": a,
        "b": b,
        "ties": ties,
        "ties_excluded": _share(b, a + b),
        "ties_split": _share(b + half, a + b + 2 * half),
    }


def majorities(answers: Sequence[Answer], groups: Sequence[Hashable]) -> dict[str, Any]:
    """Sign test over groups: how many prefer a or b by a majority of their decided answers; even ones are left out."""
    balance: Counter[Hashable] = Counter()
    for answer, group in zip(answers, groups, strict=True):
        balance[group] += _VALUES[answer.preferred]
    a, b = sum(value < 0 for value in balance.values()), sum(value > 0 for value in balance.values())
    return {"a": a, "b": b, "even": len(balance) - a - b, **_share(b, a + b)}


def agreement(answers: Sequence[Answer]) -> dict[str, Any]:
    """Krippendorff's alpha of a < same < b (ordinal) over raters and prompts; None, with the reason, without overlap.

    1 is perfect agreement, 0 what chance gives, below 0 systematic disagreement (Krippendorff 2011).
    """
    krippendorff_alpha = import_target("krippendorff:alpha", "Krippendorff's alpha", "listen")
    raters = sorted({answer.rater for answer in answers})
    pairs = sorted({answer.pair for answer in answers})
    table = np.full((len(raters), len(pairs)), np.nan)
    for answer in answers:
        table[raters.index(answer.rater), pairs.index(answer.pair)] = _VALUES[answer.preferred]
    shared = (~np.isnan(table)).sum(0) > 1 if len(raters) else np.zeros(0, dtype=bool)
    facts = {"level": "ordinal", "raters": len(raters), "prompts": int(shared.sum())}
    if not shared.any():
        return {"alpha": None, "reason": "no prompt was heard by two raters", **facts}
    if len(np.unique(table[:, shared][~np.isnan(table[:, shared])])) == 1:
        return {"alpha": None, "reason": "every answer is the same, so chance agreement is total", **facts}
    alpha = krippendorff_alpha(reliability_data=table, level_of_measurement="ordinal")
    return {"alpha": float(alpha), "reason": "", **facts}


def consistency(answers: Sequence[Answer]) -> dict[str, Any]:
    """Anchors found, repeats answered as before, and whether the side that is heard first is favoured."""
    anchors = [answer for answer in answers if answer.kind == "anchor"]
    before = {(answer.rater, answer.pair): answer.preferred for answer in answers if answer.kind == "pair"}
    repeats = [
        (before[answer.rater, answer.pair], answer.preferred)
        for answer in answers
        if answer.kind == "repeat" and (answer.rater, answer.pair) in before
    ]
    decided = [answer.choice for answer in answers if answer.kind == "pair" and answer.choice != "same"]
    return {
        "anchors": {
            "heard": len(anchors),
            "found": sum(map(_found, anchors)),
            "same": sum(answer.choice == "same" for answer in anchors),
        },
        "repeats": {
            "heard": len(repeats),
            "equal": sum(old == new for old, new in repeats),
            "reversed": sum({old, new} == {"a", "b"} for old, new in repeats),
        },
        "heard_first": {"chosen": decided.count("first"), **_share(decided.count("first"), len(decided))},
    }


def _rater(answers: Sequence[Answer]) -> dict[str, Any]:
    a, b, ties = _counts(answer for answer in answers if answer.kind == "pair")
    checks = consistency(answers)
    return {"a": a, "b": b, "ties": ties, "anchors": checks["anchors"], "repeats": checks["repeats"]}


def _counts(answers: Iterable[Answer]) -> tuple[int, int, int]:
    counts = Counter(answer.preferred for answer in answers)
    return counts["a"], counts["b"], counts[None]


def _found(answer: Answer) -> bool:
    return answer.preferred in ("a", "b")


def _share(wins: int, count: int) -> dict[str, Any]:
    if count == 0:
        return {"count": 0, "share": None, "low": None, "high": None, "p": None}
    test = stats.binomtest(wins, count, 0.5)
    interval = test.proportion_ci(LEVEL, method="wilson")
    return {
        "count": count,
        "share": wins / count,
        "low": float(interval.low),
        "high": float(interval.high),
        "p": float(test.pvalue),
    }
