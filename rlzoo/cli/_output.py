"""What every command shares: consoles, the shape of an error, the panel that cannot be overlooked."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from rlzoo.config.fallback import Replacement
from rlzoo.errors import RlzooError

# Results go to standard output, so that they can be piped; everything else to standard error.
out = Console(soft_wrap=True, highlight=False, markup=False)
err = Console(soft_wrap=True, highlight=False, markup=False, stderr=True)


def print_error(error: RlzooError) -> None:
    """`error: ...` and, below it, `hint: ...`."""
    err.print(Text.assemble(("error: ", "bold red"), error.message))
    if error.hint:
        err.print(Text.assemble(("  hint: ", "bold"), error.hint))


def warn_replacement(replacement: Replacement) -> None:
    """Say, so that nobody can miss it, that another reward than the one asked for will be used."""
    body = Text.assemble(
        (f"'{replacement.requested}' is NOT used", "bold"),
        f": its weights cannot be had ({replacement.reason}).\n",
        (f"The reward of this run is '{replacement.used}'", "bold"),
        f", and every number is reported under that name.\n"
        f"To use '{replacement.requested}': rlzoo assets list, rlzoo assets pull NAME. To refuse instead: --strict.",
    )
    Console(stderr=True).print(Panel(body, title="REWARD REPLACED", border_style="bold yellow", width=100))


def processes() -> tuple[int, int]:
    """Rank and number of the processes of this launch (torchrun, SLURM), known without torch."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ and "SLURM_PROCID" in os.environ:
        return int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    return 0, 1


def duration(seconds: float) -> str:
    """`12 s`, `3:05`, `2:03:05`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as plain text in aligned columns; the last column is not padded."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )
