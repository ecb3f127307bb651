"""Search few-step noise schedules against recorded speech, and keep the best with the voice.

A schedule is judged by the log-mel distance between validation recordings and samples with the recordings' own
durations and always the same noise. The search starts from levels placed by log-SNR (two shape parameters, on a grid)
and then moves single levels while that helps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.corpus.speech import SpeechCorpus
from rlzoo.errors import ConfigError
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.checkpoint import load_voice, save_voice
from rlzoo_wavegrad2.data import load_utterances
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from rlzoo_wavegrad2.schedules import placed_levels
from rlzoo_wavegrad2.validation import Judge

SIGMA_MIN = (0.01, 0.03, 0.07, 0.15, 0.3)
POWERS = (0.6, 0.8, 1.0, 1.3, 1.7)


@dataclass(frozen=True)
class Tuned:
    """The best schedule found for K steps: `levels` (K,), cleanest first, and the log-mel distances."""

    num_steps: int
    levels: tuple[float, ...]
    distance: float
    untuned: float
    """Distance of the plain log-SNR placement."""


def search(judge: Callable[[Tensor], float], num_steps: int, rounds: int = 2) -> Tuned:
    """Grid over placements, then `rounds` passes that push each inner level both ways in log-SNR."""
    untuned = judge(placed_levels(num_steps))
    tried = [(judge(placed_levels(num_steps, low, power)), low, power) for low in SIGMA_MIN for power in POWERS]
    best, low, power = min(tried)
    levels = placed_levels(num_steps, low, power)
    for round_ in range(rounds):
        shift = 0.6 / 2**round_
        for i in range(1, num_steps):  # the last level stays at the terminal level: sampling starts from pure noise
            for direction in (-shift, shift):
                moved = levels.clone()
                moved[i] = torch.sigmoid(torch.logit(levels[i] ** 2) + direction).sqrt()
                if not moved[i - 1] > moved[i] > moved[i + 1]:
                    continue
                if (distance := judge(moved)) < best:
                    best, levels = distance, moved
    return Tuned(num_steps, tuple(levels[1:].tolist()), best, untuned)


def tune_schedule(
    voice: Path, data: Path, steps: Sequence[int], utterances: int = 6, on_found: Callable[[Tuned], None] | None = None
) -> list[Tuned]:
    """Search for every K of `steps` on the first short validation recordings of `data`; writes them into `voice`.

    Raises:
        ConfigError: a K below 2.
        DataError: voice or corpus cannot be used.
    """
    if min(steps) < 2:
        raise ConfigError(f"cannot tune {min(steps)} steps", "give numbers of at least 2")
    state, description = load_voice(voice)
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=voice))
    corpus = SpeechCorpus.open(data, split="validation", sample_rate=policy.config.sample_rate)
    gain = description.get("card", {}).get("gain")
    short = sorted(load_utterances(corpus, policy.config, gain), key=lambda u: (len(u.wave), u.id))
    judge = Judge(policy, short[len(short) // 4 :][:utterances]).distance
    found = []
    for num_steps in steps:
        tuned = search(judge, num_steps)
        found.append(tuned)
        description.setdefault("schedules", {})[str(num_steps)] = list(tuned.levels)
        save_voice(voice, state, description, half=bool(description.get("half")))
        if on_found is not None:
            on_found(tuned)
    return found
