"""A suite file: which algorithms, rewards and seeds, and what all of them share. Light.

    name = "toy"                      # also the folder under runs/bench/
    summary = "..."
    seeds = [0, 1, 2, 3, 4]
    plugins = ["rlzoo.testing.specs"] # modules or .py files announced besides the installed plugins
    [run]                             # a run file without algorithm, rewards and seed; [run.train.budget] is required
    [[algorithms]]                    # name, label; options = {...}; run = {train = {...}, rollout = {...}}
    [[rewards]]                       # label; terms = ["nisqa-tts", {name = "guard", weight = 0.2}]

Every cell (algorithm, reward, seed) is an ordinary run file. What decides a comparison (policy, prompts, evaluation,
budget) is said once for all and cannot be changed for one algorithm.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rlzoo.config import layers, toml
from rlzoo.config.checking import check_options
from rlzoo.config.fallback import require_weights
from rlzoo.config.registry import Registry, did_you_mean, discover
from rlzoo.config.resolve import ResolvedRun, resolve
from rlzoo.config.schema import BudgetTable, Count
from rlzoo.core.specs import Options
from rlzoo.errors import ConfigError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
BASE = "base"
"""The system that no algorithm has touched; every run's evaluation before its first step."""

# Tables that an algorithm may adjust for itself; everything else decides the comparison and is everybody's.
_OWN = frozenset({"train", "rollout"})
_SHARED_TRAIN = frozenset({"budget", "eval_every", "device", "precision"})
_SHARED_ROLLOUT = frozenset({"num_steps"})


class AlgorithmEntry(Options):
    """One `[[algorithms]]` table."""

    name: str
    """The algorithm."""
    label: Name = ""
    """Label in tables and folders; default: its name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The algorithm's options."""
    run: dict[str, Any] = Field(default_factory=dict)
    """Its own values of [train] and [rollout], laid over the suite's."""
    search_trials: Annotated[int, Field(ge=0)] = 0
    """Runs that were spent on finding these options; part of the report, equal for all in a fair suite."""

    @property
    def title(self) -> str:
        """`label`, or the name."""
        return self.label or self.name


class RewardEntry(Options):
    """One `[[rewards]]` table: what is trained on."""

    label: Name
    """Label in tables and folders."""
    terms: Annotated[tuple[str | dict[str, Any], ...], Field(min_length=1)]
    """Rewards by name, or `[[rewards]]` tables of a run file."""
    optimum: float | None = None
    """Best reachable value of the sum, where it is known exactly."""


class SuiteTable(Options):
    """A suite file."""

    name: Name
    summary: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    algorithms: Annotated[tuple[AlgorithmEntry, ...], Field(min_length=1)]
    rewards: Annotated[tuple[RewardEntry, ...], Field(min_length=1)]
    run: dict[str, Any]
    """Run file shared by every cell."""
    plugins: tuple[str, ...] = ()
    """Modules or files of one-file plugins."""
    threads: Count = 1
    """CPU threads of each run: the same everywhere, because sums depend on it in the last digit."""
    headline: str = "total"
    """Score that profiles, curves and comparisons show: `total` is the training reward; better a judge."""
    listen: Annotated[int, Field(ge=0)] = 3
    """Held-out prompts whose audio goes into the report."""


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    algorithm: str
    reward: str
    seed: int

    @property
    def key(self) -> str:
        """Folder name."""
        return f"{self.algorithm}--{self.reward}--{self.seed}"


@dataclass(frozen=True)
class Suite:
    """A suite file that was read and checked."""

    path: Path
    table: SuiteTable

    @property
    def name(self) -> str:
        """Name of the suite."""
        return self.table.name

    @cached_property
    def plugin_files(self) -> tuple[Path, ...]:
        """Files of the suite's own plugins."""
        return tuple(_plugin_file(name, self.path) for name in self.table.plugins)

    @cached_property
    def registry(self) -> Registry:
        """Installed plugins and the suite's."""
        return discover(files=self.plugin_files)

    @cached_property
    def budget(self) -> BudgetTable:
        """The limits everybody has."""
        return check_options(BudgetTable, self.table.run.get("train", {}).get("budget", {}), "run.train.budget")

    def cells(self, *, only: Iterable[str] = (), seeds: Iterable[int] = ()) -> list[Cell]:
        """The grid, seeds outermost, so that an unfinished grid has every system. ConfigError for unknown names."""
        algorithms = [entry.title for entry in self.table.algorithms]
        wanted, chosen = list(only) or algorithms, list(seeds) or list(self.table.seeds)
        for name in wanted:
            if name not in algorithms:
                hint = did_you_mean(name, algorithms) or f"available: {', '.join(algorithms)}"
                raise ConfigError(f"suite '{self.name}' has no algorithm '{name}'", hint)
        for seed in chosen:
            if seed not in self.table.seeds:
                raise ConfigError(f"suite '{self.name}' has no seed {seed}", f"available: {list(self.table.seeds)}")
        return [
            Cell(algorithm, reward.label, seed)
            for seed in chosen
            for reward in self.table.rewards
            for algorithm in algorithms
            if algorithm in wanted
        ]

    def algorithm(self, label: str) -> AlgorithmEntry:
        """By label."""
        return next(entry for entry in self.table.algorithms if entry.title == label)

    def reward(self, label: str) -> RewardEntry:
        """By label."""
        return next(entry for entry in self.table.rewards if entry.label == label)

    def run_file(self, cell: Cell) -> dict[str, Any]:
        """Content of the cell's run file without presets, which `rlzoo run` adds."""
        entry, reward = self.algorithm(cell.algorithm), self.reward(cell.reward)
        shared = layers.merge(self.table.run, entry.run)
        terms = [{"name": term} if isinstance(term, str) else dict(term) for term in reward.terms]
        strict = [{"on_missing": "error", **term} for term in terms]
        return {
            "seed": cell.seed,
            "algorithm": {"name": entry.name, **entry.options},
            "rewards": strict,
            **shared,
        }

    def toml(self, cell: Cell) -> str:
        """The cell's run file as text."""
        return toml.dumps(self.run_file(cell))

    def resolved(self, cell: Cell) -> ResolvedRun:
        """Every value of the cell's run. ConfigError or PluginError."""
        return resolve(self.run_file(cell), self.registry, plugin_files=self.plugin_files)

    def check(self, *, weights: bool) -> None:
        """Resolve every algorithm with every reward, so that mistakes show before anything runs.

        ConfigError, PluginError; with `weights`, DataError if a reward's weights are unavailable (they are fetched
        first): a benchmark never uses stand-ins.
        """
        for algorithm in self.table.algorithms:
            for reward in self.table.rewards:
                cell = Cell(algorithm.title, reward.label, self.table.seeds[0])
                try:
                    run = self.resolved(cell)
                except ConfigError as error:
                    raise ConfigError(f"suite '{self.path}', {cell.key}: {error.message}", error.hint) from error
                if weights:
                    used = {choice.used for choice in run.rewards}
                    judges = [self.registry.reward(name) for name in run.eval.judges or () if name not in used]
                    needed = [(choice.spec, choice.options) for choice in run.rewards]
                    for spec, options in [*needed, *((judge, judge.options()) for judge in judges)]:
                        require_weights(spec, options)


def load(source: str) -> Suite:
    """A suite by path, or by name of a suite that ships. ConfigError."""
    path = Path(source)
    if path.suffix != ".toml":
        path = suites_folder() / f"{source}.toml"
        if not path.is_file():
            there = shipped()
            hint = did_you_mean(source, there) or f"available: {', '.join(there)}; or give the path of a .toml file"
            raise ConfigError(f"unknown suite '{source}'", hint)
    table = check_options(SuiteTable, layers.read(path), f"suite '{path}'", missing="write it into the file")
    _check(table, path)
    return Suite(path.absolute(), table)


def suites_folder() -> Path:
    """Folder of the shipped suites: `benchmarks/suites` of a checkout, else beside this file (a wheel)."""
    root = Path(__file__).resolve().parents[2] / "benchmarks" / "suites"
    return root if root.is_dir() else Path(__file__).resolve().parent / "suites"


def shipped() -> list[str]:
    """Names of the suites that ship."""
    return sorted(path.stem for path in suites_folder().glob("*.toml"))


def _check(table: SuiteTable, path: Path) -> None:
    where = f"suite '{path}'"
    for kind, names in (
        ("algorithm", [entry.title for entry in table.algorithms]),
        ("reward", [entry.label for entry in table.rewards]),
        ("seed", list(map(str, table.seeds))),
    ):
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"{where}: {kind} '{name}' is there twice", "give one of them another label")
    if BASE in [entry.title for entry in table.algorithms]:
        raise ConfigError(f"{where}: '{BASE}' is the untrained policy's name", "give the algorithm another label")
    for key in sorted({"seed", "algorithm", "rewards"} & table.run.keys()):
        raise ConfigError(f"{where}: run.{key} differs from cell to cell", "the suite's own tables set it")
    budget = table.run.get("train", {}).get("budget", {})
    if not budget:
        limits = ", ".join(BudgetTable.model_fields)
        raise ConfigError(f"{where}: run.train.budget sets no limit", f"equal budgets need one of: {limits}")
    for entry in table.algorithms:
        _check_own(entry, where)


def _check_own(entry: AlgorithmEntry, where: str) -> None:
    fixed = [key for key in entry.run if key not in _OWN]
    for name, shared in (("train", _SHARED_TRAIN), ("rollout", _SHARED_ROLLOUT)):
        part: Mapping[str, Any] = entry.run.get(name, {})
        fixed += [f"{name}.{key}" for key in part if key in shared]
    if fixed:
        raise ConfigError(
            f"{where}: algorithm '{entry.title}' sets run.{fixed[0]} for itself",
            "what decides the comparison is the same for all: set it in [run]",
        )


def _plugin_file(name: str, suite: Path) -> Path:
    if name.endswith(".py"):
        return (suite.parent / name).absolute()
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.origin:
        raise ConfigError(f"suite '{suite}': module '{name}' does not exist", "plugins are modules or .py files")
    return Path(found.origin)


__all__ = ["BASE", "AlgorithmEntry", "Cell", "RewardEntry", "Suite", "SuiteTable", "load", "shipped", "suites_folder"]
