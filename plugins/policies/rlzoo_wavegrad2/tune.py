"""Search few-step noise schedules against recorded speech, and keep the best with the voice.

A schedule is judged by the log-mel distance between validation recordings and samples with the recordings' own
durations and always the same noise. The search starts from levels placed by log-SNR (two shape parameters, on a grid)
and then bends them at a few knots while that helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.corpus import SpeechCorpus
from rlzoo.errors import ConfigError, DataError
from rlzoo.writing import sweep
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.data import load_utterances
from rlzoo_wavegrad2.policy import WaveGrad2Policy, read_voice
from rlzoo_wavegrad2.schedules import placed_levels
from rlzoo_wavegrad2.validation import Judge

SIGMA_MIN = (0.03, 0.01, 0.07, 0.15, 0.3)
POWERS = (1.0, 0.6, 0.8, 1.3, 1.7)
KNOTS = 5

OnTrial = Callable[[int, int, int, float], None]
"""Called after every trial with K, trials done, trials in all, and the best distance so far."""


@dataclass(frozen=True)
class Tuned:
    """The best schedule found for K steps: `levels` (K,), cleanest first, and the log-mel distances."""

    num_steps: int
    levels: tuple[float, ...]
    distance: float
    untuned: float
    """Distance of the plain log-SNR placement."""


def bumps(num_steps: int) -> Tensor:
    """(n, K+1) hats over the levels, n = min(K - 1, KNOTS), evenly spaced over the inner ones; both ends stay.

    Up to KNOTS + 1 steps a hat is a single level; beyond, a bend of the curve: trials do not grow with K.
    """
    index = torch.arange(num_steps + 1, dtype=torch.float64)
    count = min(num_steps - 1, KNOTS)
    centres = torch.linspace(1, num_steps - 1, count, dtype=torch.float64)
    spacing = float(centres[1] - centres[0]) if count > 1 else 1.0
    hats = (1 - (index - centres[:, None]).abs() / spacing).clamp(min=0)
    hats[:, [0, -1]] = 0  # level 1 is clean speech; the last is the terminal level: sampling starts from pure noise
    return hats


def trials(num_steps: int, rounds: int) -> int:
    """Largest number of schedules that `search` evaluates."""
    return len(SIGMA_MIN) * len(POWERS) + 2 * rounds * min(num_steps - 1, KNOTS)


def search(judge: Callable[[Tensor], float], num_steps: int, rounds: int = 2) -> Tuned:
    """Grid over placements, then `rounds` passes that push the levels at each knot both ways in log-SNR."""
    grid = [(judge(levels), levels) for levels in _grid(num_steps)]
    untuned = grid[0][0]
    best, levels = min(grid, key=lambda found: found[0])
    for round_ in range(rounds):
        shift = 0.6 / 2**round_
        for bump in bumps(num_steps):
            for direction in (-shift, shift):
                pushed = torch.sigmoid(torch.logit(levels**2) + direction * bump).sqrt()
                moved = torch.where(bump > 0, pushed, levels)  # what is not pushed stays to the last bit
                if bool((moved.diff() < 0).all()) and (distance := judge(moved)) < best:
                    best, levels = distance, moved
    return Tuned(num_steps, tuple(levels[1:].tolist()), best, untuned)


def _grid(num_steps: int) -> Iterator[Tensor]:
    """The plain placement first."""
    for power in POWERS:
        for low in SIGMA_MIN:
            yield placed_levels(num_steps, low, power)


def tune_schedule(
    voice: Path,
    data: Path,
    steps: Sequence[int],
    *,
    out: Path | None = None,
    utterances: int = 6,
    textgrids: Path | None = None,
    device: str = "cpu",
    on_trial: OnTrial = lambda steps, done, total, best: None,
) -> list[Tuned]:
    """Search for every K of `steps` on short validation recordings of `data`; writes each result at once.

    Args:
        voice: our `.safetensors`, or a `.ckpt` of the public model, which needs `out`.
        out: file to write; unset: `voice` itself gets the schedules.
        utterances: how many recordings to listen to.
        textgrids: folder of MFA TextGrids; unset: phones.jsonl of the corpus.

    Raises:
        ConfigError: a K below 2, or no `out` for a voice that is not ours.
        DataError: voice or corpus cannot be used.
    """
    if not steps or min(steps) < 2:
        raise ConfigError(f"cannot tune {min(steps, default=0)} steps", "give numbers of at least 2")
    if out is None and voice.suffix != ".safetensors":
        raise ConfigError(f"schedules cannot be stored in '{voice.name}'", "give --out VOICE.safetensors")
    sweep((out or voice).absolute().parent, (out or voice).name)
    state, description = read_voice(voice)
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=voice)).to(device)
    card = description.get("card", {})
    trim = bool(card.get("options", {}).get("trim_silence", False))
    rate = policy.config.sample_rate
    corpus = SpeechCorpus.open(data, split="validation", sample_rate=rate, textgrids=textgrids, trim_silence=trim)
    short = sorted(load_utterances(corpus, policy.config, card.get("gain")), key=lambda u: (len(u.wave), u.id))
    if len(short) < utterances:
        raise DataError(f"'{data}' has {len(short)} validation recordings, not {utterances}", "set --utterances")
    # Not the very shortest, which are single words; not the longest, which only cost time.
    first = min(len(short) // 4, len(short) - utterances)
    judge = Judge(policy, short[first : first + utterances])
    found = []
    for num_steps in steps:
        tuned = search(_counting(judge.distance, num_steps, on_trial), num_steps)
        found.append(tuned)
        description.setdefault("schedules", {})[str(num_steps)] = list(tuned.levels)
        VOICES.save(out or voice, state, description, half=bool(description.get("half")))
    return found


def _counting(judge: Callable[[Tensor], float], num_steps: int, on_trial: OnTrial) -> Callable[[Tensor], float]:
    total, done, best = trials(num_steps, rounds=2), 0, float("inf")

    def counted(levels: Tensor) -> float:
        nonlocal done, best
        distance = judge(levels)
        done, best = done + 1, min(best, distance)
        on_trial(num_steps, done, total, best)
        return distance

    return counted
