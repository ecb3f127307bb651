"""Flags that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.config import layers, toml
from rlzoo.config.layers import DEFAULT_POLICY, given, layered, read
from rlzoo.config.registry import Registry, discover
from rlzoo.config.resolve import ResolvedRun, resolve

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A run file (TOML).")]
Algo = Annotated[str, typer.Option("--algo", help="Algorithm; `rlzoo plugins list` shows them.")]
Rewards = Annotated[list[str], typer.Option("--reward", help="Reward; repeatable, the sum counts.")]
PolicyName = Annotated[str, typer.Option("--policy", help="Policy; default: gradtts with the voice it ships with.")]
Prompts = Annotated[str, typer.Option("--prompts", help="Prompt set; default: short.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Every random number follows from it; default: 0.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimisation steps (train.steps).")]
Preset = Annotated[str, typer.Option("--preset", help="A named set of values of the algorithm, e.g. paper.")]
Sets = Annotated[
    list[str], typer.Option("--set", help="key.path=value over everything else, e.g. algorithm.clip=0.1; repeatable.")
]
OfPrompts = Annotated[
    str, typer.Option("--prompts", help="heldout or train of the run's set; or a set: NAME, NAME:train.")
]
OfSets = Annotated[
    list[str],
    typer.Option("--set", help="policy.KEY=value, prompts.KEY=value or judges.NAME.KEY=value; repeatable."),
]
PluginFiles = Annotated[list[Path], typer.Option("--plugin", help="A one-file plugin to load; repeatable.")]


@dataclass(frozen=True)
class Resolved:
    """A run, the plugins it was resolved with, and the layers as one TOML text."""

    run: ResolvedRun
    registry: Registry
    toml: str


def resolved(
    *,
    config: Path | None = None,
    algo: str = "",
    rewards: Sequence[str] = (),
    policy: str = "",
    prompts: str = "",
    seed: int | None = None,
    device: str = "",
    steps: int | None = None,
    preset: str = "",
    sets: Sequence[str] = (),
    plugin: Sequence[Path] = (),
) -> Resolved:
    """The run that the flags describe. ConfigError and PluginError as `rlzoo.config.resolve`."""
    registry = discover(files=plugin)
    file = read(config) if config is not None else {}
    user = given(
        file,
        algorithm=algo,
        rewards=rewards,
        policy=policy,
        prompts=prompts,
        seed=seed,
        device=device,
        steps=steps,
    )
    run = resolve(user, registry, preset=preset, overrides=sets, plugin_files=plugin)
    return Resolved(run, registry, toml.dumps(layered(user, registry, preset=preset, overrides=sets)))


def policy_of(checkpoint: Path) -> str:
    """The policy that the header of a voice file names; the default policy where it names none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(checkpoint, framework="np") as file:
            mark = (file.metadata() or {}).get("format", "")
    except (SafetensorError, OSError):  # the policy itself says what is wrong with it
        mark = ""
    return mark.removeprefix("rlzoo-") if mark.startswith("rlzoo-") else DEFAULT_POLICY


def overridden(sets: Sequence[str]) -> layers.Data:
    """`--set` items alone, as nested tables."""
    empty: layers.Data = {}
    return reduce(layers.override, sets, empty)
