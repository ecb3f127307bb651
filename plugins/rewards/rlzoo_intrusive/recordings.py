"""The recording that a prompt brings along."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from rlzoo.api import Prompt
from rlzoo.audio import read_audio
from rlzoo.errors import ConfigError


def recording(prompt: Prompt, sample_rate: int, who: str) -> Tensor:
    """(L,) at `sample_rate`. ConfigError for a prompt without one, DataError for a bad file."""
    path = prompt.attributes.get("audio")
    if not path:
        raise ConfigError(
            f"'{who}' compares with a recording, and prompt '{prompt.id}' has none",
            "use prompts with recordings (a folder in LJSpeech's layout), or leave this reward out",
        )
    return _read(str(path), sample_rate)


@lru_cache(maxsize=256)
def _read(path: str, sample_rate: int) -> Tensor:
    return read_audio(path, sample_rate, on_rate="resample")[0]
