"""Consoles, how an error is printed and which exit code it has, tables in plain text. Light."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from rlzoo.errors import DataError, RlzooError

if TYPE_CHECKING:
    from rlzoo.config.fallback import Replacement

# Results go to standard output, so that they can be piped; everything else to standard error.
out = Console(soft_wrap=True, highlight=False, markup=False)
err = Console(soft_wrap=True, highlight=False, markup=False, stderr=True)


_OBEYED = (*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_VISIBLE = {code: f"\\u{code:04x}" for code in _OBEYED}
"""Characters that a terminal obeys or that turn the direction of writing, as text: a file's name may hold them."""


def print_error(error: RlzooError) -> None:
    """`error: ...` and, below it, `hint: ...`."""
    err.print(Text.assemble(("error: ", "bold red"), error.message.translate(_VISIBLE)))
    if error.hint:
        err.print(Text.assemble(("  hint: ", "bold"), error.hint.translate(_VISIBLE)))


def exit_code(call: Callable[[], object], *, debug: bool = False) -> int:
    """Do the call; print the error that it raises, if any, and return the exit code that `rlzoo.errors` gives it."""
    try:
        call()
    except RlzooError as error:
        if debug:
            traceback.print_exc()
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        err.print("stopped at once; what was complete is kept")
        return 130
    except OSError as error:
        if error.errno is None:
            return _bug()
        if debug:
            traceback.print_exc()
        where = "" if error.filename is None else f": '{error.filename}'"  # the standard output has no name
        refused = DataError(f"{error.strerror}{where}", "check the path, its permissions and the disk")
        print_error(refused)
        return refused.exit_code
    except Exception:
        return _bug()
    return 0


def _bug() -> int:
    traceback.print_exc()
    err.print("This is a bug in rlzoo or in a plugin, not in what you asked for; please report it.")
    return 1


def warn_replacement(replacement: Replacement) -> None:
    """Warn clearly that a fallback is used in place of the requested reward."""
    body = Text.assemble(
        (f"'{replacement.requested}' is NOT used", "bold"),
        f": its weights are unavailable ({replacement.reason}).\n",
        (f"The reward of this run is '{replacement.used}'", "bold"),
        f", and every number is reported under that name.\n"
        f"To use '{replacement.requested}': rlzoo assets list, rlzoo assets pull NAME. To refuse instead: --strict.",
    )
    Console(stderr=True).print(Panel(body, title="REWARD REPLACED", border_style="bold yellow", width=100))


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
