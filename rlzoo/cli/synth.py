"""`rlzoo synth`: speak a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rlzoo.cli._output import out
from rlzoo.cli._shared import Device, PluginFiles, PolicyName, Seed, Sets, overridden
from rlzoo.config import DEFAULT_POLICY, Choice, choose
from rlzoo.errors import ConfigError, DataError
from rlzoo.registry import discover

Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="A run directory, one checkpoint in it, or a policy's weight file.")
]
DenoisingSteps = Annotated[int | None, typer.Option("--num-steps", min=1, help="Denoising steps; unset: the policy's.")]


def synth(
    text: Annotated[str, typer.Option("--text", help="What to say.")],
    out_file: Annotated[Path, typer.Option("--out", help="WAV file to write.")],
    checkpoint: Checkpoint = None,
    policy: PolicyName = "",
    seed: Seed = None,
    num_steps: DenoisingSteps = None,
    device: Device = "auto",
    sets: Sets = [],  # noqa: B006
    plugin: PluginFiles = [],  # noqa: B006
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it exists.")] = False,
) -> None:
    """Speak a text into a WAV file."""
    if not text.strip():
        raise ConfigError("--text is empty", "give something to say")
    if out_file.exists() and not force:
        raise DataError(f"'{out_file}' exists already", "choose another --out, or add --force")
    source = policy_source(checkpoint, policy, sets, plugin)
    from rlzoo._types import Prompt
    from rlzoo.audio import write_audio
    from rlzoo.engine.speak import load, speak

    samples = speak(load(source, device), [Prompt("synth", text)], [seed or 0], num_steps)
    rate = samples.media.sample_rate
    if samples.media.kind != "audio" or rate is None:
        raise ConfigError(f"this policy makes {samples.media.kind}, not audio", "name a policy that speaks")
    wave = samples.row(0)
    write_audio(out_file, wave, rate)
    out.print(f"{out_file}: {wave.shape[-1] / rate:.2f} s at {rate} Hz")


def policy_source(checkpoint: Path | None, policy: str, sets: list[str], plugin: list[Path]) -> Path | Choice[Any]:
    """What --checkpoint, --policy and --set mean: a run's directory, or a policy and its options."""
    if checkpoint is not None and checkpoint.is_dir():
        if policy or sets:
            raise ConfigError(f"'{checkpoint}' is a run, which names its policy itself", "leave out --policy and --set")
        return checkpoint
    tables = overridden(sets)
    foreign = sorted(tables.keys() - {"policy"})
    if foreign:
        raise ConfigError(f"--set {foreign[0]}: only the policy's options count here", "write --set policy.KEY=VALUE")
    values = dict(tables.get("policy", {}))
    if checkpoint is not None:
        if not checkpoint.exists():
            raise DataError(f"checkpoint '{checkpoint}' does not exist", "check the path")
        values["checkpoint"] = str(checkpoint)
    registry = discover(files=plugin)
    return choose("policy", policy or DEFAULT_POLICY, registry, values)
