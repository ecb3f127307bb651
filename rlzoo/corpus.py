"""Reading speech corpora: recordings, their splits, phone times.

A name is imported when it is first used: reading a list of prompts needs no aligner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlzoo.speech.corpus.coverage import check_coverage
    from rlzoo.speech.corpus.metadata import Metadata, read_metadata, read_text, recordings_in
    from rlzoo.speech.corpus.speech import SpeechCorpus, SpeechItem, frame_durations
    from rlzoo.speech.corpus.timed import check_planned, find_times, timed

_MODULES = {
    "coverage": ("check_coverage",),
    "metadata": ("Metadata", "read_metadata", "read_text", "recordings_in"),
    "speech": ("SpeechCorpus", "SpeechItem", "frame_durations"),
    "timed": ("check_planned", "find_times", "timed"),
}

__all__ = [
    "Metadata",
    "SpeechCorpus",
    "SpeechItem",
    "check_coverage",
    "check_planned",
    "find_times",
    "frame_durations",
    "read_metadata",
    "read_text",
    "recordings_in",
    "timed",
]


def __getattr__(name: str) -> Any:
    """The public name from its module."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"rlzoo.speech.corpus.{module}"), name)
    raise AttributeError(f"module 'rlzoo.corpus' has no attribute '{name}'")
