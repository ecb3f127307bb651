"""Does a reward hold a gradient that a policy can follow? To be asked before hours are spent on a run.

Sample i adds g[i] = A[i] s[i] to a policy gradient: its advantage A[i] times s[i], the gradient of its trajectory's
log-probability, each weight scaled as Adam would. What two different samples share is the true gradient; what is left
of the mean |g|^2 is noise. The noise scale, noise over |gradient|^2, is the number of samples whose gradient is half
signal (McCandlish et al., arXiv:1812.06162, section 2.2).

The advantage is the score less the mean of the prompt's other G - 1 samples, which leaves E[g] as it is. It adds two
terms that are known and taken out again. Samples of different prompts: E<g[i], g[j]> = <G_p, G_q>. Samples of one
prompt: each is part of the other's baseline, E<g[i], g[j]> = |G_p|^2 (1 + 1 / (G - 1)^2). One sample: the baseline's
own variance makes E|g|^2 larger, by G / (G - 1) where a sample's score does not tell the size of its s[i]. With the
mean of all G samples as baseline and none of this, the noise scale would come out G / (G - 1) times too large.

Whether the gradient is more than chance a permutation test says: scores that change places among the samples of a
prompt keep everything but what can be learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.core.noise import seed_of
from rlzoo.core.policy import Policy
from rlzoo.core.types import Batch, Prompt, Schedule
from rlzoo.engine import rollout, scoring

PERMUTATIONS = 2000
WEIGHTS = 2**16
"""Large policies are subsampled to this many parameters."""


@dataclass(frozen=True)
class NoiseScale:
    """Result for one reward from N samples."""

    reward: str
    mean: float
    spread: float
    """Standard deviation of the score within a prompt: all that a policy gradient can learn from."""
    samples: float
    """The noise scale: samples whose gradient is half signal; infinite where no common gradient was found."""
    p: float
    """Probability of so much common gradient by chance; no less than 1 / (PERMUTATIONS + 1)."""


def measure(
    policy: Policy,
    prompts: Sequence[Prompt],
    scorers: Sequence[scoring.Scorer],
    *,
    seed: int,
    samples_per_prompt: int,
    num_steps: int | None,
    failures: Path,
    progress: Callable[[int, int], None],
) -> list[NoiseScale]:
    """One `NoiseScale` per scorer: of what the policy trains, from the same samples, two or more of each prompt."""
    G, schedule = samples_per_prompt, policy.schedule(num_steps)
    scores: list[list[Tensor]] = [[] for _ in scorers]
    rows: list[Tensor] = []
    weights = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    looked_at = torch.randperm(weights, generator=torch.Generator().manual_seed(0))[:WEIGHTS].sort().values
    for number, prompt in enumerate(prompts):
        seeds = tuple(seed_of("noise-scale", seed, prompt.id, index) for index in range(G))
        with torch.no_grad():
            cond = policy.condition([prompt]).repeat(G)
            every = tuple(range(len(schedule) + 1))
            plan = rollout.SamplingPlan(schedule=schedule, seeds=seeds, micro_batch=G, kept=every)
            done = rollout.sample(policy, cond, plan)
            scored = scoring.score(scorers, done.samples, [prompt] * G, G, failures)
        for column, values in zip(scores, scored.values, strict=True):
            column.append(values.double().cpu())
        for row in range(G):
            whole = score_function(policy, cond[row : row + 1], done.states[:, row : row + 1], schedule)
            rows.append(whole.cpu()[looked_at])
            progress(number * G + row + 1, len(prompts) * G)
    stacked = torch.stack(rows)
    # As Adam scales them. Unscaled, one direction drowns all others: that in which every bias moves the offset.
    stacked /= stacked.square().mean(0).sqrt().clamp(min=1e-12)
    gram = (stacked @ stacked.T).double()
    return [_of_scores(scorer.name, torch.stack(column), gram) for scorer, column in zip(scorers, scores, strict=True)]


def score_function(policy: Policy, cond: Batch, states: Tensor, schedule: Schedule) -> Tensor:
    """(W,): gradient of the log-probability of one trajectory, states (K+1, 1, *S)."""
    weights = [p for p in policy.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in weights), device=states.device)
    for k in schedule.stochastic.nonzero().flatten().tolist():
        step = policy.transition(states[k], torch.full((1,), k, device=states.device), cond, schedule)
        found = torch.autograd.grad(step.log_prob(states[k + 1]).sum(), weights, materialize_grads=True)
        total += torch.cat([gradient.flatten() for gradient in found])
    return total


def noise_scale(gram: Tensor, samples_per_prompt: int) -> float:
    """Inner products (N, N) of the gradients of N samples -> noise over signal, in samples; may be infinite.

    The samples of a prompt, two or more, follow one another; each one's baseline is the mean score of the others.
    """
    G, N = samples_per_prompt, len(gram)
    P = N // G
    blocks_PP = gram.view(P, G, P, G).sum((1, 3))
    own = gram.diagonal().sum().item() / N * (G - 1) / G
    # |mean over prompts of G_p|^2: each prompt with itself, then each with every other.
    within = (blocks_PP.diagonal().sum().item() - gram.diagonal().sum().item()) / (G * (G - 1)) / (1 + (G - 1) ** -2)
    across = (blocks_PP.sum() - blocks_PP.diagonal().sum()).item() / G**2
    signal = (within + across) / P**2
    return (own - signal) / signal if signal > 0 else math.inf


def _of_scores(name: str, scores_PG: Tensor, gram: Tensor) -> NoiseScale:
    G = scores_PG.shape[1]
    advantages_PG = (scores_PG - scores_PG.mean(1, keepdim=True)) * G / (G - 1)
    advantages = advantages_PG.flatten()
    off_diagonal = gram - gram.diagonal().diag()
    generator = torch.Generator().manual_seed(0)
    beaten = 0
    found = advantages @ off_diagonal @ advantages
    for _ in range(PERMUTATIONS):
        order = torch.rand(scores_PG.shape, generator=generator).argsort(1)
        mixed = advantages_PG.gather(1, order).flatten()
        beaten += bool(mixed @ off_diagonal @ mixed >= found)
    return NoiseScale(
        name,
        scores_PG.mean().item(),
        math.sqrt(scores_PG.var(1).mean().item()),
        noise_scale(gram * torch.outer(advantages, advantages), G),
        (1 + beaten) / (1 + PERMUTATIONS),
    )
