"""Checks of the first step, before anything is updated: they stop a wrong plugin with the likely cause.

* log-probabilities of the sampler's own steps are finite;
* recomputed as training computes them, they are the same: the ratio is 1;
* the reward reaches the policy: scores with their sign turned give another gradient.

The algorithm's step is rehearsed twice, up to its first gradient, on one set of rollouts and scores, which the real
step then uses again. Every generator, counter and statistic is put back: a run with the checks is one without, to the
last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from rlzoo.core.algorithm import Algorithm, TrainContext
from rlzoo.core.types import Minibatch, Scores, Trajectory
from rlzoo.engine.context import Context
from rlzoo.engine.minibatches import minibatches
from rlzoo.engine.rewards import score_with
from rlzoo.engine.scorecache import CachedReward
from rlzoo.engine.scoring import cut_padding
from rlzoo.errors import ContractError
from rlzoo.functional import group_statistics
from rlzoo.speech.audio import resample_samples

ATTEMPTS = 3
"""Steps in which the reward check is tried while all scores are equal."""
RATIO_TOLERANCE: Mapping[str, float] = {"fp32": 1e-4, "bf16-mixed": 5e-3}
"""Largest |log-ratio| per element. Batches of other sizes round otherwise; dropout or a wrong mask is far above."""
REWARD_TOLERANCE = 0.02
"""Largest change of a score between a batch and the sample alone, as a share of 1 + |score|. Half precision and padding
round; statistics of the batch are far above."""
TRANSITIONS = 8
"""Number of transitions in the checks, spread evenly over rows and steps; all would triple the first step."""
GRADIENT_TOLERANCE = 1e-6
"""Least relative difference of the two gradients; a reward that does not reach the policy gives exactly none."""


def check_updates(algorithm: Algorithm[Any], ctx: Context) -> None:
    """ContractError if the first steps of a run, or all steps of a shorter one, applied no gradient."""
    done = ctx.step + 1
    if ctx.counters.updates == 0 and done >= min(ATTEMPTS, ctx.train.steps):
        raise ContractError(
            f"{type(algorithm).__name__} applied no gradient in its first {'step' if done == 1 else f'{done} steps'}",
            "call ctx.apply_gradients() after the backward passes of each update",
        )


class _FirstGradient(Exception):
    """Ends a rehearsal."""

    def __init__(self, gradient: Tensor) -> None:
        self.gradient = gradient


@dataclass(frozen=True)
class _Call:
    """The result of an expensive call and what else it did."""

    result: Any
    counts: dict[str, int]
    metrics: dict[str, float]
    prompts: int
    """Number of prompts used."""
    trajectory: Trajectory | None
    """Trajectory of a call of `score`."""


@dataclass
class _Tape:
    """Expensive calls in the order they were made."""

    calls: list[_Call] = field(default_factory=list)
    position: int = 0

    def play(self, ctx: Context, make: Callable[[], Any], trajectory: Trajectory | None = None) -> Any:
        """The next result: from the tape, or made and recorded."""
        if self.position == len(self.calls):
            before, known, cursor = _counts(ctx), dict(ctx.metrics), ctx.cursor.position
            result = make()
            counts = {name: value - before[name] for name, value in _counts(ctx).items()}
            metrics = {name: value for name, value in ctx.metrics.items() if known.get(name) != value}
            self.calls.append(_Call(result, counts, metrics, ctx.cursor.position - cursor, trajectory))
        else:
            call = self.calls[self.position]
            result = call.result
            _add(ctx, call.counts)
            ctx.metrics |= call.metrics
            ctx.cursor.position += call.prompts
        self.position += 1
        return result


class _Taped:
    """A context whose rollouts and scores go through a tape. Everything else is the wrapped context's."""

    def __init__(self, ctx: Context, tape: _Tape, sign: float = 1.0) -> None:
        self._ctx, self._tape, self._sign = ctx, tape, sign

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)

    def rollout(self, *args: Any, **options: Any) -> Trajectory:
        """From the tape, unless it carries a graph, which can be used once only."""
        if options.get("grad_steps"):
            return self._ctx.rollout(*args, **options)
        result: Trajectory = self._tape.play(self._ctx, lambda: self._ctx.rollout(*args, **options))
        return result

    def score(self, trajectory: Trajectory, *, grad: bool = False) -> Scores:
        """From the tape, unless a gradient is asked for; with the sign of this pass."""
        scores: Scores = (
            self._ctx.score(trajectory, grad=True)
            if grad
            else self._tape.play(self._ctx, lambda: self._ctx.score(trajectory), trajectory)
        )
        turned = {name: -part for name, part in scores.parts.items()}  # an advantage may be taken of each reward
        return scores if self._sign > 0 else Scores(-scores.values, turned)


class _Rehearsed(_Taped):
    """Takes few transitions, and stops where the first gradient would be applied."""

    def minibatches(self, trajectory: Trajectory) -> Iterator[Minibatch]:
        """A few transitions, spread evenly."""
        ctx = self._ctx
        rows = ctx.rows_of(trajectory)
        return minibatches(ctx.policy, trajectory, rows, ctx.train, ctx.generator, limit=TRANSITIONS)

    def apply_gradients(self) -> float:
        """End the rehearsal with the gradient."""
        raise _FirstGradient(self._ctx.optimisation.gradient(self._ctx.fabric))


class SelfCheck:
    """Runs the checks around the first step, and around the next ones while they could not be made."""

    def __init__(self, algorithm: Algorithm[Any], ctx: Context, *, enabled: bool) -> None:
        self._algorithm = algorithm
        self._ctx = ctx
        self._attempts = ATTEMPTS if enabled else 0

    @contextmanager
    def around_step(self) -> Iterator[tuple[TrainContext, list[str]]]:
        """Check, then yield the context for the step, which reuses the rollouts and scores that the checks have made.

        Yields notes for the user as well. Raises ContractError if a check fails.
        """
        notes: list[str] = []
        if not self._attempts:
            yield self._ctx, notes
            return
        self._attempts -= 1
        tape = _Tape()
        with _unchanged(self._ctx, self._algorithm):
            plain = self._rehearse(tape, 1.0)
            self._check_log_probs(tape)
            self._check_rewards(tape)
            if self._reward_can_be_checked(tape, plain, notes):
                turned = self._rehearse(tape, -1.0)
                assert plain is not None
                _check_gradients(plain, turned, self._algorithm, self._without_density(tape))
                self._attempts = 0
        tape.position = 0
        yield cast(TrainContext, _Taped(self._ctx, tape)), notes

    def _rehearse(self, tape: _Tape, sign: float) -> Tensor | None:
        """The first gradient that the algorithm would apply, or None if its step applies none."""
        tape.position = 0
        with _unchanged(self._ctx, self._algorithm):
            try:
                self._algorithm.step(cast(TrainContext, _Rehearsed(self._ctx, tape, sign)))
            except _FirstGradient as first:
                return first.gradient
        return None

    def _check_log_probs(self, tape: _Tape) -> None:
        ctx = self._ctx
        for trajectory in (call.result for call in tape.calls if isinstance(call.result, Trajectory)):
            bad = ~torch.isfinite(trajectory.log_probs)
            if bad.any():
                k = int(bad.nonzero()[0, 0])
                raise ContractError(
                    f"self-check: the log-probability of the policy's own step k = {k} is not finite",
                    "a step without noise must be marked in Schedule.stochastic; a std of 0 has no density",
                )
            if len(trajectory.kept) > 1:
                self._check_ratio(trajectory)
        ctx.optimisation.discard()

    def _without_density(self, tape: _Tape) -> bool:
        """Whether every step of every rollout is deterministic."""
        found = [call.result for call in tape.calls if isinstance(call.result, Trajectory)]
        return bool(found) and not any(bool(trajectory.schedule.stochastic.any()) for trajectory in found)

    @torch.no_grad()
    def _check_rewards(self, tape: _Tape) -> None:
        """Compare a sample's score among others with its score alone."""
        trajectory = next((call.trajectory for call in tape.calls if call.trajectory is not None), None)
        if trajectory is None or len(trajectory) < 2:
            return
        # The shortest first, which has the most padding among the others.
        by_length = trajectory.samples.lengths.argsort(stable=True)
        rows = by_length[[0, -1] if len(by_length) == 2 else [0, len(by_length) // 2, -1]].cpu()
        prompts = [trajectory.prompts[row] for row in rows.tolist()]
        for scorer in self._ctx.scorers:
            # Without the cache, which would give the same number twice.
            reward = scorer.reward.reward if isinstance(scorer.reward, CachedReward) else scorer.reward
            samples = resample_samples(trajectory.samples[rows].detach(), reward.sample_rate)
            among = float(score_with(reward, scorer.name, samples, prompts).values[0])
            alone = float(score_with(reward, scorer.name, cut_padding(samples[:1]), prompts[:1]).values[0])
            # Written so that a score that is not a number fails.
            if not abs(among - alone) <= REWARD_TOLERANCE * (1 + abs(alone)):
                raise ContractError(
                    f"self-check: reward '{scorer.name}' scores a sample as {among:.4g} among others and as "
                    f"{alone:.4g} alone",
                    "likely causes: normalisation over the batch, a mean over padding, or a random score; run "
                    f"rlzoo plugins check {scorer.name}",
                )

    @torch.no_grad()
    def _check_ratio(self, trajectory: Trajectory) -> None:
        ctx = self._ctx
        if not bool(trajectory.schedule.stochastic.any()):
            return
        elements = float(trajectory.states[0, 0].numel()) if ctx.logprob_reduction == "sum" else 1.0
        worst = torch.zeros((), device=trajectory.states.device)
        rows, generator = ctx.rows_of(trajectory), torch.Generator()
        for minibatch in minibatches(ctx.policy, trajectory, rows, ctx.train, generator, limit=2 * TRANSITIONS):
            for piece in minibatch:
                step = ctx.policy.transition(piece.before, piece.k, piece.cond, trajectory.schedule)
                log_ratio = step.log_prob(piece.after, ctx.logprob_reduction) - piece.log_prob
                # Python's `max` would drop a NaN; `maximum` keeps it, and no comparison with it holds.
                worst = torch.maximum(worst, log_ratio.abs().max() / elements)
            break
        if not float(worst) <= RATIO_TOLERANCE[ctx.train.precision]:
            raise ContractError(
                f"self-check: the ratio is not 1 before the first update (log-ratio {float(worst):.2g} per element)",
                "sampling and training see different policies: dropout or batch statistics, noise drawn inside the "
                "network, rows that depend on their batch mates, or padding that is not masked",
            )

    def _reward_can_be_checked(self, tape: _Tape, gradient: Tensor | None, notes: list[str]) -> bool:
        if not self._algorithm.uses_reward:
            notes.append(
                "self-check: this algorithm declares that no reward reaches its gradient; that was not checked"
            )
            self._attempts = 0
            return False
        if gradient is None:
            notes.append(
                "self-check: the first step applies no gradient; whether the reward reaches it was not checked"
            )
            return False
        scored = [(call.result, call.trajectory) for call in tape.calls if call.trajectory is not None]
        if scored and not any(self._differ(scores, trajectory) for scores, trajectory in scored):
            notes.append(
                "self-check: every prompt's samples score alike, so nothing can be learnt from this step; checked later"
            )
            return False
        return True

    def _differ(self, scores: Scores, trajectory: Trajectory) -> bool:
        """True if scores differ where an algorithm compares them: within a prompt's group, or between groups of one."""
        values, group = self._ctx.gather(scores.values.detach()), self._ctx.gather(trajectory.group)
        if len(group.unique()) == len(group):
            group = torch.zeros_like(group)
        mean, _ = group_statistics(values.double(), group)
        return bool(((values - mean).abs() > 1e-9 * values.abs()).any())


def _check_gradients(plain: Tensor, turned: Tensor | None, algorithm: Algorithm[Any], flat: bool) -> None:
    who = type(algorithm).__name__
    if turned is None:
        raise ContractError(f"self-check: {who} applies a gradient for these scores and none for their negative")
    largest = max(float(plain.norm()), float(turned.norm()))
    if largest == 0.0 and flat:
        raise ContractError(
            f"self-check: the first gradient of {who} is zero: no denoising step of this run has a density",
            "take at least 2 denoising steps (the last has no noise), and more than 0 of the policy's noise",
        )
    if largest == 0.0:
        raise ContractError(
            f"self-check: the first gradient of {who} is zero",
            "likely causes: the loss is detached from the policy, a clamp whose argument lies outside its bounds, or "
            "advantages that are all zero (train.advantage, rollout.samples_per_prompt)",
        )
    if float((plain - turned).norm()) <= GRADIENT_TOLERANCE * largest:
        raise ContractError(
            f"self-check: the reward does not reach the policy: {who} gives the same gradient for the scores and for "
            "their negative",
            "likely causes: a clamp of a difference of log-probabilities, which is never near 1 (use exp, then clip), "
            "scores that the loss ignores or multiplies with a detached factor, or advantages that are all zero",
        )


@contextmanager
def _unchanged(ctx: Context, algorithm: Algorithm[Any]) -> Iterator[None]:
    """Put back everything that a step moves."""
    generator, cursor = ctx.generator.get_state(), ctx.cursor.state_dict()
    history, metrics = copy.deepcopy(ctx.history), dict(ctx.metrics)
    counters, state = ctx.counters.state_dict(), copy.deepcopy(algorithm.state_dict())
    cuda = [ctx.device.index or 0] if ctx.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        ctx.generator.set_state(generator)
        ctx.cursor.load_state_dict(cursor)
        ctx.history, ctx.metrics = history, metrics
        ctx.counters.load_state_dict(counters)
        algorithm.load_state_dict(state)
        ctx.optimisation.discard()


def _counts(ctx: Context) -> dict[str, int]:
    names = ("samples", "reward_calls", "local_evaluations")
    return {name: getattr(ctx.counters, name) for name in names}


def _add(ctx: Context, added: Mapping[str, int]) -> None:
    for name, count in added.items():
        setattr(ctx.counters, name, getattr(ctx.counters, name) + count)
