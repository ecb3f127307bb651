"""`rlzoo export`: a tuned policy as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlzoo.engine.console import out
from rlzoo.errors import DataError


def export(
    run: Annotated[Path, typer.Argument(help="A run directory, or one checkpoint in it.")],
    out_file: Annotated[Path, typer.Option("--out", help="File to write, in the policy's own published layout.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write the weights of a run as a file for other programs, adapters merged.

    For f5tts that is the layout of its published models, which F5-TTS's own tools read.
    """
    if out_file.exists() and not force:
        raise DataError(f"'{out_file}' exists already", "choose another --out, or add --force")
    from rlzoo.engine.checkpoint import load_policy

    load_policy(run).export(out_file)
    out.print(f"{out_file}: {out_file.stat().st_size / 1e6:.1f} MB")
