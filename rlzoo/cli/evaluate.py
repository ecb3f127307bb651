"""`rlzoo eval`: judge policies on held-out prompts, or recordings, and compare them with what they started from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlzoo.cli._evaluation import document, show
from rlzoo.cli._output import err, out
from rlzoo.cli._shared import Device, OfPrompts, OfSets, PluginFiles, PolicyName, Seed, overridden
from rlzoo.cli._targets import Asked, Plan, Subject, plan_of, subjects_of
from rlzoo.cli.synth import DenoisingSteps
from rlzoo.config.registry import discover
from rlzoo.errors import ConfigError, DataError
from rlzoo.listen.sources import Source, match

if TYPE_CHECKING:
    from rlzoo.core.policy import Policy
    from rlzoo.engine.scorecache import ScoreCache
    from rlzoo.engine.scoring import Scorer
    from rlzoo.engine.speak import Judged


def evaluate(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TARGET]...",
            help="A run, one checkpoint in it, a policy's weight file, a recording, or a folder of WAV or FLAC files.",
        ),
    ] = None,
    judges: Annotated[
        list[str],
        typer.Option("--judges", help="Rewards that judge, as in nisqa,dnsmos,wer; a run's own always do."),
    ] = [],  # noqa: B006
    base: Annotated[
        Path | None, typer.Option("--base", help="What to compare with; default: what a run started from.")
    ] = None,
    prompts: OfPrompts = "heldout",
    count: Annotated[int, typer.Option(min=0, help="Prompts to use, from the first; 0: all.")] = 0,
    samples_per_prompt: Annotated[int, typer.Option(min=1, help="Samples of each prompt; 1 shows no diversity.")] = 2,
    num_steps: DenoisingSteps = None,
    policy: PolicyName = "",
    seed: Seed = None,
    device: Device = "auto",
    sets: OfSets = [],  # noqa: B006
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute every score, known or not.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file with every score.")] = None,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Judge policies or recordings, and compare them with their base: same prompts, same noise.

    Says so where the reward that trained has risen while a judge that did not train has fallen. Here, weights that
    cannot be had are an error.
    """
    if out_file is not None:
        _check_free(out_file)
    asked = Asked(
        judges=[name for item in judges for name in item.split(",") if name],
        prompts=prompts,
        policy=policy,
        tables=overridden(sets),
        registry=discover(files=plugin),
        count=count,
        samples_per_prompt=samples_per_prompt,
        num_steps=num_steps,
        seed=seed,
        device=device,
    )
    plans = [plan_of(subject, base, asked) for subject in subjects_of(targets or [], asked)]
    cache = None if no_cache else _open_cache()
    found = [_judge(plan, asked, cache) for plan in plans]
    text = json.dumps({"targets": found}, indent=2, ensure_ascii=False)
    if as_json:
        out.print(text)
    else:
        for one in found:
            show(one)
    if out_file is not None:
        try:
            out_file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write '{out_file}': {error.strerror}", "choose another --out") from error


def _check_free(path: Path) -> None:
    """DataError where the file could not be written, before hours are spent on what goes into it."""
    if path.exists():
        raise DataError(f"'{path}' exists already", "choose another --out")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(f"cannot write '{path}': '{path.parent}' is no directory to write to", "choose another --out")


def _open_cache() -> ScoreCache | None:
    from rlzoo.engine.scorecache import open_cache

    try:
        return open_cache()
    except DataError as error:
        err.print(f"note: no score cache: {error.message}")
        return None


def _judge(plan: Plan, asked: Asked, cache: ScoreCache | None) -> dict[str, Any]:
    from rlzoo.engine import scoring, speak

    scorers = speak.make_scorers(plan.judges, asked.device, cache)
    if isinstance(plan.subject.source, Source):
        tuned, base = _recorded(plan, scorers)
    else:
        tuned, base = _spoken(plan, asked, scorers)
    trained = [s.name for s in scorers if s.weight]
    about = {"target": plan.subject.label, "base": plan.base.label if plan.base else None}
    hits, rows = scoring.cache_use(scorers)
    return {
        **about,
        **document(tuned, base, trained, [s.name for s in scorers if not s.weight]),
        "cache": {"hits": hits, "rows": rows},
    }


def _spoken(plan: Plan, asked: Asked, scorers: Sequence[Scorer]) -> tuple[Judged, Judged | None]:
    from rlzoo.engine import speak

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
            progress=lambda done, total: _progress(label, done, total),
            reference=reference,
        )

    tuned, base = (_load(subject, asked.device) if subject else None for subject in (plan.subject, plan.base))
    assert tuned is not None
    if base is not None and base.media != tuned.media:
        raise ConfigError(f"'{plan.subject.label}' makes {tuned.media}, '{plan.base and plan.base.label}' {base.media}")
    return judged(tuned, plan.subject.label, base), None if base is None else judged(base, "base", None)


def _load(subject: Subject, device: str) -> Policy:
    from rlzoo.engine import speak

    assert not isinstance(subject.source, Source)
    return speak.load(subject.source, device, start=subject.start)


def _recorded(plan: Plan, scorers: Sequence[Scorer]) -> tuple[Judged, Judged | None]:
    from rlzoo.core.types import Prompt
    from rlzoo.engine import speak

    def judged(items: list[tuple[dict[str, Any], Path]], label: str) -> Judged:
        told = [(Prompt(prompt["id"], prompt["text"], prompt["attributes"]), path) for prompt, path in items]
        done = speak.judge_recordings(
            told, scorers, Path("failures"), lambda done, total: _progress(label, done, total)
        )
        if len(done.rates) > 1:
            found = ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(done.rates.items()))
            err.print(f"note: '{label}' has several rates: {found}; each file is resampled to what a judge wants")
        return done

    source = plan.subject.source
    assert isinstance(source, Source)
    for note in source.notes:
        err.print(f"note: '{source.label}': {note}")
    if plan.base is None:
        every = [(dict(one.prompt), one.path) for one in source.recordings.values()]
        return judged(every, plan.subject.label), None
    assert isinstance(plan.base.source, Source)
    pairs = match(source, plan.base.source)
    tuned = judged([(dict(pair.prompt), pair.a) for pair in pairs], plan.subject.label)
    base = judged([(dict(pair.prompt), pair.b) for pair in pairs], plan.base.label)
    if tuned.rates != base.rates:
        raise DataError(
            f"'{plan.subject.label}' has a rate of {_rates(tuned)} Hz, '{plan.base.label}' {_rates(base)} Hz",
            "predictors hear the rate: resample one of them first",
        )
    return tuned, base


def _rates(judged: Judged) -> str:
    return " and ".join(map(str, sorted(judged.rates)))


def _progress(label: str, done: int, total: int) -> None:
    if err.is_terminal:
        err.print(f"{label}: {done} of {total}", end="\r" if done < total else "\n")
