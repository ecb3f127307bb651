"""`rlzoo bench`: compare algorithms at equal budgets, with statistics. Also `rlzoo compare` and `rlzoo sweep`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli._output import duration, err, out
from rlzoo.errors import ConfigError, RlzooError

app = typer.Typer(no_args_is_help=True, help="Compare algorithms fairly: equal budgets, several seeds, intervals.")

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite that ships, or a .toml file.")]
Folder = Annotated[Path | None, typer.Option("--out", help="The suite's folder; default: runs/bench/SUITE.")]
Only = Annotated[list[str], typer.Option("--only", help="Just this algorithm, by its label; repeatable.")]
Seeds = Annotated[list[int], typer.Option("--seed", help="Just this seed; repeatable.")]


@app.command("run")
def run(
    suite: SuiteName,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Runs at once.")] = 1,
    launcher: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    address: Annotated[str, typer.Option(help="Of the Ray cluster; default: one on this machine.")] = "",
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each run, for Ray and SLURM.")] = 0.0,
    slurm: Annotated[
        list[str], typer.Option("--slurm", help="key=value for submitit, e.g. timeout_min=240; repeatable.")
    ] = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    seeds: Seeds = [],  # noqa: B006
    out_dir: Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left to do, and do nothing.")] = False,
) -> None:
    """Do the runs of a suite, or those that are left. Weights that cannot be had are an error."""
    from rlzoo.bench import jobs as jobs_
    from rlzoo.bench.launch import LAUNCHERS, Place
    from rlzoo.bench.suite import load

    if launcher not in LAUNCHERS:
        raise ConfigError(f"there is no launcher '{launcher}'", f"there are: {', '.join(LAUNCHERS)}")
    found = load(suite)
    found.check(weights=not dry_run)
    folder = out_dir or Path("runs/bench") / found.name
    todo = [jobs_.make(found, cell, folder) for cell in found.cells(only=only, seeds=seeds)]
    states = {job.key: jobs_.state_of(job) for job in todo}
    left = [job for job in todo if states[job.key] not in ("done", "diverged")]
    counts = Counter(states.values())
    out.print(f"{found.name}: {len(todo)} runs ({', '.join(f'{n} {state}' for state, n in counts.items())}) in {folder}")
    if dry_run:
        for job in left:
            out.print(f"  {states[job.key]:9} {job.key}")
        return
    place = Place(jobs=jobs, gpus=gpus, address=address, slurm=dict(_assignment(item) for item in slurm))
    failed = []
    for done, outcome in enumerate(LAUNCHERS[launcher](left, place), 1):
        text = f"{done} of {len(left)}  {outcome.key}  {outcome.state} in {duration(outcome.seconds)}"
        err.print(text + (f": {outcome.error}" if outcome.error else ""))
        if outcome.state in ("failed", "interrupted"):
            failed.append(outcome.key)
    if failed:
        log = folder / "cells" / f"{failed[0]}.log"
        raise RlzooError(f"{len(failed)} of {len(todo)} runs have no result, first {failed[0]}", f"see {log}")
    out.print(f"all {len(todo)} runs are done; now: rlzoo bench report {suite}")


def _assignment(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--slurm '{item}' is no assignment", "write --slurm key=value")
    return key, value
