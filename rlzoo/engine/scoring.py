"""Rewards as the engine calls them: resampled once per rate, checked, named after what was used."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo.config.resolve import Choice, RewardChoice
from rlzoo.core.reward import Reward
from rlzoo.core.types import Prompt, Samples
from rlzoo.engine.rewards import score_with
from rlzoo.engine.scorecache import CachedReward, ScoreCache, with_cache
from rlzoo.errors import Diverged
from rlzoo.speech.audio import resample_samples, write_audio


@dataclass(frozen=True)
class Scorer:
    """One reward of the run. `name` is what was used, `requested` what the user asked for; judges weigh nothing."""

    name: str
    requested: str
    weight: float
    reward: Reward[Any]


def make_scorers(choices: Iterable[Choice[Any]], device: torch.device, cache: ScoreCache | None) -> list[Scorer]:
    """Build rewards on `device`, behind the cache. A RewardChoice keeps its weight; any other choice only judges."""
    scorers = []
    for choice in choices:
        name, reward = choice.spec.name, choice.build().to(device)
        requested, weight = (choice.requested, choice.weight) if isinstance(choice, RewardChoice) else (name, 0.0)
        scorers.append(Scorer(name, requested, weight, with_cache(name, reward, cache)))
    return scorers


@dataclass(frozen=True)
class Scored:
    """(N,) per scorer, in their order, and `parts` such as `nisqa/noisiness`, (N,) each."""

    values: list[Tensor]
    parts: dict[str, Tensor]


def score(
    scorers: Sequence[Scorer],
    samples: Samples,
    prompts: Sequence[Prompt],
    micro_batch: int,
    failures: Path,
    progress: Callable[[int], None] = lambda rows: None,
) -> Scored:
    """Score N samples with every scorer, about `micro_batch` rows at a time, all rows of a prompt in one call.

    Raises Diverged if a sample or a score is not finite, after writing the sample to `failures`, and ContractError
    for a result of a wrong shape.
    """
    scored = []
    for rows in calls(prompts, micro_batch):
        scored.append(score_call(scorers, samples[rows], prompts[rows], failures))
        progress(rows.stop - rows.start)
    return join_scored(scored)


def score_call(scorers: Sequence[Scorer], samples: Samples, prompts: Sequence[Prompt], failures: Path) -> Scored:
    """One of the calls of `score`."""
    bad = (~torch.isfinite(samples.data.detach())).flatten(1).any(1)
    if bad.any():
        row = int(bad.nonzero()[0])
        path = _save_failure(samples, row, failures, f"policy-{prompts[row].id}")
        raise Diverged(
            f"the policy's sample of prompt '{prompts[row].id}' is not finite (saved as '{path}')",
            "lower train.learning_rate or train.grad_clip and resume from the last checkpoint",
        )
    samples = cut_padding(samples)
    at_rate: dict[int | None, Samples] = {}
    found = Scored([], {})
    for scorer in scorers:
        rate = scorer.reward.sample_rate
        if rate not in at_rate:
            at_rate[rate] = resample_samples(samples, rate)
        found.values.append(_call(scorer, at_rate[rate], prompts, failures, found.parts))
    return found


def join_scored(scored: Sequence[Scored]) -> Scored:
    """The results of `calls`, in their order, as one."""
    return Scored(
        [torch.cat(column) for column in zip(*(one.values for one in scored), strict=True)],
        {name: torch.cat([one.parts[name] for one in scored]) for name in scored[0].parts},
    )


def total(scorers: Sequence[Scorer], scored: Scored) -> Tensor:
    """(N,) weighted sum."""
    return torch.stack([s.weight * v for s, v in zip(scorers, scored.values, strict=True)]).sum(0)


def cache_use(scorers: Sequence[Scorer]) -> tuple[int, int]:
    """Rows found in the score cache and rows looked up since this was last asked."""
    hits = rows = 0
    for scorer in scorers:
        if isinstance(scorer.reward, CachedReward):
            hits, rows = hits + scorer.reward.hits, rows + scorer.reward.hits + scorer.reward.misses
            scorer.reward.hits = scorer.reward.misses = 0
    return hits, rows


def calls(prompts: Sequence[Prompt], micro_batch: int) -> list[slice]:
    """Slices of about `micro_batch` rows that never part the rows of one prompt, which come one after the other."""
    calls: list[slice] = []
    first = row = 0
    for _, group in groupby(prompts, key=lambda prompt: prompt.id):
        size = len(list(group))
        if row > first and row + size - first > micro_batch:
            calls.append(slice(first, row))
            first = row
        row += size
    return [*calls, slice(first, row)]


def cut_padding(samples: Samples) -> Samples:
    """Without the points that no row reaches."""
    longest = int(samples.lengths.max())
    return Samples(samples.data[..., :longest], samples.lengths, samples.media)


def _call(
    scorer: Scorer, samples: Samples, prompts: Sequence[Prompt], failures: Path, parts: dict[str, Tensor]
) -> Tensor:
    who = f"reward '{scorer.name}' (version {scorer.reward.version})"
    scores = score_with(scorer.reward, scorer.name, samples, prompts)
    values = scores.values
    bad = ~torch.isfinite(values.detach())
    if bad.any():
        row = int(bad.nonzero()[0])
        path = _save_failure(samples, row, failures, f"{scorer.name}-{prompts[row].id}")
        raise Diverged(
            f"{who} scored {int(bad.sum())} of {len(samples)} samples as {float(values[row])} (one saved as '{path}')",
            f"look at that sample; if it is sound, the reward is at fault: rlzoo plugins check {scorer.name}",
        )
    if scores.parts:  # in one copy: a GPU is waited for each time
        together = torch.stack([part.detach().to(values) for part in scores.parts.values()]).cpu()
        parts |= {f"{scorer.name}/{name}": part for name, part in zip(scores.parts, together, strict=True)}
    return values


def _save_failure(samples: Samples, row: int, failures: Path, stem: str) -> Path:
    """The sample as it was: as a tensor, because a WAV file holds no NaN, and as audio where it can be."""
    failures.mkdir(parents=True, exist_ok=True)
    wave = samples.row(row).detach().cpu().clone()
    torch.save({"data": wave, "sample_rate": samples.media.sample_rate}, failures / f"{stem}.pt")
    if samples.media.kind == "audio" and samples.media.sample_rate and bool(torch.isfinite(wave).all()):
        return write_audio(failures / f"{stem}.wav", wave, samples.media.sample_rate)
    return failures / f"{stem}.pt"


def summary(values: Tensor) -> dict[str, float]:
    """(N,) -> mean, population std and count."""
    values = values.double()
    spread = float(values.std(correction=0)) if len(values) else math.nan
    return {"mean": float(values.mean()), "std": spread, "count": len(values)}
