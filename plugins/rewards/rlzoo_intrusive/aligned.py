"""Sample and recording side by side, for measures that need the same timing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rlzoo.api import Prompt, Samples
from rlzoo.audio import recording, require_rate

RATE = 16_000


def pairs(samples: Samples, prompts: Sequence[Prompt], who: str) -> list[tuple[Tensor, Tensor]]:
    """(recording, sample) of each row, both cut to the shorter; what is missing or surplus at the end is not heard."""
    require_rate(samples, RATE, who)
    found = []
    for row, prompt in enumerate(prompts):
        wanted, spoken = recording(prompt, RATE, who), samples.row(row).detach().cpu().float()
        size = min(len(wanted), len(spoken))
        found.append((wanted[:size], spoken[:size]))
    return found
