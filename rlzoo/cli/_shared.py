"""Flags that several commands share, and what they mean together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlzoo.errors import ConfigError

if TYPE_CHECKING:
    from rlzoo.config import layers

ConfigFile = Annotated[Path | None, typer.Option("--config", help="A run file (TOML).")]
Algo = Annotated[str, typer.Option("--algo", help="Algorithm; `rlzoo plugins list` shows them.")]
Rewards = Annotated[
    list[str], typer.Option("--reward", help="Reward, or your own function MODULE:FUNCTION; repeat it to sum several.")
]
PolicyName = Annotated[str, typer.Option("--policy", help="Policy; default: gradtts with the voice it ships with.")]
Prompts = Annotated[
    str, typer.Option("--prompts", help="Prompt set, or a text file with one prompt a line; default: short.")
]
Observe = Annotated[
    list[str],
    typer.Option("--observe", help="Observer that logs the run, e.g. tensorboard or wandb; repeat it for several."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Random seed; default: 0.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimisation steps (train.steps).")]
Preset = Annotated[str, typer.Option("--preset", help="Preset of the algorithm, e.g. paper.")]
Sets = Annotated[list[str], typer.Option("--set", help="Override one value, e.g. algorithm.clip=0.1; repeatable.")]
OfPrompts = Annotated[
    str,
    typer.Option(
        "--prompts", help="heldout or train of the run's set; or a set or text file: NAME, my.txt, NAME:train."
    ),
]
OfSets = Annotated[
    list[str],
    typer.Option("--set", help="policy.KEY=value, prompts.KEY=value or judges.NAME.KEY=value; repeatable."),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Allow the plugins and programs that a run directory of somebody else would start."),
]
PluginFiles = Annotated[list[Path], typer.Option("--plugin", help="A one-file plugin to load; repeatable.")]


def overridden(sets: Sequence[str]) -> layers.Data:
    """`--set` items alone, as nested tables."""
    from rlzoo.config import layers

    empty: layers.Data = {}
    return reduce(layers.override, sets, empty)


def policy_options(sets: Sequence[str]) -> layers.Data:
    """`--set policy.KEY=VALUE` items as the policy's options. ConfigError for other tables."""
    tables = overridden(sets)
    foreign = sorted(tables.keys() - {"policy"})
    if foreign:
        raise ConfigError(f"--set {foreign[0]}: only the policy's options count here", "write --set policy.KEY=VALUE")
    return dict(tables.get("policy", {}))
