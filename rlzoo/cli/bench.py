"""`rlzoo bench`: compare algorithms at equal budgets, with statistics. Also `rlzoo compare` and `rlzoo sweep`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlzoo.cli._shared import (
    Algo,
    ConfigFile,
    Device,
    PluginFiles,
    PolicyName,
    Preset,
    Prompts,
    Rewards,
    Seed,
    Sets,
    Steps,
)
from rlzoo.engine.console import columns, duration, err, out
from rlzoo.errors import ConfigError, DataError, RlzooError
from rlzoo.files.writing import write_text

if TYPE_CHECKING:
    from rlzoo.bench.compare import Point

app = typer.Typer(no_args_is_help=True, help="Compare algorithms fairly: equal budgets, several seeds, intervals.")

SuiteName = Annotated[str, typer.Argument(metavar="SUITE", help="Name of a suite that ships, or a .toml file.")]
Folder = Annotated[Path | None, typer.Option("--out", help="The suite's folder; default: runs/bench/SUITE.")]
Only = Annotated[list[str], typer.Option("--only", help="Just this algorithm, by its label; repeatable.")]
Seeds = Annotated[list[int], typer.Option("--seed", help="Just this seed; repeatable.")]


@app.command("run")
def run(
    suite: SuiteName,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, max=10_000, help="Runs at once.")] = 1,
    launcher: Annotated[str, typer.Option(help="local, ray or slurm.")] = "local",
    address: Annotated[str, typer.Option(help="Address of the Ray cluster; default: one on this machine.")] = "",
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each run, for Ray and SLURM.")] = 0.0,
    slurm: Annotated[
        list[str], typer.Option("--slurm", help="key=value for submitit, e.g. timeout_min=240; repeatable.")
    ] = [],  # noqa: B006
    only: Only = [],  # noqa: B006
    seeds: Seeds = [],  # noqa: B006
    out_dir: Folder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the remaining runs and stop.")] = False,
) -> None:
    """Run a suite, or the rest of it. Unavailable weights are an error."""
    from rlzoo.bench import jobs as jobs_
    from rlzoo.bench.launch import LAUNCHERS, Place
    from rlzoo.bench.suite import load

    if launcher not in LAUNCHERS:
        raise ConfigError(f"unknown launcher '{launcher}'", f"available: {', '.join(LAUNCHERS)}")
    found = load(suite)
    found.check(weights=not dry_run)
    folder = out_dir or Path("runs/bench") / found.name
    todo = [jobs_.make(found, cell, folder, dry=dry_run) for cell in found.cells(only=only, seeds=seeds)]
    states = {job.key: jobs_.state_of(job) for job in todo}
    left = [job for job in todo if states[job.key] not in ("done", "diverged")]
    counts = Counter(states.values())
    out.print(
        f"{found.name}: {len(todo)} runs ({', '.join(f'{n} {state}' for state, n in counts.items())}) in {folder}"
    )
    if dry_run:
        for job in left:
            out.print(f"  {states[job.key]:9} {job.key}")
        return
    then = f"rlzoo bench report {suite}" + (f" --out {folder}" if out_dir else "")
    if not left:
        out.print(f"nothing is left to do; now: {then}")
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
    out.print(f"all {len(todo)} runs are done; now: {then}")


def _assignment(item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--slurm '{item}' is not an assignment", "write --slurm key=value")
    return key, value


@app.command("report")
def report(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="Suite as in `bench run`, or a results.json made before.")
    ],
    out_dir: Folder = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of the report; default: report/ beside the runs.")
    ] = None,
    preference: Annotated[
        Path | None,
        typer.Option("--preference", help="JSON with people's choices: {reward: {system: {rate, low, high}}}."),
    ] = None,
    also: Annotated[
        list[Path],
        typer.Option("--with", help="Count the runs of these results, too: another machine's, or earlier ones."),
    ] = [],  # noqa: B006
    publish: Annotated[
        Path | None, typer.Option("--publish", help="Also write the results, without audio, to this JSON file.")
    ] = None,
) -> None:
    """Write tables, plots and one self-contained page from the runs of a suite. The same runs give the same bytes."""
    from rlzoo.bench import collect, report
    from rlzoo.bench.suite import load

    if suite.endswith(".json"):
        document = collect.read(Path(suite))
        folder = to or Path(suite).parent / "report"
    else:
        found = load(suite)
        runs = out_dir or Path("runs/bench") / found.name
        document = collect.collect(found, runs)
        folder = to or runs / "report"
    for path in also:
        document = collect.joined(document, collect.read(path))
    if preference is not None:
        document["preference"] = _preference(preference, document)
    for item in document["left_out"]:
        err.print(f"left out: {item['run']}: {item['reason']}")
    if document["left_out"] and not suite.endswith(".json"):
        err.print(f"to make one of the suite's again, remove its directory in {runs / 'runs'} and call bench run")
    if document["missing"]:
        err.print(f"{len(document['missing'])} runs are missing, first {document['missing'][0]}")
    written = report.write(document, folder)
    if publish is not None:
        write_text(publish, collect.dumps({**document, "audio": {}}), refused="choose another --publish")
        written.append(publish)
    for path in written:
        out.print(str(path))


def _preference(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    from rlzoo.files.reading import read_object

    try:
        given = read_object(path)
        return {
            reward["label"]: {
                system: {key: float(figures[key]) for key in ("rate", "low", "high")}
                for system, figures in given.get(reward["label"], {}).items()
            }
            for reward in document["suite"]["rewards"]
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            f"cannot read preferences from '{path}': {error}", "{reward: {system: {rate, low, high}}}"
        ) from error


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories; the first is compared with.")],
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Published results (JSON): is the run inside their band?")
    ] = None,
) -> None:
    """Compare runs on the same held-out prompts, or one run with a published curve (exit 1 if it lies outside)."""
    from rlzoo.bench import collect
    from rlzoo.bench.compare import against, evaluated
    from rlzoo.bench.compare import compare as compared

    found = [evaluated(path) for path in runs]
    if baseline is not None:
        document = collect.read(baseline)
        outside = [run.path for run in found if not _against(*against(document, run), run.path)]
        if outside:
            raise typer.Exit(1)
        return
    if len(found) < 2:
        raise ConfigError("one run is nothing to compare", "give two or more, or --baseline FILE")
    rows = [("run", "score", "first", "this", "difference", "95 % interval", "p", "prompts won")]
    for comparison in compared(found):
        for note in comparison.notes:
            err.print(f"note: {comparison.run.path}: {note}")
        single = comparison.scores.get("total") in [pair for n, pair in comparison.scores.items() if n != "total"]
        for name, pair in comparison.scores.items():
            if name == "total" and single:
                continue  # the sum of one reward says the same twice
            gain = pair.gain
            between = "" if gain.low is None else f"{gain.low:+.3f} to {gain.high:+.3f}"
            won = f"{100 * pair.win_rate.value:.0f} % of {pair.count}"
            figures = (f"{pair.second:.3f}", f"{pair.first:.3f}", f"{gain.value:+.3f}", between, f"{pair.p:.3g}", won)
            rows.append((str(comparison.run.path), name, *figures))
    out.print(columns(rows))
    out.print("\nOne run of each is one seed: this says which policy is better, not which algorithm.")


def _against(system: str, points: Sequence[Point], different: Sequence[str], path: Path) -> bool:
    for text in different:
        err.print(f"note: {path} differs from the reference: {text}")
    rows = [("step", "budget used", "this run", "reference", "95 % band of a further run", "")]
    for point in points:
        band = point.band
        between = "one seed only" if band.low is None else f"{band.low:.3f} to {band.high:.3f}"
        said = "inside" if point.inside else "OUTSIDE"
        rows.append((str(point.step), f"{point.used:g}", f"{point.score:.3f}", f"{band.value:.3f}", between, said))
    out.print(f"{path} against {system}")
    out.print(columns(rows))
    inside = points[-1].inside
    out.print("inside the band at the end" if inside else "outside the band at the end")
    return inside


def sweep(
    space: Annotated[
        list[str],
        typer.Option("--space", help="key=log:LOW:HIGH, float:LOW:HIGH, int:LOW:HIGH or a,b,c; repeatable."),
    ],
    trials: Annotated[int, typer.Option(min=1, max=1_000_000, help="Total number of runs.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder of the sweep; an existing sweep is continued.")],
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
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Search for options by the reward of the training samples; held-out prompts are never used."""
    import tomllib

    from rlzoo.bench.sweep import Dimension, Search
    from rlzoo.bench.sweep import sweep as search
    from rlzoo.engine.start import prepare

    found = prepare(
        config,
        algo=algo,
        rewards=reward,
        policy=policy,
        prompts=prompts,
        seed=seed,
        device=device,
        steps=steps,
        preset=preset,
        overrides=sets,
        plugins=plugin,
    )
    dimensions = tuple(Dimension.parse(text) for text in space)
    files = tuple(path.absolute() for path in plugin)
    document = search(Search(tomllib.loads(found.toml), dimensions, trials, out_dir, files, seed=found.run.seed))
    best = document["best"]
    rows = [("trial", "training reward", "values")]
    ranked = sorted(document["trials"], key=lambda t: -float("inf") if t["value"] is None else t["value"], reverse=True)
    for trial in ranked[:10]:
        value = "diverged" if trial["value"] is None else f"{trial['value']:.4f}"
        rows.append((str(trial["trial"]), value, ", ".join(f"{k}={v}" for k, v in trial["values"].items())))
    out.print(columns(rows))
    out.print(
        f"\nbest of {document['search_trials']} trials: number {best['trial']}; as a run file: {out_dir / 'best.toml'}"
    )
