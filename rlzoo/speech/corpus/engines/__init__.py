"""Programs and models that speak: text in, a recording out, with the times of its phones if the engine knows them.

An engine is a frozen dataclass of its settings, so that it travels to worker processes and into a corpus' card; models
are loaded when the first sentence is spoken.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rlzoo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TIMEOUT_SECONDS = 120.0
"""For one sentence."""


@dataclass(frozen=True)
class Spoken:
    """One spoken sentence."""

    wave: npt.NDArray[np.float64]
    """(L,) in [-1, 1]"""
    rate: int
    """Hertz."""
    words: str
    """The words as spoken, separated by spaces."""
    phones: list[str] | None = None
    """ARPAbet; None if the engine does not say."""
    ends: list[float] | None = None
    """End time of each phone in seconds; the last one is the end of the recording."""


@dataclass(frozen=True)
class Engine(ABC):
    """A voice that speaks sentences, each as one utterance; the same text always gives the same samples."""

    name: ClassVar[str]
    licence: ClassVar[str]
    times: ClassVar[str]
    """Source of phone times, for a corpus' card; empty: the corpus is aligned after it is spoken."""

    @property
    @abstractmethod
    def label(self) -> str:
        """A short name of the voice; ids of sentences begin with it."""

    @abstractmethod
    def version(self) -> str:
        """Version of the program or package. DataError or PluginError, with how to install it, if it is missing."""

    def check(self) -> None:  # noqa: B027 - an engine without settings has nothing to check
        """Raise DataError if a setting does not fit what is installed."""

    @abstractmethod
    def speak(self, text: str) -> Spoken:
        """One sentence. DataError if it cannot be spoken."""

    def recipe(self) -> dict[str, Any]:
        """Description of the engine for a corpus' card."""
        return {"engine": self.name, **asdict(self), "version": self.version(), "licence": self.licence}


def run_program(arguments: Sequence[str], text: str, install: str) -> str:
    """Run a program that speaks `text` and return what it prints.

    Raises:
        DataError: it is not installed (`install` says how to), fails, or takes longer than two minutes.
    """
    program = arguments[0]
    try:
        done = subprocess.run(arguments, capture_output=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{program} took longer than {TIMEOUT_SECONDS:.0f} s for '{text}'") from error
    except OSError as error:
        raise DataError(f"cannot run {program}: {error.strerror}", hint=install) from error
    if done.returncode:
        complaint = done.stderr.decode("utf-8", "replace").strip()
        raise DataError(f"{program} failed ({done.returncode}) on '{text}': {complaint[:500]}")
    return done.stdout.decode("ascii", "replace")
