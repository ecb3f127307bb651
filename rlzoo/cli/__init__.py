"""The command line. Light: commands import the engine inside their functions, so that help answers at once."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from rlzoo.cli import (
    assets,
    bench,
    config,
    doctor,
    evaluate,
    export,
    listen,
    noise_scale,
    plugins,
    pretrain,
    recordings,
    reward,
    run,
    synth,
    text,
    tune,
)
from rlzoo.engine.console import exit_code
from rlzoo.version import __version__

app = typer.Typer(
    name="rlzoo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its locals would be full of tensors
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforcement learning for speech models that denoise.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlzoo {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of every error; allowed anywhere on the line.")
    ] = False,
) -> None:
    """Reinforcement learning for speech models that denoise."""


app.command("run")(run.run)
app.command("synth")(synth.synth)
app.command("eval")(evaluate.evaluate)
app.command("text")(text.text)
app.command("export")(export.export)
app.command("pretrain")(pretrain.pretrain)
app.command("tune-schedule")(tune.tune_schedule)
app.command("noise-scale")(noise_scale.noise_scale)
app.command("compare")(bench.compare)
app.command("sweep")(bench.sweep)
app.command("doctor")(doctor.doctor)
app.add_typer(plugins.app, name="plugins")
app.add_typer(config.app, name="config")
app.add_typer(assets.app, name="assets")
app.add_typer(recordings.app, name="corpus")
app.add_typer(bench.app, name="bench")
app.add_typer(reward.app, name="reward")
app.add_typer(listen.app, name="listen")


def main() -> None:
    """Entry point of the command `rlzoo`: runs it and exits with the code of `rlzoo.errors`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal lacks is no reason to lose a run
            stream.reconfigure(errors="backslashreplace")
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    code = exit_code(lambda: app(arguments, prog_name="rlzoo"), debug=debug)
    if code:
        sys.exit(code)
