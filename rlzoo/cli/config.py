"""`rlzoo config`: show what a run would use, write a commented run file, print schemas."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlzoo.cli._shared import (
    Algo,
    ConfigFile,
    Device,
    Observe,
    PluginFiles,
    PolicyName,
    Preset,
    Prompts,
    Rewards,
    Seed,
    Sets,
    Steps,
)
from rlzoo.cli.plugins import find, option_type
from rlzoo.config import DEFAULT_POLICY, toml
from rlzoo.engine.console import out
from rlzoo.errors import DataError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from rlzoo.core.specs import Options

app = typer.Typer(no_args_is_help=True, help="Run files: show one resolved, write a new one, print what may be in it.")


@app.command()
def show(
    config: ConfigFile = None,
    algo: Algo = "",
    reward: Rewards = [],  # noqa: B006
    policy: PolicyName = "",
    prompts: Prompts = "",
    observe: Observe = [],  # noqa: B006
    seed: Seed = None,
    device: Device = "",
    steps: Steps = None,
    preset: Preset = "",
    sets: Sets = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every value that `rlzoo run` would use with the same flags. Reads no weights."""
    from rlzoo.engine.start import prepare

    found = prepare(
        config,
        algo=algo,
        rewards=reward,
        policy=policy,
        prompts=prompts,
        observers=observe,
        seed=seed,
        device=device,
        steps=steps,
        preset=preset,
        overrides=sets,
        plugins=plugin,
    )
    data = found.run.to_dict()
    if as_json:
        out.print(json.dumps(data, indent=2, ensure_ascii=False))
        return
    # What is left can be saved and run: these two are for config.json only.
    del data["plugin_files"]
    for table in data["rewards"]:
        del table["requested"]
    out.print(toml.dumps(data), end="")


@app.command()
def new(
    algo: Algo = "dlpo",
    policy: PolicyName = DEFAULT_POLICY,
    reward: Rewards = ["utmos"],  # noqa: B006
    prompts: Prompts = "short",
    out_file: Annotated[Path | None, typer.Option("--out", help="File to write; default: print it.")] = None,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Write a run file with every option, its meaning and its default."""
    from rlzoo.config.layers import build_layers, prompts_table
    from rlzoo.config.registry import discover
    from rlzoo.config.resolve import RewardTable, SeedTable
    from rlzoo.config.schema import CORE_TABLES

    registry = discover(files=plugin)
    lines = [*_commented(SeedTable, {})]
    layers = build_layers({"algorithm": {"name": algo}, "policy": {"name": policy}}, registry)

    def suits(table: str) -> dict[str, Any]:
        return {key: value for key, value in layers.get(table, {}).items() if key != "name"}

    speaks = registry.policy(policy).options
    lines += ["", "[policy]", *_commented(speaks, {"name": policy}, suits=suits("policy"))]
    for name in reward:
        core = [line for line in _commented(RewardTable, {"name": name}, leave_out=("requested",)) if line]
        lines += ["", "[[rewards]]", *core, *_commented(registry.reward(name).options, {})]
    lines += [
        "",
        "[algorithm]",
        *_commented(registry.algorithm(algo).options, {"name": algo}, suits=suits("algorithm")),
    ]
    asked = prompts_table(prompts)
    lines += ["", "[prompts]", *_commented(registry.prompts(asked["name"]).options, asked)]
    for table, model in CORE_TABLES.items():
        lines += ["", f"[{table}]", *_commented(model, {}, table, suits=suits(table))]
    text = "\n".join(lines).lstrip("\n") + "\n"
    if out_file is None:
        out.print(text, end="")
        return
    try:
        with out_file.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise DataError(f"'{out_file}' exists already", "choose another --out") from error
    except OSError as error:
        raise DataError(f"cannot write '{out_file}': {error.strerror}", "choose another --out") from error
    out.print(f"written: {out_file}\nrun it:  rlzoo run --config {out_file}")


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="A plugin's name, or one of core's tables: rollout, train, eval.")],
    kind: Annotated[str, typer.Option(help="Its kind, if two kinds share the name.")] = "",
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Print the JSON Schema of a plugin's options or of one of core's tables."""
    from rlzoo.config.registry import discover
    from rlzoo.config.schema import CORE_TABLES

    model: type[Options]
    if name in CORE_TABLES and not kind:
        model = CORE_TABLES[name]
    else:
        model = find(discover(files=plugin), name, kind)[1].options
    out.print(json.dumps(model.model_json_schema(), indent=2))


def _commented(
    model: type[BaseModel],
    values: dict[str, Any],
    path: str = "",
    leave_out: Iterable[str] = (),
    suits: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """Lines of a table: each option with its meaning, its type and its default (of `suits` where it is there).

    Options without one are commented out.
    """
    from pydantic import BaseModel

    lines = [f"{key} = {toml.value(value)}" for key, value in values.items()]
    nested: list[str] = []
    schema = model.model_json_schema()
    for name, field in model.model_fields.items():
        if name in values or name in leave_out:
            continue
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested += [
                "",
                f"[{path}.{name}]",
                *_commented(field.annotation, {}, f"{path}.{name}", suits=suits.get(name, {})),
            ]
            continue
        about = schema["properties"][name]
        lines += [f"# {line}" for line in about.get("description", "").splitlines()]
        default = suits.get(name, about.get("default"))
        text = f"# {name} =" if default is None else f"{name} = {toml.value(default)}"
        lines.append(f"{text}  # {option_type(about)}")
    return lines + nested
