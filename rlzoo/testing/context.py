"""A `TrainContext` in one process and in memory: for unit tests of an algorithm and for notebooks.

It keeps the dtype of the policy, so that a step can be compared with a plain float64 reference, keeps the last gradient
to look at, writes nothing and saves nothing. Runs use `rlzoo.engine` instead, which adds devices, processes, budgets,
checkpoints and checks.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.algorithm import Normalisation
from rlzoo.core.policy import Policy
from rlzoo.core.reward import Reward
from rlzoo.core.types import Batch, DenoisingBatch, Minibatch, Prompt, Reduction, Samples, Scores, Trajectory
from rlzoo.engine.advantages import advantages
from rlzoo.engine.denoising import denoising_batches
from rlzoo.engine.windows import crop_states, transitions, windows_of
from rlzoo.errors import DataError
from rlzoo.functional import (
    frozen_copy,
    row_noise,
    row_uniform,
)


class LocalContext:
    """What an algorithm needs for one step after another.

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
        self.tables = (rollout or RolloutTable(), train or TrainTable())
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            policy.parameters(), lr=self.tables[1].learning_rate, weight_decay=self.tables[1].weight_decay
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.device = next(policy.parameters()).device
        self.step = 0
        self.update = update
        self.gradients: dict[str, Tensor] = {}
        self._reward, self._weight = reward, weight
        self._prompts, self._recordings = list(prompts), recordings
        self._cursor = 0
        self._history: dict[str, list[float]] = {}

    @property
    def logprob_reduction(self) -> Reduction:
        """See `TrainContext`."""
        return self.tables[1].logprob_reduction

    @property
    def num_steps(self) -> int:
        """See `TrainContext`."""
        return len(self.policy.schedule(self.tables[0].num_steps))

    def next_prompts(self, count: int | None = None) -> list[Prompt]:
        """The next prompts in their given order, round and round."""
        count = self.tables[0].prompts_per_step if count is None else count
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
        policy = policy or self.policy
        prompts = self.next_prompts() if prompts is None else list(prompts)
        repeats = samples_per_prompt or self.tables[0].samples_per_prompt
        with torch.no_grad():
            cond = policy.condition(prompts).repeat(repeats)
        schedule = policy.schedule(num_steps or self.tables[0].num_steps)
        schedule.stochastic[list(deterministic)] = False
        rows, steps, shape = len(cond), len(schedule), policy.state_shape(cond)
        group = torch.arange(len(prompts)).repeat_interleave(repeats)
        dtype, mask = next(policy.parameters()).dtype, policy.mask(cond)
        draw = partial(torch.randn, rows, *shape, generator=self.generator, dtype=dtype)
        x = draw()
        x = x[group * repeats] if shared_prior else x
        x = x if mask is None else x * mask
        noises = [draw() for _ in range(steps)]
        seeds = tuple(torch.randint(2**62, (rows,), generator=self.generator).tolist())
        size = self.tables[1].window_frames if keep == "all" else 0
        windows = windows_of(policy, cond, seeds, steps, size) if size else []
        states, log_probs, in_windows = [x], [], []
        for k, noise in enumerate(noises):
            with nullcontext() if k >= steps - grad_steps else torch.no_grad():
                k_N = torch.full((rows,), k)
                if windows:
                    dist, window = windows[k].step(policy, x, k_N, cond, schedule)
                else:
                    dist, window = policy.transition(x, k_N, cond, schedule), None
                x = dist.rsample(noise) if schedule.stochastic[k] else dist.mode
                log_prob = dist.log_prob(x, self.logprob_reduction) if schedule.stochastic[k] else x.new_zeros(rows)
            log_probs.append(log_prob.detach())
            if window is not None:
                in_windows.append(window.log_prob(windows[k].place.cut(x)) if schedule.stochastic[k] else log_prob)
            states = [*states, x] if keep == "all" else [x]
        with nullcontext() if grad_steps else torch.no_grad():
            samples = policy.decode(x, cond)
        return Trajectory(
            prompts=tuple(prompt for prompt in prompts for _ in range(repeats)),
            group=group,
            cond=cond,
            schedule=schedule,
            states=torch.stack(states),
            kept=tuple(range(steps + 1)) if keep == "all" else (steps,),
            log_probs=torch.stack(log_probs),
            samples=samples,
            size=rows,
            seeds=seeds,
            window_log_probs=torch.stack(in_windows).detach() if size else None,
        )

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
        return self._recordings[[order.index(prompt.id) for prompt in prompts]]

    def advantages(self, values: Tensor, trajectory: Trajectory, normalise: Normalisation | None = None) -> Tensor:
        """See `TrainContext`."""
        table = self.tables[1]
        mode = normalise or table.advantage
        keys = torch.tensor([zlib.crc32(prompt.id.encode()) for prompt in trajectory.prompts])
        found, self._history = advantages(
            values, mode, table.advantage_clip, lambda: trajectory.group, lambda: keys, self._history
        )
        return found

    def minibatches(self, trajectory: Trajectory) -> Iterator[Minibatch]:
        """All stochastic transitions, shuffled, `train.minibatch` at a time; `step_selection` is not looked at."""
        steps = trajectory.schedule.stochastic.nonzero().flatten()
        pairs = torch.cartesian_prod(steps, torch.arange(len(trajectory)))
        for _ in range(self.tables[1].inner_epochs):
            order = torch.randperm(len(pairs), generator=self.generator)
            for chosen in pairs[order].split(self.tables[1].minibatch or len(pairs)):
                k, row = chosen.unbind(1)
                piece = transitions(self.policy, trajectory, row, k, self.tables[1].window_frames)
                yield Minibatch([piece], len(chosen))

    def micro_batches(self, rows: int) -> Iterable[Tensor]:
        """Indices of so many rows, `train.micro_batch` at a time."""
        return torch.arange(rows).split(self.tables[1].micro_batch or rows) if rows else ()

    def denoising_batches(
        self,
        trajectory: Trajectory,
        purpose: str,
        *,
        update: int = 0,
        updates: int = 1,
        draws: int = 1,
        rows: Tensor | None = None,
    ) -> Iterator[DenoisingBatch]:
        """See `TrainContext.denoising_batches`."""
        return denoising_batches(self, trajectory, purpose, update, updates, draws, rows)

    def share(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """One process: all of them."""
        return list(prompts)

    def times(self, uniform: Tensor) -> Tensor:
        """See `TrainContext`."""
        if self.tables[1].times == "policy":
            return self.policy.sample_times(uniform)
        return self.policy.schedule(self.tables[0].num_steps).pick(uniform)

    def draw(self, trajectory: Trajectory, purpose: str, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """See `TrainContext`."""
        final = trajectory.final
        uniform = (row_uniform(trajectory.seeds, f"time of {purpose}") + part / parts).frac().to(final)
        noise = row_noise(trajectory.seeds, f"{purpose} {part}", final.shape[1:]).to(final)
        return self.times(uniform), noise

    def crop(
        self, purpose: str, seeds: Sequence[int | str], cond: Batch, *states: Tensor
    ) -> tuple[Batch, list[Tensor]]:
        """See `TrainContext`."""
        return crop_states(self.policy, purpose, seeds, cond, states, self.tables[1].window_frames)

    def gather(self, values: Tensor) -> Tensor:
        """One process: the values themselves."""
        return values

    def apply_gradients(self) -> float:
        """See `TrainContext`."""
        named = self.policy.named_parameters()
        self.gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.tables[1].grad_clip)
        if self.update:
            self.optimizer.step()
        self.optimizer.zero_grad()
        return float(norm)
