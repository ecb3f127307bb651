"""`rlzoo run`: the main job."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli._output import out, processes, warn_replacement
from rlzoo.cli._shared import (
    Algo,
    ConfigFile,
    Device,
    PluginFiles,
    PolicyName,
    Preset,
    Prompts,
    Resolved,
    Rewards,
    Seed,
    Sets,
    Steps,
    resolved,
)
from rlzoo.config.checking import revised
from rlzoo.config.fallback import resolve_missing_rewards
from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun
from rlzoo.errors import ConfigError, DataError, RlzooError
from rlzoo.files.rundir import RunDirectory, check_free, default_path, environment


def run(
    algo: Algo = "",
    reward: Rewards = [],  # noqa: B006
    policy: PolicyName = "",
    prompts: Prompts = "",
    seed: Seed = None,
    steps: Steps = None,
    device: Device = "",
    config: ConfigFile = None,
    preset: Preset = "",
    sets: Sets = [],  # noqa: B006
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Run directory to make; default: a new one under runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run; only --steps and --device may go with it.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse instead of using the stand-in of a reward without weights.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Save a trace of two training steps, trace.json.gz, in the run directory.")
    ] = False,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Fine-tune a policy with reinforcement learning."""
    if resume is not None:
        given = [algo, *reward, policy, prompts, config, preset, *sets, out_dir, *plugin]
        if any(given) or seed is not None or strict:
            raise ConfigError(
                "--resume continues a run as it was started",
                "only --steps and --device go with it; to change more, start a new run",
            )
        _resume(resume, steps, device, profile)
        return
    found = resolved(
        config=config,
        algo=algo,
        rewards=reward,
        policy=policy,
        prompts=prompts,
        seed=seed,
        device=device,
        steps=steps,
        preset=preset,
        sets=sets,
        plugin=plugin,
    )
    _start(found, out_dir, strict, profile)


def _start(found: Resolved, path: Path | None, strict: bool, profile: bool) -> None:
    rank, world = processes()
    if world > 1 and path is None:
        raise ConfigError(
            f"{world} processes run together, and each would make a directory of its own", "give --out DIR"
        )
    if path is not None and rank == 0:
        check_free(path)  # before anything is fetched
    resolved_run, replaced = resolve_missing_rewards(found.run, found.registry, strict=strict)
    if rank == 0:
        for replacement in replaced:
            warn_replacement(replacement)
    path = path or _default(resolved_run)
    if rank != 0:
        # The first process makes the directory; the engine waits for it before anything is written.
        _train(resolved_run, RunDirectory(path.expanduser().absolute()), resume=False)
        return
    plugins = [(p.name, p.distribution, p.version) for p in found.registry.providers if p.provides]
    header = f"# {shlex.join(['rlzoo', *sys.argv[1:]])}\n\n"
    parent_is_ours = not path.parent.exists()
    directory = RunDirectory.create(
        path, toml=header + found.toml, config=resolved_run.to_dict(), env=environment(plugins)
    )
    with directory.lock():
        try:
            _train(resolved_run, directory, resume=False, profile=profile)
        except RlzooError:
            # Nothing is left behind by a run that never began; evidence and results are kept.
            if directory.discard_if_unused() and parent_is_ours:
                with suppress(OSError):
                    path.parent.rmdir()
            raise


def _resume(path: Path, steps: int | None, device: str, profile: bool) -> None:
    directory = RunDirectory.open(path)
    registry = discover(files=[Path(name) for name in directory.config().get("plugin_files", ())])
    resolved_run = ResolvedRun.from_dict(directory.config(), registry)
    changes = {key: value for key, value in (("steps", steps), ("device", device or None)) if value is not None}
    rank, _ = processes()
    # Weights that have gone since are refused: a run must not change its reward half-way.
    resolve_missing_rewards(resolved_run, registry, strict=True)
    resolved_run = replace(resolved_run, train=revised(resolved_run.train, changes, "train"))
    if rank != 0:
        _train(resolved_run, directory, resume=True)
        return
    with directory.lock():
        if changes:
            directory.write_json("config.json", resolved_run.to_dict())
        _train(resolved_run, directory, resume=True, profile=profile)


def _default(run: ResolvedRun) -> Path:
    rewards = [(reward.used, reward.requested) for reward in run.rewards]
    return default_path(run.algorithm.spec.name, run.policy.spec.name, rewards, run.seed, Path("runs"))


def _train(run: ResolvedRun, directory: RunDirectory, *, resume: bool, profile: bool = False) -> None:
    from rlzoo.cli._profile import TRACE, Profile
    from rlzoo.cli._progress import Show, summary
    from rlzoo.engine.loop import train

    rank, _ = processes()
    try:
        if rank != 0:
            train(run, directory, resume=resume)
            return
        with Show(run) as show, Profile(directory, show) if profile else nullcontext(show) as observer:
            result = train(run, directory, resume=resume, observer=observer)
    except OSError as error:
        if error.errno is None:
            raise
        raise DataError(f"{error.strerror}: '{error.filename or directory.path}'", "check the disk") from error
    out.print(summary(run, result))
    if profile:
        out.print(f"trace: {directory / TRACE} (open it in https://ui.perfetto.dev)")
