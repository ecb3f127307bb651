"""Programs and models that speak: text in, a recording out, with the times of its phones if the engine knows them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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
