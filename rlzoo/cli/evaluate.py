"""`rlzoo eval`: judge a policy on held-out prompts, or judge recordings."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlzoo import assets
from rlzoo.cli._output import columns, err, out
from rlzoo.cli._shared import Device, PluginFiles, PolicyName, Prompts, Rewards, Seed, Sets
from rlzoo.cli.synth import DenoisingSteps, policy_source
from rlzoo.config import Choice, ResolvedRun, choose
from rlzoo.errors import ConfigError, DataError
from rlzoo.registry import Registry, discover
from rlzoo.rundir import RunDirectory

if TYPE_CHECKING:
    from rlzoo.engine.speak import Judged


def evaluate(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A run directory, one checkpoint in it, or a policy's weight file.")
    ] = None,
    reward: Rewards = [],  # noqa: B006
    audio: Annotated[
        list[Path],
        typer.Option("--audio", help="Judge this file, or the WAV and FLAC files of this folder; repeatable."),
    ] = [],  # noqa: B006
    policy: PolicyName = "",
    prompts: Prompts = "",
    split: Annotated[str, typer.Option(help="heldout or train.")] = "heldout",
    count: Annotated[int, typer.Option(min=0, help="Prompts to use, from the first; 0: all.")] = 0,
    samples_per_prompt: Annotated[int, typer.Option(min=1, help="Samples of each prompt.")] = 1,
    num_steps: DenoisingSteps = None,
    seed: Seed = None,
    device: Device = "auto",
    sets: Sets = [],  # noqa: B006
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file with every score.")] = None,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Judge a policy's speech, or recordings, with rewards. Here, weights that cannot be had are an error."""
    if out_file is not None and out_file.exists():
        raise DataError(f"'{out_file}' exists already", "choose another --out")
    registry = discover(files=plugin)
    run = _run_of(checkpoint, registry)
    if audio and (checkpoint is not None or policy or prompts):
        raise ConfigError("--audio judges recordings, so there is no policy to name", "leave out the one or the other")
    judges = _judges(reward, run, registry)
    failures = Path("failures")
    from rlzoo.engine import speak

    if audio:
        files = _files(audio)
        judged = speak.judge_files(files, speak.make_scorers(judges, device), failures, _progress)
    else:
        source = policy_source(checkpoint, policy, sets, plugin)
        chosen = choose("prompts", prompts, registry) if prompts or run is None else run.prompts
        judged = speak.judge_prompts(
            speak.load(source, device),
            speak.split_of(chosen.build(), split)[: count or None],
            speak.make_scorers(judges, device),
            seed=seed if seed is not None else run.seed if run is not None else 0,
            samples_per_prompt=samples_per_prompt,
            num_steps=num_steps or (run.eval.num_steps or run.rollout.num_steps if run is not None else None),
            failures=failures,
            progress=_progress,
        )
    _show(judged, out_file)


def _run_of(checkpoint: Path | None, registry: Registry) -> ResolvedRun | None:
    """The run that is named, if it is one."""
    if checkpoint is None or not checkpoint.is_dir():
        return None
    inside = checkpoint.absolute().parent.name == "checkpoints"
    return ResolvedRun.from_dict(RunDirectory.open(checkpoint.absolute().parents[1] if inside else checkpoint).config())


def _judges(names: Sequence[str], run: ResolvedRun | None, registry: Registry) -> list[Choice[Any]]:
    if not names and run is None:
        there = ", ".join(registry.names("reward")) or "none"
        raise ConfigError("no reward is named", f"give --reward NAME; there are: {there}")
    chosen: list[Choice[Any]] = [choose("reward", name, registry) for name in dict.fromkeys(names)]
    if not names and run is not None:
        chosen = list(run.rewards)
    for choice in chosen:
        _fetch(choice)
    return chosen


def _fetch(choice: Choice[Any]) -> None:
    """Weights first: a judge is never replaced. DataError where they cannot be had."""
    from rlzoo.registry import import_target

    spec = choice.spec
    if spec.available and import_target(spec.available, f"reward '{spec.name}'", spec.extra)(choice.options):
        return
    for asset in spec.assets:
        assets.obtain(asset)


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".wav", ".flac"))
            if not inside:
                raise DataError(f"'{path}' holds no WAV or FLAC file", "check the path")
            files += inside
        else:
            files.append(path)
    return files


def _progress(done: int, total: int) -> None:
    if err.is_terminal:
        err.print(f"{done} of {total}", end="\r" if done < total else "\n")


def _show(judged: Sequence[Judged], out_file: Path | None) -> None:
    names = list(judged[0].scores)
    rows = [("", *names)]
    if len(judged) <= 50:
        rows += [
            (f"{j.id}-{j.index}" if j.text else j.id, *(f"{j.scores[name]:.3f}" for name in names)) for j in judged
        ]
    summary = {name: _summary([j.scores[name] for j in judged]) for name in names}
    for line in ("mean", "std", "error"):
        rows.append((line, *(f"{summary[name][line]:.3f}" for name in names)))
    out.print(columns(rows))
    if out_file is None:
        return
    each = [{"id": j.id, "text": j.text, "index": j.index, "scores": j.scores} for j in judged]
    text = json.dumps({"count": len(judged), "summary": summary, "rows": each}, indent=2, ensure_ascii=False)
    try:
        out_file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write '{out_file}': {error.strerror}", "choose another --out") from error


def _summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation over samples, and standard error of the mean."""
    spread: Callable[[Sequence[float]], float] = statistics.stdev
    std = spread(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "error": std / math.sqrt(len(values))}
