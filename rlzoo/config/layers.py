"""The layers of a run's configuration, later ones win. Light.

Built-in choices, what suits the policy, the algorithm's preset, the run file, the command line's flags, `--set`.
Nothing is checked here but that the pieces fit together; `rlzoo.config` checks the result.
"""

from __future__ import annotations

import copy
import importlib.util
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from rlzoo.config import DEFAULT_POLICY, DEFAULT_PROMPTS
from rlzoo.config.registry import Registry, did_you_mean
from rlzoo.core.kinds import Kind
from rlzoo.core.specs import AlgorithmSpec, PolicySpec, Spec
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.reading import MAX_DEPTH, nested_too_deep, read_text

DEFAULT_JUDGES = ("guard", "distillmos", "dnsmos")
"""Judges besides the rewards if no judge is named. They need no download and about 0.2 s for a clip of 3 s."""
DEFAULT_PRESET = "default"
"""Preset that applies where none is named and the algorithm's package has it."""

MAX_TOML_BYTES = 1 << 20

PLUGIN_TABLES: Mapping[str, Kind] = {"policy": "policy", "algorithm": "algorithm", "prompts": "prompts"}

Data = dict[str, Any]


def read(path: Path) -> Data:
    """A run file. ConfigError if it cannot be read or is not valid TOML."""
    try:
        # Some editors begin a UTF-8 file with a mark, which is no TOML.
        return _toml_of(read_text(path, "check the path; run files are TOML", MAX_TOML_BYTES).removeprefix("\ufeff"))
    except DataError as error:
        raise ConfigError(f"cannot read run file {error.message.removeprefix('cannot read ')}", error.hint) from error
    except ValueError as error:
        raise ConfigError(f"run file '{path}' is not valid TOML: {error}", "strings need quotes") from error


def _toml_of(text: str) -> Data:
    """ValueError if it is none, or nested too deep; a number of thousands of digits is one, too."""
    try:
        found = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if nested_too_deep(found):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return found


def user_layer(
    file: Mapping[str, Any] | None = None,
    *,
    algorithm: str = "",
    rewards: Sequence[str | Mapping[str, Any]] = (),
    policy: str = "",
    prompts: str = "",
    observers: Sequence[str] = (),
    seed: int | None = None,
    device: str = "",
    steps: int | None = None,
) -> Data:
    """The user's layer: the run file, overridden by the flags of the command line.

    `rewards` and `observers` replace the file's lists, but one that the file has too keeps its table.
    """
    data: Data = copy.deepcopy(dict(file or {}))
    flags: dict[str, Data] = {
        "algorithm": {"name": algorithm},
        "policy": {"name": policy},
        "prompts": prompts_table(prompts),
    }
    for table, values in flags.items():
        name = values["name"]
        if not name:
            continue
        below = as_table(data, table)
        if below.get("name", name) != name and len(below) > 1:
            raise ConfigError(
                f"'{name}' is asked for, but [{table}] of the run file sets options of '{below['name']}'",
                f"replace the whole table: --set '{table}={{name=\"{name}\"}}'",
            )
        data[table] = {**below, **values}
    lists = {"rewards": [reward_table(asked) for asked in rewards], "observers": [{"name": name} for name in observers]}
    for key, tables in lists.items():
        old = {item.get("name"): item for item in data.get(key, ()) if isinstance(item, Mapping)}
        if tables:
            data[key] = [{**old.get(table["name"], {}), **table} for table in tables]
    if seed is not None:
        data["seed"] = seed
    if device or steps is not None:
        train = {"device": device or None, "steps": steps}
        data["train"] = as_table(data, "train") | {key: value for key, value in train.items() if value is not None}
    return data


def prompts_table(asked: str) -> Data:
    """`[prompts]` for `--prompts`: the name of a set, or a path, which has a dot or a slash in it.

    A folder or a .csv file is read as a corpus in LJSpeech's layout, any other file as text with one prompt a line.
    """
    if not any(mark in asked for mark in "./\\"):
        return {"name": asked}
    is_corpus = Path(asked).is_dir() or Path(asked).suffix == ".csv"
    return {"name": "ljspeech" if is_corpus else "text", "path": asked}


def reward_table(asked: str | Mapping[str, Any]) -> Data:
    """`[[rewards]]` for `--reward`: the name of a reward, or a function of the user's own, `module:function`."""
    if isinstance(asked, Mapping):
        return dict(asked)
    return {"name": "function", "function": asked} if ":" in asked else {"name": asked}


def build_layers(
    user: Mapping[str, Any], registry: Registry, *, preset: str = "", overrides: Iterable[str] = ()
) -> Data:
    """All layers in one mapping, unchecked but for names: built-in choices, policy's, preset, `user`, `overrides`."""
    overrides = list(overrides)
    name = _named("algorithm", user, overrides)
    if not isinstance(name, str) or not name:
        there = ", ".join(registry.names("algorithm")) or "none"
        raise ConfigError("no algorithm is named", f"give --algo NAME, or `name` in [algorithm]; available: {there}")
    base: Data = {"policy": {"name": DEFAULT_POLICY}, "prompts": {"name": DEFAULT_PROMPTS}, "algorithm": {"name": name}}
    policy = _named("policy", merge(base, user), overrides)
    spec = registry.algorithm(name)
    if isinstance(policy, str):  # anything else is refused where all layers are checked
        base = merge(base, suited(registry.policy(policy), spec))
    chosen = preset or (DEFAULT_PRESET if DEFAULT_PRESET in presets(spec) else "")
    if chosen:
        base = merge(base, preset_tables(spec, chosen))
    return reduce(override, overrides, merge(base, user))


def suited(policy: PolicySpec, algorithm: AlgorithmSpec) -> Mapping[str, Mapping[str, Any]]:
    """The values that suit the policy, with its learning rate scaled for the algorithm."""
    train = policy.run.get("train", {})
    if "learning_rate" not in train:
        return policy.run
    rate = float(f"{train['learning_rate'] * algorithm.learning_rate_scale:.6g}")  # 0.0003, not 0.00030000000000000003
    return {**policy.run, "train": {**train, "learning_rate": rate}}


def _named(kind: Kind, user: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """The plugin that run file, flags or --set name; lower layers depend on it, so it is looked up before them."""
    probe: Data = {kind: copy.deepcopy(as_table(user, kind))}
    naming = [item for item in overrides if item.partition("=")[0].strip() in (kind, f"{kind}.name")]
    table = reduce(override, naming, probe)[kind]
    return table.get("name") if isinstance(table, Mapping) else None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Data:
    """`over` laid over `base`, table by table. A plugin's table that names another plugin replaces the base's whole."""
    out = copy.deepcopy(dict(base))
    for key, value in over.items():
        below = out.get(key)
        if not (isinstance(value, Mapping) and isinstance(below, Mapping)):
            out[key] = copy.deepcopy(value)
        elif key in PLUGIN_TABLES and value.get("name", below.get("name")) != below.get("name"):
            # Options of the base's plugin mean nothing to this one.
            out[key] = copy.deepcopy(dict(value))
        else:
            out[key] = merge(below, value)
    return out


def override(data: Data, item: str) -> Data:
    """Apply one `key.path=value`; the value is TOML, and a bare word is a string. ConfigError if it does not fit."""
    path, equals, text = item.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigError(
            f"--set '{_short(item)}' is not an assignment", "write --set key.path=value, e.g. --set train.steps=50"
        )
    data = copy.deepcopy(data)
    node: Any = data
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth])
        last = depth == len(keys) - 1
        if isinstance(node, list):
            if not key.isdecimal() or int(key) >= len(node):
                raise ConfigError(
                    f"--set '{item}': '{where}' is a list of {len(node)}, '{key}' is not an index of it",
                    f"indices run from 0 to {len(node) - 1}" if node else f"'{where}' is empty",
                )
            if last:
                node[int(key)] = _parse_value(text, item)
            else:
                node = node[int(key)]
        elif isinstance(node, dict):
            if last:
                node[key] = _parse_value(text, item)
            elif key == "rewards" and "rewards" not in node:
                raise ConfigError(f"--set '{item}': no reward is named yet", "give --reward NAME first")
            else:
                node = node.setdefault(key, {})
        else:
            raise ConfigError(f"--set '{item}': '{where}' is a value, not a table", f"set '{where}' itself")
    return data


def _parse_value(text: str, item: str) -> Any:
    text = text.strip()
    try:
        parsed = _toml_of(f"value = {text}")
    except ValueError as error:
        if not isinstance(error, tomllib.TOMLDecodeError) or text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(
                f"--set '{_short(item)}': {error}", "the value is TOML; a bare word is a string"
            ) from error
        return text
    if parsed.keys() != {"value"}:
        raise ConfigError(f"--set '{item}' is more than one assignment", "repeat --set for each")
    return parsed["value"]


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} ..."


def as_table(data: Mapping[str, Any], key: str) -> Data:
    """A table of the run file, empty if it is not there; ConfigError if it is something else."""
    table = data.get(key, {})
    if not isinstance(table, Mapping):
        raise ConfigError(f"invalid config: {key}: is a table", f"write [{key}]")
    return dict(table)


def _preset_folder(spec: Spec) -> Path:
    """`presets/` in the plugin's package, found without importing the package's heavy modules."""
    package = spec.target.split(":")[0].split(".")[0]
    found = importlib.util.find_spec(package)
    where = list(found.submodule_search_locations or ()) if found else []
    return Path(where[0]) / "presets" if where else Path(package) / "presets"


def presets(spec: Spec) -> list[str]:
    """Names of a plugin's presets, sorted."""
    return sorted(path.stem for path in _preset_folder(spec).glob("*.toml"))


def preset_tables(spec: Spec, name: str) -> Data:
    """The overlay of a preset, a partial run file. ConfigError if the plugin has no preset of that name."""
    there = presets(spec)
    if name not in there:
        hint = did_you_mean(name, there) or f"available: {', '.join(there) or 'none'}"
        raise ConfigError(f"'{spec.name}' has no preset '{name}'", hint)
    return read(_preset_folder(spec) / f"{name}.toml")
