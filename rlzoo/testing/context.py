"""A `TrainContext` in one process and in memory: for unit tests of an algorithm and for notebooks.

It keeps the dtype of the policy, so that a step can be compared with a plain float64 reference, keeps the last gradient
to look at, writes nothing and saves nothing. Runs use `rlzoo.engine` instead, which adds devices, processes, budgets,
checkpoints and checks; both sample with the same code.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.algorithm import Normalisation
from rlzoo.core.policy import Policy
from rlzoo.core.reward import Reward
from rlzoo.core.types import Minibatch, Prompt, Samples, Scores, Trajectory
from rlzoo.engine import rollout
from rlzoo.engine.advantages import advantages
from rlzoo.engine.minibatches import minibatches
from rlzoo.engine.shared import SharedContext
from rlzoo.errors import DataError
from rlzoo.functional import frozen_copy


class LocalContext(SharedContext):
    """Context in memory for an algorithm's steps.

    `weight` = -1 asks for the opposite of the reward; `update` = False leaves the weights as they are, so that only
    `gradients`, the last gradient by parameter name before clipping, tells what a step would do.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward[Any],
        prompts: Sequence[Prompt],
        *,
        rollout: RolloutTable | None = None,
        train: TrainTable | None = None,
        weight: float = 1.0,
        recordings: Samples | None = None,
        seed: int = 0,
        update: bool = True,
    ) -> None:
        self.policy = policy.eval()
        self.reference: Policy = frozen_copy(policy)
        self.rollout_table, self.train = rollout or RolloutTable(), train or TrainTable()
        self.dtype = next(policy.parameters()).dtype
        self.seed = seed
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            policy.parameters(),
            lr=self.train.learning_rate,
            betas=self.train.adam_betas,
            eps=self.train.adam_eps,
            weight_decay=self.train.weight_decay,
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0
        self.update = update
        self.gradients: dict[str, Tensor] = {}
        self._reward, self._weight = reward, weight
        self._prompts, self._recordings = list(prompts), recordings
        self._cursor = 0
        self._history: dict[str, list[float]] = {}

    def next_prompts(self, count: int | None = None) -> list[Prompt]:
        """The next prompts in their given order, round and round."""
        count = self.rollout_table.prompts_per_step if count is None else count
        chosen = [self._prompts[(self._cursor + i) % len(self._prompts)] for i in range(count)]
        self._cursor = (self._cursor + count) % len(self._prompts)
        return chosen

    def rollout(
        self,
        prompts: Sequence[Prompt] | None = None,
        *,
        samples_per_prompt: int | None = None,
        num_steps: int | None = None,
        keep: Literal["all", "final"] = "all",
        grad_steps: int = 0,
        policy: Policy | None = None,
        deterministic: Sequence[int] = (),
        shared_prior: bool = False,
    ) -> Trajectory:
        """See `TrainContext`."""
        sampler = policy or self.policy
        all_prompts = self.next_prompts() if prompts is None else list(prompts)
        repeats = samples_per_prompt or self.rollout_table.samples_per_prompt
        schedule = self.schedule(sampler, num_steps, deterministic)
        rows = rollout.rows_of(all_prompts, range(len(all_prompts)), repeats, self.seed, self.step)
        kept = tuple(range(len(schedule) + 1)) if keep == "all" else (len(schedule),)
        plan = self.plan(rows, schedule, kept, grad_steps=grad_steps, shared_prior=shared_prior)
        with torch.no_grad():
            cond = sampler.condition(all_prompts).repeat(repeats)
        return self.trajectory(rows, cond, plan, rollout.sample(sampler, cond, plan), len(cond))

    def score(self, trajectory: Trajectory, *, grad: bool = False) -> Scores:
        """See `TrainContext`."""
        with nullcontext() if grad else torch.no_grad():
            scores = self._reward.score(trajectory.samples, trajectory.prompts)
        return Scores(self._weight * scores.values, scores.parts)

    def recordings(self, prompts: Sequence[Prompt]) -> Samples:
        """The recordings given to the constructor, in the order of its prompts."""
        if self._recordings is None:
            raise DataError("this prompt set has no recordings", "choose a prompt set with recordings")
        order = [prompt.id for prompt in self._prompts]
        chosen = self._recordings[[order.index(prompt.id) for prompt in prompts]]
        # As wide as the longest of them, as the engine reads them.
        return Samples(chosen.data[:, : int(chosen.lengths.max())], chosen.lengths, chosen.media)

    def advantages(
        self, scores: Scores | Tensor, trajectory: Trajectory, normalise: Normalisation | None = None
    ) -> Tensor:
        """See `TrainContext`."""
        values = scores.values if isinstance(scores, Scores) else scores
        mode = normalise or self.train.advantage
        keys = torch.tensor([zlib.crc32(prompt.id.encode()) for prompt in trajectory.prompts])
        found, self._history = advantages(
            values[None], torch.ones(1), self.train, mode, lambda: trajectory.group, lambda: keys, self._history
        )
        return found

    def minibatches(self, trajectory: Trajectory) -> Iterator[Minibatch]:
        """Shuffled stochastic transitions as `train` says; with `micro_batch` = 0 each minibatch is one piece."""
        everything = len(trajectory) * len(trajectory.schedule)
        table = self.train.model_copy(update={"micro_batch": self.train.micro_batch or everything})
        return minibatches(self.policy, trajectory, range(len(trajectory)), table, self.generator)

    def share(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """One process: all of them."""
        return list(prompts)

    def gather(self, values: Tensor) -> Tensor:
        """One process: the values themselves."""
        return values

    def apply_gradients(self) -> float:
        """See `TrainContext`."""
        named = self.policy.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.train.grad_clip)
        if self.update:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)
