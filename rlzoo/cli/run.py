"""`rlzoo run`: the main job."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

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
    Trust,
)
from rlzoo.errors import ConfigError


def run(
    algo: Algo = "",
    reward: Rewards = [],  # noqa: B006
    policy: PolicyName = "",
    prompts: Prompts = "",
    observe: Observe = [],  # noqa: B006
    seed: Seed = None,
    steps: Steps = None,
    device: Device = "",
    config: ConfigFile = None,
    preset: Preset = "",
    sets: Sets = [],  # noqa: B006
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Run directory to create; default: a new one under runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run; only --steps and --device may go with it.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop if a reward's weights are unavailable, instead of using its fallback."),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Save a trace of two training steps, trace.json.gz, in the run directory.")
    ] = False,
    plugin: PluginFiles = [],  # noqa: B006
    trust: Trust = False,
) -> None:
    """Fine-tune a policy with reinforcement learning."""
    from rlzoo.engine.progress import ConsoleReporter
    from rlzoo.engine.start import prepare, start
    from rlzoo.engine.start import resume as continue_run

    if resume is not None:
        given = [algo, *reward, policy, prompts, *observe, config, preset, *sets, out_dir, *plugin]
        if any(given) or seed is not None or strict:
            raise ConfigError(
                "--resume continues a run as it was started",
                "only --steps and --device go with it; to change more, start a new run",
            )
        continue_run(resume, steps=steps, device=device, trust=trust, reporter=ConsoleReporter(profile=profile))
        return
    prepared = prepare(
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
    command = shlex.join(["rlzoo", *sys.argv[1:]])
    start(prepared, out_dir, strict=strict, command=command, reporter=ConsoleReporter(profile=profile))
