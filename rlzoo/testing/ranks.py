"""Several processes in one: an algorithm's step on R ranks that are threads, each with its own copy of the policy.

The threads meet at every `gather` and `apply_gradients`, as processes do, so a step that forgets to exchange
something, or divides by its own rows instead of all, gives other weights than one rank.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlzoo.core.algorithm import Algorithm, Normalisation
from rlzoo.core.types import Minibatch, Prompt, Scores, Trajectory, Transitions
from rlzoo.testing.context import LocalContext


class Exchange:
    """A mailbox where all ranks meet; `swap` gives everybody everybody's value, in rank order."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._values: list[Any] = [None] * ranks
        self._barrier = threading.Barrier(ranks, timeout=60)

    def swap(self, rank: int, value: Any) -> list[Any]:
        """Collective; BrokenBarrierError where the ranks do not all come."""
        self._values[rank] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def abort(self) -> None:
        """Wake the others up: this rank will not come."""
        self._barrier.abort()


class RankContext(LocalContext):
    """One rank's view: all rows are sampled alike everywhere, and each rank keeps those of its share of the prompts."""

    rank: int = 0
    exchange: Exchange

    def join(self, rank: int, exchange: Exchange) -> RankContext:
        """Become this rank."""
        self.rank, self.exchange = rank, exchange
        return self

    def _own(self, count: int) -> slice:
        return slice(count * self.rank // self.exchange.ranks, count * (self.rank + 1) // self.exchange.ranks)

    def share(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """See `TrainContext`."""
        return list(prompts)[self._own(len(prompts))]

    def rollout(self, *args: Any, **options: Any) -> Trajectory:
        """See `TrainContext`."""
        whole = super().rollout(*args, **options)
        groups = int(whole.group.max()) + 1
        mine = self._own(groups)
        rows = ((whole.group >= mine.start) & (whole.group < mine.stop)).nonzero().flatten()
        index = rows.tolist()
        return replace(
            whole,
            prompts=tuple(whole.prompts[i] for i in index),
            group=whole.group[rows],
            cond=whole.cond[rows],
            states=whole.states[:, rows],
            log_probs=whole.log_probs[:, rows],
            samples=whole.samples[rows],
            seeds=tuple(whole.seeds[i] for i in index),
        )

    def gather(self, values: Tensor) -> Tensor:
        """See `TrainContext`."""
        return torch.cat(self.exchange.swap(self.rank, values.detach()))

    def advantages(
        self, scores: Scores | Tensor, trajectory: Trajectory, normalise: Normalisation | None = None
    ) -> Tensor:
        """See `TrainContext`."""
        values = scores.values if isinstance(scores, Scores) else scores
        shares = self.exchange.swap(self.rank, (values.detach(), trajectory.group, trajectory.prompts))
        whole = replace(
            trajectory,
            group=torch.cat([group for _, group, _ in shares]),
            prompts=tuple(prompt for _, _, prompts in shares for prompt in prompts),
        )
        all_values = super().advantages(torch.cat([part for part, _, _ in shares]), whole, normalise)
        first = sum(len(part) for part, _, _ in shares[: self.rank])
        return all_values[first : first + len(values)]

    def minibatches(self, trajectory: Trajectory) -> Iterator[Minibatch]:
        """One minibatch of all transitions; its size counts those of all ranks."""
        steps = trajectory.schedule.stochastic.nonzero().flatten()
        k, row = torch.cartesian_prod(steps, torch.arange(len(trajectory))).unbind(1)
        before, after = trajectory.state(k, row).detach(), trajectory.state(k + 1, row).detach()
        piece = Transitions(row, k, before, after, trajectory.cond[row], trajectory.log_probs[k, row])
        yield Minibatch([piece], sum(self.exchange.swap(self.rank, len(k))))

    def apply_gradients(self) -> float:
        """See `TrainContext`."""
        parameters = list(self.policy.parameters())
        mine = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        shares = self.exchange.swap(self.rank, mine)
        for parameter, *parts in zip(parameters, *shares, strict=True):
            parameter.grad = torch.stack(parts).sum(0)
        return super().apply_gradients()


def step_on_ranks(
    make_algorithm: Callable[[], Algorithm[Any]], make_context: Callable[[], RankContext], ranks: int, steps: int
) -> list[RankContext]:
    """Some steps of the algorithm on threads; returns every rank's context. Raises what a failing rank raised."""
    exchange, errors = Exchange(ranks), list[BaseException]()
    contexts = [make_context().join(rank, exchange) for rank in range(ranks)]
    algorithms = [make_algorithm() for _ in range(ranks)]
    for algorithm, ctx in zip(algorithms, contexts, strict=True):
        algorithm.setup(ctx)

    def work(rank: int) -> None:
        try:
            for _ in range(steps):
                algorithms[rank].step(contexts[rank])
                contexts[rank].step += 1
        except BaseException as error:
            errors.append(error)
            exchange.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return contexts
