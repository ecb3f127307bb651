"""A policy outside a training run: speak a text, judge prompts, judge recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlzoo._policy import Policy
from rlzoo._types import Prompt, Samples
from rlzoo.audio import read_audio, to_samples
from rlzoo.config import Choice
from rlzoo.engine import rollout, scoring
from rlzoo.engine.checkpoint import load_policy
from rlzoo.engine.processes import make_fabric
from rlzoo.errors import ConfigError, ContractError


@dataclass(frozen=True)
class Judged:
    """One sample and its score under every reward."""

    id: str
    text: str
    index: int
    scores: dict[str, float]


def load(source: Path | Choice[Any], device: str) -> Policy:
    """The policy of a run directory (or one checkpoint in it), or a chosen one, on `device` and in eval mode."""
    policy: Policy = load_policy(source) if isinstance(source, Path) else source.build()
    return policy.to(make_fabric(device, "fp32").device).eval()


@torch.no_grad()
def speak(policy: Policy, prompts: Sequence[Prompt], seeds: Sequence[int], num_steps: int | None = None) -> Samples:
    """One sample per prompt, N in all; row i's noise follows from `seeds[i]`."""
    cond = policy.condition(prompts)
    rows = tuple(seeds)
    plan = rollout.Plan(policy.schedule(num_steps), rows, rows, False, 0, "mean", len(rows), ())
    samples = rollout.sample(policy, cond, plan).samples
    if samples.media.kind == "audio" and not bool(torch.isfinite(samples.data).all()):
        raise ContractError("the policy's sample is not finite", "the checkpoint has diverged; take an earlier one")
    return samples


def judge_prompts(
    policy: Policy,
    prompts: Sequence[Prompt],
    scorers: Sequence[scoring.Scorer],
    *,
    seed: int,
    samples_per_prompt: int,
    num_steps: int | None,
    failures: Path,
    progress: Callable[[int, int], None],
) -> list[Judged]:
    """Scores of the policy on prompts, with the noise that a run's evaluation uses, so that both agree."""
    judged: list[Judged] = []
    for done, prompt in enumerate(prompts, 1):
        rows = [prompt] * samples_per_prompt
        seeds = [rollout.seed_of("eval", seed, prompt.id, index) for index in range(samples_per_prompt)]
        samples = speak(policy, rows, seeds, num_steps)
        judged += _score(samples, rows, scorers, failures)
        progress(done, len(prompts))
    return judged


def judge_files(
    files: Sequence[Path], scorers: Sequence[scoring.Scorer], failures: Path, progress: Callable[[int, int], None]
) -> list[Judged]:
    """Scores of recordings. DataError for a file that is no sound mono recording."""
    judged: list[Judged] = []
    for done, file in enumerate(files, 1):
        wave, rate = read_audio(file)
        judged += _score(to_samples([wave], rate), [Prompt(str(file))], scorers, failures)
        progress(done, len(files))
    return judged


def make_scorers(choices: Sequence[Choice[Any]], device: str) -> list[scoring.Scorer]:
    """Build rewards on `device`."""
    place = make_fabric(device, "fp32").device
    return [scoring.Scorer(c.spec.name, c.spec.name, 1.0, c.build().to(place)) for c in choices]


def split_of(prompt_set: Any, name: str) -> Sequence[Prompt]:
    """`heldout` or `train` prompts of a prompt set."""
    if name not in ("heldout", "train"):
        raise ConfigError(f"there is no split '{name}'", "there are: heldout, train")
    prompts: Sequence[Prompt] = getattr(prompt_set, name)()
    if not prompts:
        raise ConfigError(f"the prompt set has no {name} prompts", "choose the other --split")
    return prompts


@torch.no_grad()
def _score(
    samples: Samples, prompts: Sequence[Prompt], scorers: Sequence[scoring.Scorer], failures: Path
) -> list[Judged]:
    scored = scoring.score(scorers, samples, prompts, len(samples), failures)
    names = [scorer.name for scorer in scorers]
    columns = [*scored.values, *scored.parts.values()]
    table = torch.stack([column.cpu().double() for column in columns], 1).tolist()
    keys = [*names, *scored.parts]
    return [
        Judged(prompt.id, prompt.text, index, dict(zip(keys, row, strict=True)))
        for index, (prompt, row) in enumerate(zip(prompts, table, strict=True))
    ]
