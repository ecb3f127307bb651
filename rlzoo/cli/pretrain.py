"""`rlzoo pretrain`: train a policy from recordings, before any reinforcement learning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from rlzoo.cli._shared import Device, PluginFiles, Seed, overridden
from rlzoo.config import DEFAULT_POLICY
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.engine.console import err, out
from rlzoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rlzoo.core.specs import Options


def pretrain(
    data: Annotated[Path, typer.Option("--data", help="Folder with recordings, texts and phone times.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for checkpoints, log and the finished voice.")],
    policy: Annotated[str, typer.Option("--policy", help="Policy to train.")] = DEFAULT_POLICY,
    preset: Annotated[str, typer.Option("--preset", help="Size of the network, e.g. mini.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in --out.")] = False,
    seed: Seed = None,
    device: Device = "",
    sets: Annotated[list[str], typer.Option("--set", help="option=value of the training; repeatable.")] = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Train a policy on recordings with its published losses."""
    from rlzoo.config.checking import check_options
    from rlzoo.config.registry import discover, import_target

    spec = discover(files=plugin).policy(policy)
    if not spec.pretrain:
        raise ConfigError(f"policy '{policy}' cannot be pretrained here", "see its README")
    if not data.is_dir():
        raise DataError(
            f"folder '{data}' does not exist", "make one with `rlzoo corpus speak`, or give an LJSpeech folder"
        )
    flags = {"preset": preset or None, "seed": seed, "device": device or None}
    values = {key: value for key, value in flags.items() if value is not None} | overridden(sets)
    keep_freed_memory()
    function = import_target(spec.pretrain, f"policy '{policy}'", spec.extra)
    model: type[Options] = get_type_hints(function)["options"]
    options = check_options(model, values, "pretrain")
    err.print(f"reading '{data}'; a corpus of hours takes minutes")
    voice = function(data, out_dir, options, resume=resume, on_step=_show)
    out.print(f'voice: {voice}\nhear it: rlzoo synth --policy {policy} --checkpoint {voice} --text "..." --out x.wav')


def _show(row: dict[str, Any]) -> None:
    err.print(
        "  ".join(f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    )
