"""Sampling. Every number that is drawn comes from a generator of its row alone.

A row's seed is a hash of (run seed, step, prompt id, repetition), and noise is drawn for the row's valid length only. A
sample therefore depends neither on padding, nor on its batch mates, nor on how many rows or processes share the work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.core.noise import draw_noise, generator_of, seed_of
from rlzoo.core.policy import Policy, per_row
from rlzoo.core.types import Batch, Prompt, Reduction, Samples, Schedule
from rlzoo.engine.windows import windows_of


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


def rows_of(all_prompts: Sequence[Prompt], mine: range, repetitions: int, seed: int, step: int) -> Rows:
    """The rows of the prompts numbered `mine` among `all_prompts`, each prompt `repetitions` times."""
    seen: Counter[str] = Counter()
    seeds: list[list[int]] = []
    for prompt in all_prompts:
        # A prompt that comes twice in a step goes on counting its repetitions; else both would sound alike.
        counts = range(seen[prompt.id], seen[prompt.id] + repetitions)
        seeds.append([seed_of("row", seed, step, prompt.id, count) for count in counts])
        seen[prompt.id] += repetitions
    return Rows(
        tuple(all_prompts[b] for b in mine for _ in range(repetitions)),
        tuple(b for b in mine for _ in range(repetitions)),
        tuple(s for b in mine for s in seeds[b]),
        tuple(seeds[b][0] for b in mine for _ in range(repetitions)),
    )


@dataclass(frozen=True, kw_only=True)
class SamplingPlan:
    """Settings for sampling N rows."""

    schedule: Schedule
    seeds: tuple[int, ...]
    """One per row: all of its noise follows from it."""
    prior_seeds: tuple[int, ...] = ()
    """Seeds of the rows' first noise, where a group starts from one; empty: `seeds`."""
    grad_steps: int = 0
    """The last so many steps keep the graph."""
    reduction: Reduction = "mean"
    micro_batch: int = 0
    """Rows at once; 0: all of them."""
    micro_batch_frames: int = 0
    """Frames at once, padding included; 0: no bound."""
    probe: tuple[int, ...] = ()
    """(N,) a step k per row whose state before the step is kept, or empty."""
    window_frames: int = 0
    """Size of the windows whose log-probabilities are wanted too; 0: none."""
    kept: tuple[int, ...] = ()
    """Indices of the states 0 ... K to store, in order, besides the clean one."""
    dtype: torch.dtype = torch.float32
    """Type of states and log-probabilities; float64 for comparisons with closed forms."""


@dataclass(frozen=True)
class Rollout:
    """Result of sampling: `states` (J, N, *S), `log_probs` (K, N), `probed` (N, *S) or None.

    The states are those of `SamplingPlan.kept` and the clean one.
    """

    states: Tensor
    log_probs: Tensor
    samples: Samples
    probed: Tensor | None
    window_log_probs: Tensor | None = None
    """(K, N): of the window that will be trained."""


def around_densities(stochastic: Tensor) -> tuple[int, ...]:
    """(K,) bool -> the states that a transition with a density begins or ends with, and the clean one."""
    steps = stochastic.nonzero().flatten().tolist()
    return tuple(sorted({*steps, *(k + 1 for k in steps), len(stochastic)}))


def rows_at_once(size: int, frames: int, width: int) -> int:
    """How many rows of `width` frames go at once: at most `size`, and `frames` in all (0: no bound), but one."""
    return max(1, min(size, frames // max(width, 1))) if frames else size


def by_length(lengths: Sequence[int], size: int, frames: int = 0) -> list[list[int]]:
    """Rows in batches as `rows_at_once` says, like lengths together: padding costs time as well.

    The longest come first, so that a batch that does not fit into memory fails at once.
    """
    if len(lengths) <= rows_at_once(size, frames, max(lengths, default=0)):
        return [list(range(len(lengths)))]
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches, first = [], 0
    while first < len(order):
        batches.append(order[first : first + rows_at_once(size, frames, lengths[order[first]])])
        first += len(batches[-1])
    return batches


def sample(
    policy: Policy,
    cond: Batch,
    plan: SamplingPlan,
    progress: Callable[[int], None] = lambda rows: None,
    sampled: Callable[[Sequence[int], Samples], None] | None = None,
) -> Rollout:
    """Run the chain for all rows of `cond`, as many at a time as `plan.micro_batch` and `micro_batch_frames` allow.

    `progress` is called with rows times steps, `sampled` with the rows that are done and their samples.
    """
    batches = by_length(policy.lengths(cond).tolist(), plan.micro_batch or len(cond), plan.micro_batch_frames)
    if len(batches) == 1:
        return _sample_piece(policy, cond, plan, batches[0], progress)
    pieces = []
    for rows in batches:
        pieces.append(_sample_piece(policy, policy.trim(cond[rows]), plan, rows, progress))
        if sampled is not None:
            sampled(rows, pieces[-1].samples)
    back = torch.tensor([row for rows in batches for row in rows], device=pieces[0].states.device).argsort()
    probed = [piece.probed for piece in pieces if piece.probed is not None]
    in_windows = [piece.window_log_probs for piece in pieces if piece.window_log_probs is not None]
    samples = Samples(
        _widened([piece.samples.data for piece in pieces], 0)[back],
        torch.cat([piece.samples.lengths for piece in pieces])[back],
        policy.media,
    )
    return Rollout(
        _widened([piece.states for piece in pieces], 1)[:, back],
        torch.cat([piece.log_probs for piece in pieces], 1)[:, back],
        samples,
        _widened(probed, 0)[back] if probed else None,
        torch.cat(in_windows, 1)[:, back] if in_windows else None,
    )


def _widened(parts: Sequence[Tensor], rows: int) -> Tensor:
    """States or samples whose rows lie along the axis `rows`, together, at the widest one's width."""
    width = max(part.shape[-1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[-1])) for part in parts], rows)


def _sample_piece(
    policy: Policy, cond: Batch, plan: SamplingPlan, rows: Sequence[int], progress: Callable[[int], None]
) -> Rollout:
    shape, lengths = policy.state_shape(cond), policy.lengths(cond).tolist()
    device = next(iter(cond.tensors.values())).device
    generators = [generator_of(plan.seeds[row]) for row in rows]
    first_seeds = plan.prior_seeds or plan.seeds
    priors = [generator_of(first_seeds[row]) for row in rows]
    draw_noise(generators, shape, lengths)  # the place of the row's own prior, used or not
    pinned = device.type == "cuda"  # then the host does not wait for the copy
    x = draw_noise(priors, shape, lengths, pinned).to(device, non_blocking=True).to(plan.dtype)
    # Between here and the end of the loop nothing waits for a GPU: it computes one step while the host draws the next.
    K, schedule = len(plan.schedule), plan.schedule.to(device)
    stochastic = plan.schedule.stochastic.tolist()
    kept = {*plan.kept, K}
    states, log_probs = [x] if 0 in kept else [], []
    probe = torch.tensor([plan.probe[row] for row in rows], device=device) if plan.probe else None
    probed = None if probe is None else torch.zeros_like(x)
    seeds, in_windows = [plan.seeds[row] for row in rows], []
    windows = windows_of(policy, cond, seeds, K, plan.window_frames) if plan.window_frames else []
    for k in range(K):
        noise = draw_noise(generators, shape, lengths, pinned).to(device, non_blocking=True).to(plan.dtype)
        if probe is not None and probed is not None:
            probed = torch.where(per_row(probe == k, x) > 0, x.detach(), probed)
        with nullcontext() if k >= K - plan.grad_steps else torch.no_grad():
            # A policy may compute in another precision; what is stored and trained on is of one.
            k_N = torch.full((len(cond),), k, device=device)
            if windows:
                step, window = windows[k].step(policy, x, k_N, cond, schedule)
            else:
                step, window = policy.transition(x, k_N, cond, schedule), None
            after = (step.rsample(noise) if stochastic[k] else step.mode).to(plan.dtype)
            with torch.no_grad():
                log_probs.append(
                    step.log_prob(after.detach(), plan.reduction) if stochastic[k] else after.new_zeros(len(cond))
                )
                if window is not None:
                    place = windows[k].place
                    in_windows.append(
                        window.log_prob(place.cut(after), plan.reduction) if stochastic[k] else log_probs[-1]
                    )
        x = after
        if k + 1 in kept:
            states.append(x if k + 1 == K else x.detach())
        progress(len(rows))
    with nullcontext() if plan.grad_steps else torch.no_grad():
        samples = policy.decode(x, cond)
    # Only the last state may carry the graph; algorithms differentiate through it or through `samples`.
    window_log_probs = torch.stack(in_windows) if in_windows else None
    return Rollout(torch.stack(states), torch.stack(log_probs), samples, probed, window_log_probs)
