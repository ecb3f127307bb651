"""Start and resume runs: the one way in for the command line, the benchmark, sweeps and Python. Light.

`prepare` turns a run file and flags into a checked run, `start` makes its directory and trains, `resume` continues one.
Nothing heavy is imported before a run really begins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from rlzoo.config import toml
from rlzoo.config.checking import change_options
from rlzoo.config.fallback import Replacement, require_weights, resolve_missing_rewards
from rlzoo.config.layers import build_layers, read, user_layer
from rlzoo.config.opening import open_run
from rlzoo.config.registry import Registry, discover
from rlzoo.config.resolve import ResolvedRun, resolve_layers
from rlzoo.engine.events import Event, Observer, RunResult
from rlzoo.errors import ConfigError, DataError, RlzooError
from rlzoo.files.rundir import RunDirectory, check_free, default_path, environment


class Reporter(Protocol):
    """Display of a run for the user."""

    def replaced(self, replacement: Replacement) -> None:
        """Called before a run whose reward is not the one that was asked for."""

    def watch(self, run: ResolvedRun, directory: RunDirectory) -> AbstractContextManager[Observer]:
        """The observer of this run, open while the run lasts."""
        ...


class Silent:
    """A reporter that shows nothing."""

    def replaced(self, replacement: Replacement) -> None:
        """Show nothing; the run's files name the reward that was used."""

    def watch(self, run: ResolvedRun, directory: RunDirectory) -> AbstractContextManager[Observer]:
        """An observer that ignores every event."""
        return nullcontext(_ignore)


def _ignore(event: Event) -> None:
    pass


@dataclass(frozen=True)
class Prepared:
    """A checked run, the plugins that it was checked with, and all its layers as one TOML text."""

    run: ResolvedRun
    registry: Registry
    toml: str


def prepare(
    config: Path | Mapping[str, Any] | None = None,
    *,
    algo: str = "",
    rewards: Sequence[str | Mapping[str, Any]] = (),
    policy: str = "",
    prompts: str = "",
    observers: Sequence[str] = (),
    seed: int | None = None,
    device: str = "",
    steps: int | None = None,
    preset: str = "",
    overrides: Sequence[str] = (),
    plugins: Sequence[Path] = (),
) -> Prepared:
    """Check the run that a run file (`config`, a path or its content) and flags describe. Reads no weights.

    A reward is a name, `module:function`, or a whole table of `[[rewards]]`. `overrides` are `key.path=value` items, as
    of `--set`; `plugins` are one-file plugins. Raises ConfigError with the path of the wrong key, and PluginError for a
    plugin that is missing or broken.
    """
    files = tuple(path.expanduser().absolute() for path in plugins)
    registry = discover(files=files)
    user = user_layer(
        read(config) if isinstance(config, Path) else config,
        algorithm=algo,
        rewards=rewards,
        policy=policy,
        prompts=prompts,
        observers=observers,
        seed=seed,
        device=device,
        steps=steps,
    )
    layers = build_layers(user, registry, preset=preset, overrides=overrides)
    return Prepared(resolve_layers(layers, registry, files), registry, toml.dumps(layers))


def start(
    prepared: Prepared,
    path: Path | None = None,
    *,
    strict: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
) -> RunResult:
    """Make the run's directory (`path`; default: a new one under `runs/`), train, and write the report.

    `strict` refuses the fallback of a reward whose weights are unavailable; `command` is written at the top of the
    run's `config.toml`. Raises ConfigError if the directory is taken, DataError for unavailable weights or a full
    disk, and what `rlzoo.engine.loop.train` raises. A run that fails before its first step leaves no directory behind.
    """
    reporter = reporter or Silent()
    rank, world = launched_processes()
    if world > 1 and path is None:
        raise ConfigError(f"{world} processes run together, and each would make its own directory", "give --out DIR")
    if path is not None and rank == 0:
        check_free(path)  # before anything is fetched
    run, replaced = resolve_missing_rewards(prepared.run, prepared.registry, strict=strict)
    if rank == 0:
        for replacement in replaced:
            reporter.replaced(replacement)
    path = path or _default_path(run)
    if rank != 0:
        # The first process makes the directory; the engine waits for it before anything is written.
        return _train(run, RunDirectory(path.expanduser().absolute()), Silent(), resume=False)
    plugins = [(p.name, p.distribution, p.version) for p in prepared.registry.providers if p.provides]
    header = f"# {command}\n\n" if command else ""
    parent_is_ours = not path.parent.exists()
    directory = RunDirectory.create(path, toml=header + prepared.toml, config=run.to_dict(), env=environment(plugins))
    with directory.lock():
        try:
            return _train(run, directory, reporter, resume=False)
        except RlzooError:
            # Evidence and results are kept.
            if directory.discard_if_unused() and parent_is_ours:
                with suppress(OSError):
                    path.parent.rmdir()
            raise


def resume(
    path: Path,
    *,
    steps: int | None = None,
    device: str = "",
    trust: bool = False,
    reporter: Reporter | None = None,
) -> RunResult:
    """Continue the run in `path` from its newest checkpoint, with another number of steps or device if given.

    `trust`: also where somebody else has made it and it names programs. Raises DataError if `path` is not a run, or
    where weights of its rewards are unavailable: a run must not change
    its reward half-way.
    """
    directory = RunDirectory.open(path)
    run = open_run(directory, trust=trust)
    own = directory.is_own()
    if not own:
        directory.check_links()
    changes = {key: value for key, value in (("steps", steps), ("device", device or None)) if value is not None}
    for choice in run.rewards:
        require_weights(choice.spec, choice.options)
    run = replace(run, train=change_options(run.train, changes, "train"))
    if launched_processes()[0] != 0:
        return _train(run, directory, Silent(), resume=True)
    with directory.lock():
        if changes:
            # What is somebody else's stays so: a signature would speak for programs that nobody looked at.
            directory.write_config(run.to_dict(), sign=own or trust)
        return _train(run, directory, reporter or Silent(), resume=True)


def launched_processes() -> tuple[int, int]:
    """Rank and number of the processes of this launch (torchrun, SLURM), without importing torch."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    return 0, 1


def _default_path(run: ResolvedRun) -> Path:
    rewards = [(reward.used, reward.requested) for reward in run.rewards]
    return default_path(run.algorithm.spec.name, run.policy.spec.name, rewards, run.seed, Path("runs"))


def _train(run: ResolvedRun, directory: RunDirectory, reporter: Reporter, *, resume: bool) -> RunResult:
    from rlzoo.engine.loop import train

    try:
        with reporter.watch(run, directory) as observer:
            return train(run, directory, resume=resume, observer=observer)
    except OSError as error:
        if error.errno is None:
            raise
        raise DataError(f"{error.strerror}: '{error.filename or directory.path}'", "check the disk") from error
