"""`rlzoo tune-schedule`: find few-step noise schedules for a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli._shared import PluginFiles
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.engine.console import columns, out
from rlzoo.errors import ConfigError, DataError

DEFAULT_STEPS = (4, 6, 10, 25)


def tune_schedule(
    checkpoint: Annotated[Path, typer.Option("--checkpoint", help="Voice of `rlzoo pretrain` to tune.")],
    data: Annotated[Path, typer.Option("--data", help="Corpus with validation recordings.")],
    steps: Annotated[
        list[int] | None,
        typer.Option("--steps", min=2, max=10_000, help="Denoising steps K; repeatable. [4, 6, 10, 25]"),
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="File to write; default: --checkpoint itself gets the schedules.")
    ] = None,
    utterances: Annotated[
        int, typer.Option("--utterances", min=1, max=10_000, help="Validation recordings to use.")
    ] = 6,
    textgrids: Annotated[
        Path | None, typer.Option("--textgrids", help="Folder of MFA TextGrids, if --data has them.")
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help="Policy of the checkpoint.")] = "wavegrad2",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Find the best noise levels for K denoising steps, and store them with the voice.

    Speech starts as noise and is denoised at K noise levels. With 1,000 levels their values hardly matter. With 4 to
    25 they decide how much hiss and blur remains. This command speaks the validation sentences with the durations of
    the recordings, under 30 to 45 schedules for each K. It keeps the schedule whose log-mel spectra are closest to the
    recordings. `--num-steps K` of `rlzoo synth`, and a run with `policy.num_steps = K`, then use it by default
    (`policy.schedule = "auto"`). `policy.schedule = "placed"` selects the untuned one.

    The time grows with K and with --utterances. The result for one K is stored before the next one starts.
    """
    from rlzoo.config.registry import discover, import_target

    spec = discover(files=plugin).policy(policy)
    if not spec.tune:
        raise ConfigError(f"policy '{policy}' has no schedule to tune", "see its README")
    if not data.is_dir():
        raise DataError(f"folder '{data}' does not exist", "give the corpus that the voice was trained on")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    keep_freed_memory()
    function = import_target(spec.tune, f"policy '{policy}'", spec.extra)
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True)) as bar:
        tasks = {k: bar.add_task(f"{k} steps", total=None) for k in dict.fromkeys(steps or DEFAULT_STEPS)}

        def on_trial(k: int, done: int, total: int, best: float) -> None:
            bar.update(tasks[k], completed=done, total=total, description=f"{k} steps, distance {best:.3f}")

        found = function(
            checkpoint,
            data,
            list(tasks),
            out=out_file,
            utterances=utterances,
            textgrids=textgrids,
            device=device,
            on_trial=on_trial,
        )
    rows = [(str(t.num_steps), f"{t.untuned:.3f}", f"{t.distance:.3f}") for t in found]
    out.print(columns([("steps", "log-mel distance, placed", "tuned"), *rows]))
    out.print(f"stored in {out_file or checkpoint}")
