"""Shared base of contexts: everything that follows from a policy, the run's tables and a trajectory alone.

`rlzoo.engine.context.Context` adds processes, budgets and checkpoints for runs; `rlzoo.testing.context.LocalContext`
is for unit tests and notebooks. Both sample and draw with the code here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.noise import draw_noise, generator_of, seed_of
from rlzoo.core.policy import Policy
from rlzoo.core.types import Batch, DenoisingBatch, Reduction, Schedule, Trajectory
from rlzoo.engine import rollout, windows
from rlzoo.errors import ConfigError


class SharedContext:
    """A subclass has these attributes, and the rest of `TrainContext`."""

    policy: Policy
    rollout_table: RolloutTable
    train: TrainTable
    dtype: torch.dtype = torch.float32
    """Type of states and log-probabilities."""

    @property
    def device(self) -> torch.device:
        """Device of policy, states and scores."""
        return next(self.policy.parameters()).device

    @property
    def logprob_reduction(self) -> Reduction:
        """`train.logprob_reduction`."""
        return self.train.logprob_reduction

    @property
    def num_steps(self) -> int:
        """K of this run's rollouts."""
        return len(self.policy.schedule(self.rollout_table.num_steps))

    # --- sampling ----------------------------------------------------------------------------------------------------

    def schedule(self, policy: Policy, num_steps: int | None, deterministic: Sequence[int]) -> Schedule:
        """The policy's K steps (default: the run's), with these steps made deterministic, or all as the run says."""
        schedule = policy.schedule(num_steps or self.rollout_table.num_steps)
        every = range(len(schedule)) if self.rollout_table.deterministic else ()
        fixed = torch.tensor([*deterministic, *every], dtype=torch.int64)
        return replace(schedule, stochastic=schedule.stochastic.index_fill(0, fixed, False))

    def plan(
        self,
        rows: rollout.Rows,
        schedule: Schedule,
        kept: tuple[int, ...],
        *,
        grad_steps: int,
        shared_prior: bool,
        probe: tuple[int, ...] = (),
    ) -> rollout.SamplingPlan:
        """Settings for sampling these rows; training windows apply only if states are kept."""
        return rollout.SamplingPlan(
            schedule=schedule,
            seeds=rows.seeds,
            prior_seeds=rows.group_seeds if shared_prior else rows.seeds,
            grad_steps=grad_steps,
            reduction=self.logprob_reduction,
            micro_batch=self.rollout_table.micro_batch,
            micro_batch_frames=self.rollout_table.micro_batch_frames,
            probe=probe,
            window_frames=self.train.window_frames if len(kept) > 1 else 0,
            kept=kept,
            dtype=self.dtype,
        )

    def trajectory(
        self, rows: rollout.Rows, cond: Batch, plan: rollout.SamplingPlan, done: rollout.Rollout, size: int
    ) -> Trajectory:
        """A finished rollout as algorithms see it; `size` counts the rows of all ranks."""
        return Trajectory(
            prompts=rows.prompts,
            group=torch.tensor(rows.group, device=self.device),
            cond=cond,
            schedule=plan.schedule,
            states=done.states,
            kept=plan.kept,
            log_probs=done.log_probs,
            samples=done.samples,
            size=size,
            seeds=rows.seeds,
            window_log_probs=done.window_log_probs,
        )

    # --- training ----------------------------------------------------------------------------------------------------

    def micro_batches(self, rows: int, trajectory: Trajectory | None = None) -> Iterable[Tensor]:
        """Indices of so many rows of a trajectory; see `TrainContext.micro_batches`."""
        if not rows:
            return ()
        size, frames = self.train.micro_batch or rows, self.train.micro_batch_frames
        if frames and trajectory is None:
            raise ConfigError(
                f"train.micro_batch_frames = {frames}, but this algorithm cuts rows without saying of which trajectory",
                "set train.micro_batch instead, or have the algorithm call ctx.micro_batches(rows, trajectory)",
            )
        if trajectory is not None:
            size = rollout.rows_at_once(size, frames, trajectory.states.shape[-1])
        pieces: tuple[Tensor, ...] = torch.arange(rows, device=self.device).split(size)
        return pieces

    def times(self, uniform: Tensor) -> Tensor:
        """Uniform draws (n,) -> training times (n,), as `train.times` says."""
        if self.train.times == "policy":
            return self.policy.sample_times(uniform)
        return self.policy.schedule(self.rollout_table.num_steps).pick(uniform)

    def draw(self, trajectory: Trajectory, purpose: str, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Training times (N,) and noise (N, *S) from each row's own seed and `purpose`; see `TrainContext.draw`."""
        shape, lengths = self.policy.state_shape(trajectory.cond), self.policy.lengths(trajectory.cond).tolist()
        seeds = [seed_of(seed, "draw", purpose) for seed in trajectory.seeds]
        uniform = torch.cat([torch.rand(1, generator=generator_of(seed)) for seed in seeds])
        generators = [generator_of(seed_of(seed, "noise", part)) for seed in seeds]
        noise = draw_noise(generators, shape, lengths)
        evenly = (uniform + part / parts).frac()
        return self.times(evenly.to(self.device, self.dtype)), noise.to(self.device, self.dtype)

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
        """Clean samples with their noise and times, for a denoising loss; see `TrainContext.denoising_batches`."""
        if rows is None:
            rows = torch.arange(len(trajectory), device=self.device)
        for part in range(update * draws, (update + 1) * draws):
            t_N, noise = self.draw(trajectory, purpose, part, updates * draws)
            for index in self.micro_batches(len(rows), trajectory):
                chosen = rows[index]
                states = trajectory.final[chosen], noise[chosen]
                seeds = trajectory.seeds_of(chosen)
                cond, (clean, drawn) = self.crop(f"{purpose} {part}", seeds, trajectory.cond[chosen], *states)
                yield DenoisingBatch(chosen, clean, drawn, t_N[chosen], cond)

    def crop(
        self, purpose: str, seeds: Sequence[int | str], cond: Batch, *states: Tensor
    ) -> tuple[Batch, list[Tensor]]:
        """Cut to one window per row as `train.window_frames` says; see `TrainContext.crop`."""
        return windows.crop_states(self.policy, purpose, seeds, cond, states, self.train.window_frames)
