"""A policy outside a training run: speak a text, judge prompts, judge recordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlzoo.config.resolve import Choice
from rlzoo.core.noise import seed_of
from rlzoo.core.policy import Policy
from rlzoo.core.types import Prompt, Samples
from rlzoo.engine import divergence, rollout, scoring
from rlzoo.engine.checkpoint import build_policy, load_policy
from rlzoo.engine.diversity import diversity
from rlzoo.engine.processes import make_fabric
from rlzoo.errors import ConfigError, ContractError
from rlzoo.speech.audio import read_audio, resample, to_samples

Progress = Callable[[int, int], None]
"""Hears what is done, of how much."""


@dataclass(frozen=True)
class Judged:
    """Results of one policy, or of one set of recordings."""

    rows: list[dict[str, Any]]
    """One per sample: `prompt`, `text`, `index`, `scores`."""
    diversity: dict[str, float]
    """Diversity of each prompt with at least two samples; see `rlzoo.engine.diversity`."""
    kl: dict[str, float]
    """To the reference, per element of one denoising step in nats, by prompt; empty without a reference."""
    kl_nats: dict[str, float]
    """The same of the whole state."""
    sample_rate: int | None
    rates: Mapping[int, int] = field(default_factory=dict)
    """Sampling rates of recordings: {hertz: number of files}."""


def load(source: Path | Choice[Any], device: str, *, start: bool = False, seed: int = 0, trust: bool = False) -> Policy:
    """The policy of a run directory (or one checkpoint in it), or a chosen one, on `device` and in eval mode.

    `start`: what the run started from. `seed`: of weights that a chosen policy draws. `trust`: see `load_policy`.
    """
    if isinstance(source, Path):
        policy = load_policy(source, start=start, trust=trust)
    else:
        policy = build_policy(source, seed)
    return policy.to(make_fabric(device, "fp32").device).eval()


@torch.no_grad()
def speak(policy: Policy, prompts: Sequence[Prompt], seeds: Sequence[int], num_steps: int | None = None) -> Samples:
    """One sample per prompt, N in all; row i's noise follows from `seeds[i]`."""
    cond = policy.condition(prompts)
    plan = rollout.SamplingPlan(schedule=policy.schedule(num_steps), seeds=tuple(seeds))
    samples = rollout.sample(policy, cond, plan).samples
    if samples.media.kind == "audio" and not bool(torch.isfinite(samples.data).all()):
        raise ContractError("the policy's sample is not finite", "the checkpoint has diverged; take an earlier one")
    return samples


@torch.no_grad()
def judge_prompts(
    policy: Policy,
    prompts: Sequence[Prompt],
    scorers: Sequence[scoring.Scorer],
    *,
    seed: int,
    samples_per_prompt: int,
    num_steps: int | None,
    micro_batch: int,
    failures: Path,
    progress: Progress,
    reference: Policy | None = None,
) -> Judged:
    """Scores of the policy on prompts, with the noise that a run's evaluation uses, so that both agree."""
    G, schedule = samples_per_prompt, policy.schedule(num_steps)
    judged = Judged([], {}, {}, {}, policy.media.sample_rate)
    per_call = max(1, micro_batch // G)
    for first in range(0, len(prompts), per_call):
        some = prompts[first : first + per_call]
        rows = [prompt for prompt in some for _ in range(G)]
        seeds = tuple(seed_of("eval", seed, prompt.id, index) for prompt in some for index in range(G))
        probe = divergence.probe(schedule, seeds) if reference is not None else ()
        cond = policy.condition(some).repeat(G)
        plan = rollout.SamplingPlan(schedule=schedule, seeds=seeds, micro_batch=micro_batch, probe=probe)
        done = rollout.sample(policy, cond, plan)
        judged.rows.extend(_score(done.samples, rows, [*range(G)] * len(some), scorers, failures))
        for number, prompt in enumerate(some):
            if G > 1:
                judged.diversity[prompt.id] = diversity(done.samples[number * G : (number + 1) * G])
        if reference is not None and done.probed is not None:
            k, every = torch.tensor(probe, device=done.probed.device), torch.arange(len(rows))
            kl = divergence.measure(policy, reference, cond, schedule, every, done.probed, k, micro_batch)
            means = kl.view(len(some), G, 2).mean(1).tolist()
            judged.kl.update({prompt.id: one for prompt, (one, _) in zip(some, means, strict=True)})
            judged.kl_nats.update({prompt.id: whole for prompt, (_, whole) in zip(some, means, strict=True)})
        progress(first + len(some), len(prompts))
    return judged


def judge_recordings(
    items: Sequence[tuple[Prompt, Path]],
    scorers: Sequence[scoring.Scorer],
    device: torch.device,
    failures: Path,
    progress: Progress,
) -> Judged:
    """Scores of recordings, each resampled from its own rate to what a judge wants.

    `sample_rate` is None if they differ. DataError for a file that is not a sound mono recording.
    """
    rows: list[dict[str, Any]] = []
    waves: dict[str, list[torch.Tensor]] = {}
    rates: dict[int, int] = {}
    for done, (prompt, file) in enumerate(items, 1):
        wave, rate = read_audio(file)
        rates[rate] = rates.get(rate, 0) + 1
        mates = waves.setdefault(prompt.id, [])
        rows += _score(to_samples([wave], rate).to(device), [prompt], [len(mates)], scorers, failures)
        mates.append(resample(wave, rate, next(iter(rates))))
        progress(done, len(items))
    first = next(iter(rates), 0)
    spread = {name: diversity(to_samples(mates, first)) for name, mates in waves.items() if len(mates) > 1}
    return Judged(rows, spread, {}, {}, first if len(rates) == 1 else None, rates)


def split_of(prompt_set: Any, name: str) -> Sequence[Prompt]:
    """`heldout` or `train` prompts of a prompt set."""
    if name not in ("heldout", "train"):
        raise ConfigError(f"unknown split '{name}'", "available: heldout, train")
    prompts: Sequence[Prompt] = getattr(prompt_set, name)()
    if not prompts:
        raise ConfigError(f"the prompt set has no {name} prompts", "choose the other --split")
    return prompts


@torch.no_grad()
def _score(
    samples: Samples,
    prompts: Sequence[Prompt],
    indices: Sequence[int],
    scorers: Sequence[scoring.Scorer],
    failures: Path,
) -> list[dict[str, Any]]:
    scored = scoring.score(scorers, samples, prompts, len(samples), failures)
    columns = {scorer.name: values for scorer, values in zip(scorers, scored.values, strict=True)}
    if any(scorer.weight for scorer in scorers):
        columns = {"total": scoring.total(scorers, scored), **columns}
    columns |= scored.parts
    table = torch.stack([column.cpu().double() for column in columns.values()], 1).tolist()
    return [
        {"prompt": prompt.id, "text": prompt.text, "index": index, "scores": dict(zip(columns, row, strict=True))}
        for prompt, index, row in zip(prompts, indices, table, strict=True)
    ]
