"""`rlzoo eval`: judge policies on held-out prompts, or recordings, and compare them with what they started from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlzoo.cli._shared import Device, OfPrompts, OfSets, PluginFiles, PolicyName, Seed, Trust, overridden
from rlzoo.cli.synth import DenoisingSteps
from rlzoo.engine.console import err, out
from rlzoo.errors import DataError
from rlzoo.evaluation.tables import show
from rlzoo.files.writing import write_text

if TYPE_CHECKING:
    from rlzoo.engine.scorecache import ScoreCache


def evaluate(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[TARGET]...",
            help="A run, one checkpoint in it, a policy's weight file, a recording, or a folder of WAV or FLAC files.",
        ),
    ] = None,
    judges: Annotated[
        list[str],
        typer.Option("--judges", help="Rewards that judge, as in nisqa,dnsmos,wer; a run's own always do."),
    ] = [],  # noqa: B006
    base: Annotated[
        Path | None, typer.Option("--base", help="Base of the comparison; default: the policy that a run started from.")
    ] = None,
    prompts: OfPrompts = "heldout",
    count: Annotated[int, typer.Option(min=0, help="Prompts to use, from the first; 0: all.")] = 0,
    samples_per_prompt: Annotated[
        int, typer.Option(min=1, max=10_000, help="Samples of each prompt; 1: no diversity.")
    ] = 2,
    num_steps: DenoisingSteps = None,
    policy: PolicyName = "",
    seed: Seed = None,
    device: Device = "auto",
    sets: OfSets = [],  # noqa: B006
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do not use the score cache.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    out_file: Annotated[Path | None, typer.Option("--out", help="JSON file with every score.")] = None,
    plugin: PluginFiles = [],  # noqa: B006
    trust: Trust = False,
) -> None:
    """Judge policies or recordings, and compare them with their base: same prompts, same noise.

    Warns about reward hacking: training reward up, independent judge down. Unavailable weights are an error here.
    """
    from rlzoo.config.registry import discover
    from rlzoo.evaluation.targets import Request, find_subjects, plan_evaluation

    if out_file is not None:
        _check_free(out_file)
    asked = Request(
        judges=[name for item in judges for name in item.split(",") if name],
        prompts=prompts,
        policy=policy,
        tables=overridden(sets),
        registry=discover(files=plugin),
        count=count,
        samples_per_prompt=samples_per_prompt,
        num_steps=num_steps,
        seed=seed,
        device=device,
        trust=trust,
    )
    plans = [plan_evaluation(subject, base, asked) for subject in find_subjects(targets or [], asked)]
    from rlzoo.evaluation.judge import judge

    cache = None if no_cache else _open_cache()
    found = [judge(plan, asked, cache, _progress) for plan in plans]
    for note in dict.fromkeys(note for one in found for note in one["notes"]):
        err.print(f"note: {note}")
    text = json.dumps({"targets": found}, indent=2, ensure_ascii=False)
    if as_json:
        out.print(text)
    else:
        for one in found:
            show(one)
    if out_file is not None:
        write_text(out_file, text + "\n", refused="choose another --out")


def _check_free(path: Path) -> None:
    """DataError if the file could not be written, before hours are spent on what goes into it."""
    if path.exists():
        raise DataError(f"'{path}' exists already", "choose another --out")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise DataError(
            f"cannot write '{path}': '{path.parent}' is not a directory to write to", "choose another --out"
        )


def _open_cache() -> ScoreCache | None:
    from rlzoo.engine.scorecache import open_cache

    try:
        return open_cache()
    except DataError as error:
        err.print(f"note: no score cache: {error.message}")
        return None


def _progress(label: str, done: int, total: int) -> None:
    if err.is_terminal:
        err.print(f"{label}: {done} of {total}", end="\r" if done < total else "\n")
