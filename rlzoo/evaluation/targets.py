"""Targets and judges of `rlzoo eval`. Light: nothing here reads a weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlzoo.config import DEFAULT_POLICY, DEFAULT_PROMPTS
from rlzoo.config.layers import prompts_table, reward_table
from rlzoo.config.opening import open_run
from rlzoo.config.registry import Registry, weights_at_hand
from rlzoo.config.resolve import Choice, ResolvedRun, check_accepts, choose, default_judges
from rlzoo.engine.source import policy_of
from rlzoo.errors import ConfigError, DataError
from rlzoo.files import assets
from rlzoo.files.rundir import RunDirectory
from rlzoo.listen.sources import Source, open_source
from rlzoo.speech.corpus.metadata import AUDIO_SUFFIXES


@dataclass(frozen=True)
class Request:
    """Settings of an evaluation, from the flags."""

    judges: list[str]
    prompts: str
    policy: str
    tables: dict[str, Any]
    """`policy`, `prompts` and `judges` of --set; others are refused."""
    registry: Registry
    count: int
    samples_per_prompt: int
    num_steps: int | None
    seed: int | None
    device: str
    trust: bool = False

    def __post_init__(self) -> None:
        foreign = sorted(self.tables.keys() - {"policy", "prompts", "judges"})
        if foreign:
            raise ConfigError(f"--set {foreign[0]}: no such table here", "available: policy, prompts, judges")


@dataclass(frozen=True)
class Subject:
    """One target: where its speech comes from, and the run it belongs to."""

    label: str
    source: Path | Choice[Any] | Source
    run: ResolvedRun | None
    start: bool = False
    """True if what the run started from is meant, and not what it has become."""


@dataclass(frozen=True)
class EvaluationPlan:
    """A target, its base and everything that judges both, settled before any weight is read."""

    subject: Subject
    base: Subject | None
    judges: list[Choice[Any]]
    prompts: Choice[Any] | None
    split: str


def find_subjects(targets: Sequence[Path], asked: Request) -> list[Subject]:
    """Return the subjects to judge. DataError, ConfigError."""
    if targets:
        return [_subject(path, asked) for path in targets]
    if asked.policy:
        return [Subject(asked.policy, _policy(asked, {}), None)]
    raise ConfigError("no target is named", "rlzoo eval runs/<run>, or a folder of recordings, or --policy NAME")


def _subject(path: Path, asked: Request) -> Subject:
    if path.suffix.lower() in AUDIO_SUFFIXES and not path.is_dir():
        return Subject(str(path), open_source(path), None)
    if not path.exists():
        raise DataError(f"'{path}' does not exist", "check the path")
    inside = path.absolute().parent.name == "checkpoints"
    if inside or (path / "config.json").is_file():
        if asked.policy or "policy" in asked.tables:
            raise ConfigError(
                f"'{path}' is a run, which names its policy itself", "leave out --policy and --set policy"
            )
        rundir = RunDirectory.open(path.absolute().parents[1] if inside else path)
        return Subject(str(path), path, open_run(rundir, uses=("policy", "rewards", "prompts"), trust=asked.trust))
    if path.is_dir():
        return Subject(str(path), open_source(path), None)
    return Subject(str(path), _policy(asked, {"checkpoint": str(path)}, policy_of(path)), None)


def _policy(asked: Request, values: dict[str, Any], name: str = DEFAULT_POLICY) -> Choice[Any]:
    return choose("policy", asked.policy or name, asked.registry, {**asked.tables.get("policy", {}), **values})


def plan_evaluation(subject: Subject, against: Path | None, asked: Request) -> EvaluationPlan:
    """Settle a target's base, prompts and judges; fetches the judges' weights. DataError, ConfigError."""
    run = subject.run
    base = None if against is None else _subject(against, asked)
    if base is None and run is not None:
        base = Subject("its start", subject.source, None, start=True)
    if base is not None and isinstance(base.source, Source) != isinstance(subject.source, Source):
        raise ConfigError(
            f"'{subject.label}' and '{base.label}' cannot be compared: one speaks prompts, the other is recorded",
            "compare runs with runs, or folders with folders; a run's recordings are in samples/<step>/",
        )
    judges = _judges(subject, asked)
    if isinstance(subject.source, Source):
        return EvaluationPlan(subject, base, judges, None, "")
    name, _, split = asked.prompts.partition(":")
    if name in ("heldout", "train") and not split:
        name, split = "", name
    if not name and run is not None and "prompts" not in asked.tables:
        chosen: Choice[Any] = run.prompts
    else:
        own = run.prompts.spec.name if run is not None else DEFAULT_PROMPTS
        table = {**asked.tables.get("prompts", {}), **prompts_table(name or own)}
        chosen = choose("prompts", table.pop("name"), asked.registry, table)
    return EvaluationPlan(subject, base, judges, chosen, split or "heldout")


def _judges(subject: Subject, asked: Request) -> list[Choice[Any]]:
    """The run's rewards first, then those that only judge."""
    run, registry = subject.run, asked.registry
    chosen: list[Choice[Any]] = [] if run is None else list(run.rewards)
    media = _media(subject)
    names = asked.judges
    if not names and run is not None:
        names = [*(run.eval.judges or ()), *default_judges(run.rewards, media, registry)]
    if not names and run is None:
        there = ", ".join(registry.names("reward")) or "none"
        raise ConfigError("no judge is named", f"give --judges NAME,NAME; available: {there}")
    options = asked.tables.get("judges", {})
    for unused in sorted(options.keys() - {reward_table(name)["name"] for name in names}):
        raise ConfigError(f"--set judges.{unused}: '{unused}' does not judge here", "name it in --judges")
    for text in dict.fromkeys(names):
        values = reward_table(text)
        name = values["name"]
        if name not in {choice.spec.name for choice in chosen}:
            chosen.append(choose("reward", name, registry, {**options.get(name, {}), **values}, f"judges.{name}"))
    for choice in chosen:
        check_accepts(choice.spec, media, f"'{subject.label}' is", "judge")
        _fetch(choice)
    return chosen


def _media(subject: Subject) -> str:
    if isinstance(subject.source, Source):
        return "audio"
    policy = subject.run.policy if subject.run is not None else subject.source
    assert isinstance(policy, Choice)
    return str(policy.spec.emits)


def _fetch(choice: Choice[Any]) -> None:
    """Weights first: a judge is never replaced. DataError if they are unavailable."""
    if not weights_at_hand(choice.spec, choice.options):
        for asset in choice.spec.assets:
            assets.obtain(asset)
