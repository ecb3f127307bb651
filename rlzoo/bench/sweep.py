"""Search for options with Optuna: every trial an ordinary run, the effort written down beside the result.

Trials are ranked by the reward of their *training* samples, averaged over the last quarter of the steps. Held-out
prompts and judges play no part, so what a benchmark reports afterwards is not what was tuned on.
"""

from __future__ import annotations

import json
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from rlzoo.bench.jobs import Attempt, Job, execute
from rlzoo.config import layers, toml
from rlzoo.config.registry import discover
from rlzoo.config.resolve import resolve
from rlzoo.errors import ConfigError, DataError, Interrupted, PluginError, RlzooError
from rlzoo.files.reading import read_json
from rlzoo.files.rundir import RunDirectory
from rlzoo.files.writing import is_stray, write_json, write_text
from rlzoo.files.writing import sweep as sweep_strays

FORMAT = "rlzoo-sweep/1"
LAST = 0.25
"""Share of the steps whose training reward ranks a trial."""

DimensionKind = Literal["float", "log", "int", "choice"]
_RANGES: Mapping[str, DimensionKind] = {"float": "float", "log": "log", "int": "int"}


@dataclass(frozen=True)
class Dimension:
    """One option to search: `algorithm.clip=log:1e-5:1e-2`, `algorithm.draws=int:1:4`, `algorithm.form=flow,dance`."""

    key: str
    kind: DimensionKind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Dimension:
        """From the command line. ConfigError."""
        key, equals, rest = text.partition("=")
        kind, _, bounds = rest.partition(":")
        if not equals or not key or not rest:
            raise ConfigError(f"--space '{text}' is not a dimension", "write key=log:LOW:HIGH, int:, float: or a,b,c")
        if kind in _RANGES:
            try:
                low, high = (float(part) for part in bounds.split(":"))
            except ValueError as error:
                raise ConfigError(f"--space '{text}': '{bounds}' is not LOW:HIGH", "two numbers") from error
            if not low < high or (kind == "log" and low <= 0):
                raise ConfigError(f"--space '{text}': the range is empty", "LOW < HIGH, and above 0 for log")
            return cls(key, _RANGES[kind], low, high)
        return cls(key, "choice", choices=tuple(_value(part) for part in rest.split(",")))

    def suggest(self, trial: Any) -> Any:
        """A value for an Optuna trial."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, list(self.choices))
        if self.kind == "int":
            return trial.suggest_int(self.key, int(self.low), int(self.high))
        return trial.suggest_float(self.key, self.low, self.high, log=self.kind == "log")

    def example(self) -> Any:
        """Some value, to check the key before anything runs."""
        return self.choices[0] if self.kind == "choice" else int(self.low) if self.kind == "int" else self.low


@dataclass(frozen=True)
class Search:
    """Settings of a sweep."""

    user: Mapping[str, Any]
    """The run file that every trial starts from."""
    space: tuple[Dimension, ...]
    trials: int
    folder: Path
    plugin_files: tuple[Path, ...] = ()
    seed: int = 0
    threads: int = 1


def sweep(search: Search, attempt: Attempt | None = None) -> dict[str, Any]:
    """Do the trials that are left; write `sweep.json` and `best.toml`; return the former.

    ConfigError before the first trial where the space does not fit the run; PluginError without Optuna; DataError if
    the folder holds another sweep or no trial ended.
    """
    optuna = _optuna()
    folder = search.folder.absolute()
    resolve(_with(search, {d.key: d.example() for d in search.space}), discover(files=search.plugin_files))
    plan = {
        "space": {d.key: _described(d) for d in search.space},
        "seed": search.seed,
        "run": json.loads(json.dumps(search.user)),
    }
    _claim(folder, plan)
    sweep_strays(folder)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    storage = optuna.storages.JournalStorage(backend)
    known = [study.n_trials for study in optuna.get_all_study_summaries(storage)]
    study = optuna.create_study(
        study_name="sweep",
        storage=storage,
        # Continued with the same seed, the sampler would propose what it has proposed before.
        sampler=optuna.samplers.TPESampler(seed=search.seed + sum(known)),
        direction="maximize",
        load_if_exists=True,
    )
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)

    def spent() -> list[Any]:
        return list(study.get_trials(deepcopy=False, states=ended))

    while len(spent()) < search.trials:
        trial = study.ask()
        value = _run(search, folder, trial.number, {d.key: d.suggest(trial) for d in search.space}, attempt)
        if value is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return _result(search, folder, plan, spent())


def _run(search: Search, folder: Path, number: int, values: Mapping[str, Any], attempt: Attempt | None) -> float | None:
    """Value of one trial, None if it diverged: it counts as spent."""
    job = Job(f"trial-{number:04d}", folder, search.plugin_files, search.threads)
    write_text(job.beside(".toml"), toml.dumps(_with(search, values)))
    outcome = execute(job, attempt)
    if outcome.state == "interrupted":
        raise Interrupted("the sweep was stopped", "the same command goes on")
    if outcome.state == "failed":
        raise RlzooError(f"trial {number} failed: {outcome.error}", f"see {job.beside('.log')}")
    return None if outcome.state == "diverged" else objective(RunDirectory(job.run).metrics())


def objective(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Mean reward of the training samples over the last quarter of the steps, at least one step."""
    last = metrics[-max(1, round(LAST * len(metrics))) :]
    return statistics.fmean(row["reward/total"] for row in last)


def _with(search: Search, values: Mapping[str, Any]) -> dict[str, Any]:
    items = [f"{key}={toml.value(value)}" for key, value in values.items()]
    return reduce(layers.override, items, dict(search.user))


def _claim(folder: Path, plan: Mapping[str, Any]) -> None:
    """A folder belongs to one sweep."""
    path = folder / "plan.json"
    if path.is_file():
        if read_json(path) != plan:
            raise DataError(f"'{folder}' holds another sweep", "choose another --out, or give the same options again")
        return
    if folder.is_dir() and not all(is_stray(item) for item in folder.iterdir()):
        raise DataError(f"'{folder}' exists and holds no sweep", "choose another --out")
    write_json(path, plan)


def _result(search: Search, folder: Path, plan: Mapping[str, Any], trials: Sequence[Any]) -> dict[str, Any]:
    ranked = sorted((t for t in trials if t.value is not None), key=lambda t: (-t.value, t.number))
    if not ranked:
        raise DataError(f"all {len(trials)} trials of '{folder}' diverged", "narrow --space")
    document = {
        "format": FORMAT,
        "objective": f"mean reward of the training samples over the last {LAST:.0%} of the steps",
        "search_trials": len(trials),
        "diverged": len(trials) - len(ranked),
        **plan,
        "best": {"trial": ranked[0].number, "value": ranked[0].value, "values": ranked[0].params},
        "trials": [
            {"trial": t.number, "value": t.value, "values": t.params} for t in sorted(trials, key=lambda t: t.number)
        ],
    }
    write_json(folder / "sweep.json", document)
    head = f"# Best of {len(trials)} trials; put search_trials = {len(trials)} beside these options in a suite.\n\n"
    write_text(folder / "best.toml", head + toml.dumps(_with(search, ranked[0].params)))
    return document


def _described(d: Dimension) -> dict[str, Any]:
    return {"kind": d.kind, "choices": list(d.choices)} if d.choices else {"kind": d.kind, "low": d.low, "high": d.high}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise PluginError(f"a sweep needs optuna: {error}", "pip install 'rlzoo-speech[sweep]'") from error
    return optuna


__all__ = ["Dimension", "Search", "objective", "sweep"]
