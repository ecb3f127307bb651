"""`rlzoo reward`: rewards that are trained here, from people's choices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_type_hints

import typer

from rlzoo.cli._shared import PluginFiles, Seed, overridden
from rlzoo.engine.console import out
from rlzoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rlzoo.core.specs import Options

app = typer.Typer(help="Rewards that are trained from people's choices.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Rewards that are trained from people's choices."""


@app.command("train-preference")
def train_preference(
    pairs: Annotated[Path, typer.Option("--pairs", help="Pairs of `rlzoo listen export`.")],
    out_file: Annotated[Path, typer.Option("--out", help="The trained reward (.safetensors).")],
    reward: Annotated[str, typer.Option("--reward", help="Reward to train.")] = "preference",
    seed: Seed = None,
    sets: Annotated[list[str], typer.Option("--set", help="option=value of the training; repeatable.")] = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Train a reward on pairs, and report its accuracy on held-out answers."""
    from rlzoo.config.checking import check_options
    from rlzoo.config.registry import discover, import_target

    spec = discover(files=plugin).reward(reward)
    if not spec.train:
        raise ConfigError(f"reward '{reward}' is not trained from pairs", "leave out --reward, or see its README")
    if out_file.exists():
        raise DataError(f"'{out_file}' exists already", "choose another --out")
    function = import_target(spec.train, f"reward '{reward}'", spec.extra)
    model: type[Options] = get_type_hints(function)["options"]
    values = overridden(sets) | ({} if seed is None else {"seed": seed})
    function(pairs, out_file, check_options(model, values, "train-preference"), out.print)
    out.print(f"\nreward: {out_file}\nuse it: rlzoo run --reward {reward} --set rewards.0.checkpoint={out_file}")
