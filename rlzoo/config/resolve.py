"""From what the user wrote to a run in which every value is settled. Light: of plugins, only their records run here.

Layers, later ones win: built-in choices, what suits the policy, the algorithm's preset, the run file, the command
line's flags, `--set`. Then two phases: the names pick the plugins, and each plugin's own `Options` checks its table. A
broken plugin therefore cannot spoil a run that does not use it. Nothing here reads a weight, so every mistake in a run
file shows in a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

from pydantic import Field

from rlzoo.config import registry as reg
from rlzoo.config.checking import absolute, raise_problems, validate
from rlzoo.config.layers import (
    DEFAULT_JUDGES,
    PLUGIN_TABLES,
    Data,
    as_table,
    build_layers,
    suited,
)
from rlzoo.config.registry import Registry, did_you_mean
from rlzoo.config.schema import CORE_TABLES, EvalTable, RolloutTable, TrainTable
from rlzoo.core.kinds import Kind
from rlzoo.core.specs import AlgorithmSpec, ObserverSpec, Options, PolicySpec, PromptSpec, RewardSpec, Spec
from rlzoo.errors import ConfigError, RlzooError

TOP_KEYS = ("seed", "policy", "rewards", "algorithm", "prompts", "observers", "rollout", "train", "eval")

S = TypeVar("S", bound=Spec)


class RewardTable(Options):
    """Core's keys of a `[[rewards]]` table; every other key is an option of the reward."""

    name: str
    """Name of the reward."""
    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Factor in the sum of rewards; a negative weight reverses the reward."""
    on_missing: Literal["fallback", "error"] = "fallback"
    """If its weights are unavailable: warn and use its fallback, or stop with an error."""
    requested: str = ""
    """Written by rlzoo into `config.json` only: the name the user gave, if a fallback is used."""


class SeedTable(Options):
    """Top-level values of the run file."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Random seed of the whole run."""


@dataclass(frozen=True)
class Choice(Generic[S]):
    """One chosen plugin and its validated options."""

    spec: S
    options: Options

    def build(self) -> Any:
        """Import the target and construct it. PluginError if that fails; the plugin's own errors get a note."""
        target = reg.import_target(self.spec.target, f"plugin '{self.spec.name}'", self.spec.extra)
        try:
            return target(self.options)
        except RlzooError:
            raise
        except Exception as error:
            error.add_note(f"while building '{self.spec.name}' ({self.spec.target})")
            raise

    def to_dict(self) -> Data:
        """`name` and every option, as JSON values."""
        return {"name": self.spec.name, **self.options.model_dump(mode="json")}


@dataclass(frozen=True)
class RewardChoice(Choice[RewardSpec]):
    """One term of the reward. `spec` is what is used; `requested` is what the user named."""

    requested: str
    weight: float = 1.0
    on_missing: Literal["fallback", "error"] = "fallback"

    @property
    def used(self) -> str:
        """Name under which numbers may be printed: the reward that produced them."""
        return self.spec.name

    def to_dict(self) -> Data:
        """`name`, core's keys and every option, as JSON values."""
        core = {"requested": self.requested, "weight": self.weight, "on_missing": self.on_missing}
        return {"name": self.spec.name, **core, **self.options.model_dump(mode="json")}


@dataclass(frozen=True)
class ResolvedRun:
    """Everything a run needs, every value settled and checked."""

    seed: int
    policy: Choice[PolicySpec]
    rewards: tuple[RewardChoice, ...]
    algorithm: Choice[AlgorithmSpec]
    prompts: Choice[PromptSpec]
    rollout: RolloutTable
    train: TrainTable
    eval: EvalTable
    observers: tuple[Choice[ObserverSpec], ...] = ()
    plugin_files: tuple[Path, ...] = ()
    """One-file plugins (`--plugin`), loaded again on resume."""

    def to_dict(self) -> Data:
        """Every value, as JSON; the content of `config.json`."""
        return {
            "seed": self.seed,
            "policy": self.policy.to_dict(),
            "rewards": [reward.to_dict() for reward in self.rewards],
            "algorithm": self.algorithm.to_dict(),
            "prompts": self.prompts.to_dict(),
            "observers": [observer.to_dict() for observer in self.observers],
            **{name: getattr(self, name).model_dump(mode="json") for name in CORE_TABLES},
            "plugin_files": [str(path) for path in self.plugin_files],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], registry: Registry | None = None) -> ResolvedRun:
        """Inverse of `to_dict`. ConfigError or PluginError if a plugin is gone or no longer takes these options.

        The one-file plugins that it names are not loaded here: they are programs; see `open_run`.
        """
        values = dict(data)
        files = tuple(Path(path) for path in values.pop("plugin_files", ()))
        found = reg.discover() if registry is None else registry
        return resolve_layers(values, found, files)


def resolve(
    user: Mapping[str, Any],
    registry: Registry | None = None,
    *,
    preset: str = "",
    overrides: Iterable[str] = (),
    plugin_files: Sequence[Path] = (),
) -> ResolvedRun:
    """The run that `user` (a run file's content) describes; `overrides` are `--set`'s `key.path=value`.

    Raises ConfigError (with the path of the key) and PluginError. Reads no weights.
    """
    files = tuple(path.expanduser().absolute() for path in plugin_files)
    found = reg.discover(files=files) if registry is None else registry
    return resolve_layers(build_layers(user, found, preset=preset, overrides=overrides), found, files)


def resolve_layers(data: Mapping[str, Any], registry: Registry, files: tuple[Path, ...]) -> ResolvedRun:
    """Check all layers of a run's configuration, merged by `build_layers`. ConfigError and PluginError as `resolve`."""
    problems: list[tuple[str, str]] = []
    for key in sorted(data.keys() - set(TOP_KEYS)):
        problems.append((f"{key}: no such key", did_you_mean(key, TOP_KEYS) or f"available: {', '.join(TOP_KEYS)}"))
    top = validate(SeedTable, {k: data[k] for k in ("seed",) if k in data}, "", problems)
    choices = {
        table: _choice(kind, as_table(data, table), registry, problems, table) for table, kind in PLUGIN_TABLES.items()
    }
    policy, algorithm = choices["policy"], choices["algorithm"]
    suits: Mapping[str, Mapping[str, Any]] = {}
    if policy is not None:
        speaks = cast(PolicySpec, policy.spec)
        suits = suited(speaks, cast(AlgorithmSpec, algorithm.spec)) if algorithm is not None else speaks.run
    tables = {
        name: validate(model, as_table(data, name), name, problems, defaults=suits.get(name))
        for name, model in CORE_TABLES.items()
    }
    rewards = _rewards(data.get("rewards"), registry, problems)
    observers = _observers(data.get("observers", []), registry, problems)
    raise_problems(problems)
    assert top is not None
    run = ResolvedRun(
        seed=top.seed,
        policy=cast("Choice[PolicySpec]", choices["policy"]),
        rewards=rewards,
        algorithm=cast("Choice[AlgorithmSpec]", choices["algorithm"]),
        prompts=cast("Choice[PromptSpec]", choices["prompts"]),
        rollout=cast(RolloutTable, tables["rollout"]),
        train=cast(TrainTable, tables["train"]),
        eval=cast(EvalTable, tables["eval"]),
        observers=observers,
        plugin_files=files,
    )
    if run.eval.judges is None:
        judges = default_judges(run.rewards, run.policy.spec.emits, registry)
        run = replace(run, eval=run.eval.model_copy(update={"judges": judges}))
    for judge in run.eval.judges or ():
        check_accepts(registry.reward(judge), run.policy.spec.emits, f"policy '{run.policy.spec.name}' makes", "judge")
    check_capabilities(run)
    return run


def default_judges(rewards: Sequence[RewardChoice], media: str, registry: Registry) -> tuple[str, ...]:
    """The default judges that are announced, are not a reward of the run, and can judge this kind of media."""
    judges = [name for name in DEFAULT_JUDGES if name in registry.names("reward")]
    used = {choice.used for choice in rewards}
    return tuple(name for name in judges if name not in used and media in registry.reward(name).accepts)


def _choice(
    kind: Kind, table: Data, registry: Registry, problems: list[tuple[str, str]], where: str
) -> Choice[Spec] | None:
    name = table.pop("name", None)
    if not isinstance(name, str) or not name:
        there = ", ".join(registry.names(kind)) or "none"
        problems.append((f"{where}.name: a string is required", f"available: {there}"))
        return None
    spec = registry.get(kind, name)
    options = validate(spec.options, table, where, problems)
    return None if options is None else Choice(spec, absolute(options))


def _rewards(tables: Any, registry: Registry, problems: list[tuple[str, str]]) -> tuple[RewardChoice, ...]:
    there = ", ".join(registry.names("reward")) or "none"
    if not tables:
        raise ConfigError("no reward is named", f"give --reward NAME, or a [[rewards]] table; available: {there}")
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError("invalid config: rewards: is a list of tables", "write [[rewards]] with double brackets")
    found: list[RewardChoice] = []
    for index, table in enumerate(tables):
        where = f"rewards.{index}"
        core = validate(RewardTable, {k: v for k, v in table.items() if k in RewardTable.model_fields}, where, problems)
        if core is None:
            continue
        spec = registry.reward(core.name)
        rest = {key: value for key, value in table.items() if key not in RewardTable.model_fields}
        options = validate(spec.options, rest, where, problems, also=RewardTable)
        if options is None:
            continue
        requested = core.requested or core.name
        found.append(RewardChoice(spec, absolute(options), requested, core.weight, core.on_missing))
    used = [choice.used for choice in found]
    for name in sorted({name for name in used if used.count(name) > 1}):
        # Metrics are named after rewards; two columns of one name would be one.
        problems.append((f"rewards: '{name}' is named twice", "name it once and set its weight"))
    return tuple(found)


def _observers(tables: Any, registry: Registry, problems: list[tuple[str, str]]) -> tuple[Choice[ObserverSpec], ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise ConfigError("invalid config: observers: is a list of tables", "write [[observers]] with double brackets")
    found = [
        _choice("observer", dict(table), registry, problems, f"observers.{index}") for index, table in enumerate(tables)
    ]
    names = [choice.spec.name for choice in found if choice is not None]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append((f"observers: '{name}' is named twice", "name it once"))
    return tuple(cast("Choice[ObserverSpec]", choice) for choice in found if choice is not None)


def choose(
    kind: Kind, name: str, registry: Registry, values: Mapping[str, Any] | None = None, where: str = ""
) -> Choice[Any]:
    """One plugin with its options, outside a run. ConfigError and PluginError as `resolve`."""
    problems: list[tuple[str, str]] = []
    choice = _choice(kind, {**(values or {}), "name": name}, registry, problems, where or kind)
    raise_problems(problems)
    assert choice is not None
    return choice


def check_capabilities(run: ResolvedRun) -> None:
    """ConfigError if the algorithm needs what the others do not offer, or a reward cannot judge the media."""
    for reward in run.rewards:
        check_accepts(reward.spec, run.policy.spec.emits, f"policy '{run.policy.spec.name}' makes")
    shared = frozenset.intersection(*(reward.spec.offers for reward in run.rewards))
    _check_windows(run)
    _check_comparison(run)
    missing = run.algorithm.spec.needs - run.policy.spec.offers - shared
    if not missing:
        return
    need = ", ".join(sorted(missing))
    # Only a reward can offer its own gradient, and only a policy the rest.
    lacking = [f"policy '{run.policy.spec.name}'"] if missing - {"reward-grad"} else []
    if "reward-grad" in missing:
        lacking += [f"reward '{r.used}'" for r in run.rewards if "reward-grad" not in r.spec.offers]
    raise ConfigError(
        f"algorithm '{run.algorithm.spec.name}' needs {need}, which {' and '.join(lacking)} cannot offer",
        "choose another one; `rlzoo plugins show NAME` says what a plugin offers",
    )


def _check_comparison(run: ResolvedRun) -> None:
    """One sample of each prompt leaves an algorithm nothing to compare that compares the samples of a prompt."""
    compares, grouped = run.algorithm.spec.compares, run.train.advantage == "group"
    if run.rollout.samples_per_prompt > 1 or not (compares == "samples" or (compares == "advantages" and grouped)):
        return
    what = "train.advantage = 'group'" if compares == "advantages" else f"algorithm '{run.algorithm.spec.name}'"
    other = ", or train.advantage to 'batch' or 'prompt'" if compares == "advantages" else ""
    raise ConfigError(
        f"{what} compares the samples of a prompt, but rollout.samples_per_prompt = 1",
        f"set rollout.samples_per_prompt to 2 or more{other}",
    )


def _check_windows(run: ResolvedRun) -> None:
    algorithm, policy = run.algorithm.spec, run.policy.spec
    if not run.train.window_frames:
        return
    if "window" not in policy.offers:
        reason = f"policy '{policy.name}' offers no windows"
    elif "sampling-grad" in algorithm.needs:
        reason = f"algorithm '{algorithm.name}' differentiates through sampling, which is of whole states"
    elif run.train.logprob_reduction == "sum":
        reason = "train.logprob_reduction = 'sum' is the density of a whole state, which no window has"
    else:
        return
    raise ConfigError(f"train.window_frames = {run.train.window_frames}, but {reason}", "set train.window_frames = 0")


def check_accepts(reward: RewardSpec, media: str, who: str, role: str = "reward") -> None:
    """ConfigError if a reward cannot judge this kind of media; `who` says whose it is: `policy 'x' makes`."""
    if media in reward.accepts:
        return
    accepts = ", ".join(sorted(reward.accepts))
    raise ConfigError(
        f"{role} '{reward.name}' judges {accepts}, but {who} {media}",
        "name a reward that accepts that; `rlzoo plugins show NAME` says which",
    )
