"""Sampling. Every number that is drawn comes from a generator of its row alone.

A row's seed is a hash of (run seed, step, prompt id, repetition), and noise is drawn for the row's valid length only. A
sample therefore depends neither on padding, nor on its batch mates, nor on how many rows or processes share the work.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from rlzoo._policy import Policy
from rlzoo._types import Batch, Prompt, Reduction, Samples, Schedule
from rlzoo._windows import step_with_window


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from what identifies a draw; unlike `hash`, the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator: GPUs of different kinds draw different numbers."""
    return torch.Generator().manual_seed(seed)


def row_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...], lengths: Sequence[int]) -> Tensor:
    """One standard normal draw per row, (N, *S) on the CPU: zero beyond a row's length, and nothing drawn for it."""
    noise = torch.zeros(len(generators), *shape)
    for row, (generator, length) in enumerate(zip(generators, lengths, strict=True)):
        noise[row, ..., :length] = torch.randn(*shape[:-1], length, generator=generator)
    return noise


def share(count: int, rank: int, processes: int) -> range:
    """The contiguous share of `count` things that falls to one of `processes`; sizes differ by at most one."""
    return range(count * rank // processes, count * (rank + 1) // processes)


@dataclass(frozen=True)
class Rows:
    """One process's rows of a step, in order: prompt, group, own seed, seed of the first row of the group."""

    prompts: tuple[Prompt, ...]
    group: tuple[int, ...]
    seeds: tuple[int, ...]
    group_seeds: tuple[int, ...]


def rows_of(everyone: Sequence[Prompt], mine: range, repetitions: int, seed: int, step: int) -> Rows:
    """The rows of the prompts numbered `mine` among `everyone`, each prompt `repetitions` times."""
    seen: Counter[str] = Counter()
    seeds: list[list[int]] = []
    for prompt in everyone:
        # A prompt that comes twice in a step goes on counting its repetitions; else both would sound alike.
        counts = range(seen[prompt.id], seen[prompt.id] + repetitions)
        seeds.append([seed_of("row", seed, step, prompt.id, count) for count in counts])
        seen[prompt.id] += repetitions
    return Rows(
        tuple(everyone[b] for b in mine for _ in range(repetitions)),
        tuple(b for b in mine for _ in range(repetitions)),
        tuple(s for b in mine for s in seeds[b]),
        tuple(seeds[b][0] for b in mine for _ in range(repetitions)),
    )


@dataclass(frozen=True)
class Plan:
    """How to sample N rows."""

    schedule: Schedule
    seeds: tuple[int, ...]
    prior_seeds: tuple[int, ...]
    """Per row; differs from `seeds` where a group starts from one noise."""
    keep_all: bool
    grad_steps: int
    reduction: Reduction
    micro_batch: int
    probe: tuple[int, ...]
    """(N,) a step k per row whose state before the step is kept, or empty."""
    window_frames: int = 0
    """Size of the windows whose log-probabilities are wanted too; 0: none."""


@dataclass(frozen=True)
class Rollout:
    """What sampling gives: `states` (K+1, N, *S) or (1, N, *S), `log_probs` (K, N), `probed` (N, *S) or None."""

    states: Tensor
    log_probs: Tensor
    samples: Samples
    probed: Tensor | None
    window_log_probs: Tensor | None = None
    """(K, N): of the window that will be trained."""


def sample(policy: Policy, cond: Batch, plan: Plan, progress: Callable[[int], None] = lambda rows: None) -> Rollout:
    """Run the chain for all rows of `cond`, `plan.micro_batch` at a time; `progress` hears rows times steps."""
    pieces: list[Rollout] = []
    for first in range(0, len(cond), plan.micro_batch):
        rows = range(first, min(first + plan.micro_batch, len(cond)))
        pieces.append(_sample_piece(policy, cond[rows.start : rows.stop], plan, rows, progress))
    samples = Samples(
        torch.cat([piece.samples.data for piece in pieces]),
        torch.cat([piece.samples.lengths for piece in pieces]),
        policy.media,
    )
    probed = [piece.probed for piece in pieces if piece.probed is not None]
    return Rollout(
        torch.cat([piece.states for piece in pieces], 1),
        torch.cat([piece.log_probs for piece in pieces], 1),
        samples,
        torch.cat(probed) if probed else None,
        torch.cat([piece.window_log_probs for piece in pieces if piece.window_log_probs is not None], 1)
        if plan.window_frames
        else None,
    )


def _sample_piece(policy: Policy, cond: Batch, plan: Plan, rows: range, progress: Callable[[int], None]) -> Rollout:
    shape, lengths = policy.state_shape(cond), policy.lengths(cond).tolist()
    device = next(iter(cond.tensors.values())).device
    generators = [generator_of(plan.seeds[row]) for row in rows]
    priors = [generator_of(plan.prior_seeds[row]) for row in rows]
    row_noise(generators, shape, lengths)  # the place of the row's own prior, used or not
    x = row_noise(priors, shape, lengths).to(device)
    K = len(plan.schedule)
    stochastic = plan.schedule.stochastic.tolist()
    states, log_probs, probed = [x], [], torch.zeros_like(x) if plan.probe else None
    seeds, in_windows = [plan.seeds[row] for row in rows], []
    for k in range(K):
        noise = row_noise(generators, shape, lengths).to(device)
        if probed is not None:
            here = torch.tensor([plan.probe[row] == k for row in rows], device=device)
            probed[here] = x.detach()[here]
        with nullcontext() if k >= K - plan.grad_steps else torch.no_grad():
            # Policies are free to be in float64 somewhere inside; what is stored and trained on is float32.
            k_N = torch.full((len(cond),), k, device=device)
            if plan.window_frames:
                step, window, place = step_with_window(policy, x, k_N, cond, plan.schedule, seeds, plan.window_frames)
            else:
                step, window = policy.transition(x, k_N, cond, plan.schedule), None
            after = (step.rsample(noise) if stochastic[k] else step.mode).float()
            with torch.no_grad():
                log_probs.append(
                    step.log_prob(after.detach(), plan.reduction) if stochastic[k] else after.new_zeros(len(cond))
                )
                if window is not None:
                    in_windows.append(
                        window.log_prob(place.cut(after), plan.reduction) if stochastic[k] else log_probs[-1]
                    )
        x = after
        if plan.keep_all:
            states.append(x.detach())
        progress(len(rows))
    with nullcontext() if plan.grad_steps else torch.no_grad():
        samples = policy.decode(x, cond)
    # Only the last state may carry the graph; algorithms differentiate through it or through `samples`.
    states = [*states[:-1], x] if plan.keep_all else [x]
    kept = torch.stack(in_windows) if in_windows else None
    return Rollout(torch.stack(states), torch.stack(log_probs), samples, probed, kept)
