"""Judge a policy on prompts, or recordings, and compare them with their base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rlzoo.core.policy import Policy
from rlzoo.core.types import Prompt
from rlzoo.engine import scoring, speak
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.scorecache import ScoreCache
from rlzoo.engine.scoring import Scorer
from rlzoo.engine.speak import Judged
from rlzoo.errors import ConfigError, DataError
from rlzoo.evaluation.targets import EvaluationPlan, Request, Subject
from rlzoo.listen.sources import Source, match
from rlzoo.stats.comparison import compare, estimate, pair, paired_json, per_prompt, verdict_json
from rlzoo.stats.statistics import Estimate

Progress = Callable[[str, int, int], None]


def judge(plan: EvaluationPlan, asked: Request, cache: ScoreCache | None, progress: Progress) -> dict[str, Any]:
    """Judge one target and its base. The document that `rlzoo eval --json` prints, see docs/evaluation.md.

    `progress` is called with a label, the prompts or recordings done, and their number.
    """
    notes: list[str] = []
    place = make_fabric(asked.device, "fp32").device
    scorers = scoring.make_scorers(plan.judges, place, cache)
    if isinstance(plan.subject.source, Source):
        tuned, base = _recorded(plan, place, scorers, progress)
        for side in (plan.subject, plan.base):
            notes += side.source.notes if side is not None and isinstance(side.source, Source) else ()
        notes += _said(tuned, plan.subject.label)
    else:
        tuned, base = _spoken(plan, asked, scorers, progress)
    trained = [s.name for s in scorers if s.weight]
    about = {"target": plan.subject.label, "base": plan.base.label if plan.base else None}
    hits, rows = scoring.cache_use(scorers)
    return {
        **about,
        **document(tuned, base, trained, [s.name for s in scorers if not s.weight]),
        "cache": {"hits": hits, "rows": rows},
        "notes": notes,
    }


def _spoken(
    plan: EvaluationPlan, asked: Request, scorers: Sequence[Scorer], progress: Progress
) -> tuple[Judged, Judged | None]:
    run = plan.subject.run
    assert plan.prompts is not None
    prompts = speak.split_of(plan.prompts.build(), plan.split)[: asked.count or None]

    def judged(policy: Policy, label: str, reference: Policy | None) -> Judged:
        return speak.judge_prompts(
            policy,
            prompts,
            scorers,
            seed=asked.seed if asked.seed is not None else run.seed if run is not None else 0,
            samples_per_prompt=asked.samples_per_prompt,
            num_steps=asked.num_steps or (run.eval.num_steps or run.rollout.num_steps if run is not None else None),
            micro_batch=(run.rollout.micro_batch or 16) if run is not None else 16,
            failures=Path("failures"),
            progress=lambda done, total: progress(label, done, total),
            reference=reference,
        )

    tuned, base = (_load(subject, asked) if subject else None for subject in (plan.subject, plan.base))
    assert tuned is not None
    if base is not None and base.media != tuned.media:
        raise ConfigError(f"'{plan.subject.label}' makes {tuned.media}, '{plan.base and plan.base.label}' {base.media}")
    return judged(tuned, plan.subject.label, base), None if base is None else judged(base, "base", None)


def _load(subject: Subject, asked: Request) -> Policy:
    assert not isinstance(subject.source, Source)
    return speak.load(subject.source, asked.device, start=subject.start, seed=asked.seed or 0, trust=asked.trust)


def _recorded(
    plan: EvaluationPlan, place: torch.device, scorers: Sequence[Scorer], progress: Progress
) -> tuple[Judged, Judged | None]:
    def judged(items: list[tuple[dict[str, Any], Path]], label: str) -> Judged:
        told = [(Prompt(prompt["id"], prompt["text"], prompt["attributes"]), path) for prompt, path in items]
        return speak.judge_recordings(
            told, scorers, place, Path("failures"), lambda done, total: progress(label, done, total)
        )

    source = plan.subject.source
    assert isinstance(source, Source)
    if plan.base is None:
        every = [(dict(one.prompt), one.path) for one in source.recordings.values()]
        return judged(every, plan.subject.label), None
    assert isinstance(plan.base.source, Source)
    pairs = match(source, plan.base.source)
    tuned = judged([(dict(pair.prompt), pair.a) for pair in pairs], plan.subject.label)
    base = judged([(dict(pair.prompt), pair.b) for pair in pairs], plan.base.label)
    if tuned.rates != base.rates:
        raise DataError(
            f"'{plan.subject.label}' has a rate of {_rates(tuned)}, '{plan.base.label}' {_rates(base)}",
            "predictors hear the rate: resample one of them first",
        )
    return tuned, base


def _said(judged: Judged, label: str) -> list[str]:
    """A note where recordings have several rates."""
    if len(judged.rates) < 2:
        return []
    return [f"'{label}' has several rates, {_rates(judged)}: each file is resampled to what a judge wants"]


def _rates(judged: Judged) -> str:
    return " and ".join(f"{rate} Hz" for rate in sorted(judged.rates))


def document(tuned: Judged, base: Judged | None, trained: Sequence[str], judges: Sequence[str]) -> dict[str, Any]:
    """One target: `scores`, `paired`, `diversity`, `kl`, `hacking`, `rows`; null where there is nothing to compare."""
    names = list(tuned.rows[0]["scores"])
    found = None
    if base is not None:
        found = compare(tuned.rows, base.rows, trained="total" if trained else "", judges=judges)
    spread: dict[str, Any] | None = {"tuned": _estimate(estimate(tuned.diversity))} if tuned.diversity else None
    if spread and base is not None and tuned.diversity.keys() & base.diversity.keys():
        spread["paired"] = paired_json(pair(tuned.diversity, base.diversity))
    kl = None
    if tuned.kl:
        kl = {"per_element": _estimate(estimate(tuned.kl)), "nats": _estimate(estimate(tuned.kl_nats))}
    return {
        "samples": len(tuned.rows),
        "sample_rate": tuned.sample_rate,
        "trained_on": list(trained),
        "judges": list(judges),
        "scores": {name: _estimate(estimate(per_prompt(tuned.rows, name))) for name in names},
        "paired": None if found is None else {name: paired_json(one) for name, one in found.scores.items()},
        "diversity": spread,
        "kl": kl,
        "hacking": None if found is None or found.verdict is None else verdict_json(found.verdict),
        "rows": tuned.rows,
        "base_rows": None if base is None else base.rows,
    }


def _estimate(found: Estimate) -> dict[str, float | None]:
    return {"mean": found.value, "low": found.low, "high": found.high}
