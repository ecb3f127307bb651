"""Errors for expected failures, and the exit code of each.

RlzooError                exit 1
 ├─ ConfigError           exit 2   the user can fix the run file or the command line
 ├─ PluginError           exit 3   a plugin is missing or broken
 │   └─ ContractError     exit 3   a plugin broke the contract of its kind
 ├─ DataError             exit 4   a file, a checkpoint, a recording, weights
 └─ Diverged              exit 5   a loss or a score stopped being finite
Interrupted (not an error) exit 130

Anything else that reaches the command line is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class RlzooError(Exception):
    """An expected failure: `message` states what happened to what, `hint` what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[RlzooError], tuple[str, str]]:
        # Worker processes send errors back pickled; the default would lose the hint.
        return type(self), (self.message, self.hint)


class ConfigError(RlzooError):
    """The run file or the command line asks for something impossible."""

    exit_code = 2


class PluginError(RlzooError):
    """A plugin is missing, cannot be imported or announces something invalid."""

    exit_code = 3


class ContractError(PluginError):
    """A plugin violates the contract of its kind (shape, value, a ratio that is not 1 ...)."""


class DataError(RlzooError):
    """A file, a checkpoint, a recording or weights are missing, damaged or unsuitable."""

    exit_code = 4


class Diverged(RlzooError):
    """A loss, a gradient or a score stopped being finite; the last good checkpoint is named."""

    exit_code = 5


class Interrupted(RlzooError):
    """The user asked to stop (Ctrl-C or SIGTERM); the step was finished and everything saved first."""

    exit_code = 130
