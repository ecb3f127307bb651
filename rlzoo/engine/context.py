"""The engine as an algorithm sees it: implements `rlzoo.api.TrainContext` and counts everything that is used."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor

from rlzoo import functional
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.algorithm import Normalisation
from rlzoo.core.noise import seed_of
from rlzoo.core.policy import Policy
from rlzoo.core.prompts import PromptSet
from rlzoo.core.types import Minibatch, Prompt, Samples, Schedule, Scores, Trajectory
from rlzoo.engine import divergence, processes, rollout, scoring
from rlzoo.engine.advantages import advantages
from rlzoo.engine.budget import Counters
from rlzoo.engine.events import Observer, Progress
from rlzoo.engine.minibatches import minibatches
from rlzoo.engine.optimisation import Optimisation
from rlzoo.engine.prompts import Cursor
from rlzoo.engine.shared import SharedContext
from rlzoo.errors import ConfigError, ContractError

if TYPE_CHECKING:
    from rlzoo.engine.prefetch import ScorePrefetcher


@dataclass(eq=False)
class Context(SharedContext):
    """One run's state between checkpoints. Collective calls are made by all processes in the same order."""

    fabric: Fabric
    policy: Policy
    starting: Mapping[str, Tensor]
    """Weights and buffers before the first update, on the CPU."""
    optimisation: Optimisation
    prompts: PromptSet
    scorers: Sequence[scoring.Scorer]
    seed: int
    rollout_table: RolloutTable
    train: TrainTable
    counters: Counters
    cursor: Cursor
    failures: Path
    observer: Observer
    rewarded: bool = True
    """True if the algorithm asks for scores."""
    step: int = 0
    generator: torch.Generator = field(default_factory=torch.Generator)
    history: dict[str, list[float]] = field(default_factory=dict)
    """Scores of each prompt that `advantages` has seen last."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Core's metrics of the current step."""
    _reference: Policy | None = None
    _ahead: tuple[Samples, ScorePrefetcher] | None = None
    """The last rollout's samples and the scores that were begun beside it."""

    # --- what an algorithm reads -------------------------------------------------------------------------------------

    @property
    def reference(self) -> Policy:
        """A frozen copy of the starting weights; made when it is first used."""
        if self._reference is None:
            self._reference = functional.frozen_copy(self.policy)
            self._reference.load_state_dict(self.starting)
        return self._reference

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the policy's trainable parameters; an algorithm may add groups in `setup`."""
        return self.optimisation.optimizer

    @property
    def device(self) -> torch.device:
        """Device of policy, states and scores."""
        return self.fabric.device

    def next_prompts(self, count: int | None = None) -> list[Prompt]:
        """The next prompts of the epoch, the same on every rank."""
        return self.cursor.take(self.rollout_table.prompts_per_step if count is None else count)

    # --- sampling ----------------------------------------------------------------------------------------------------

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
        """Sample this rank's share of the prompts; see `TrainContext.rollout`.

        Two rollouts of the same prompts in one step use the same noise, so that policies can be compared pairwise.
        """
        all_prompts = list(self.next_prompts() if prompts is None else prompts)
        G = samples_per_prompt or self.rollout_table.samples_per_prompt
        mine = self._share(all_prompts)
        sampler = self.policy if policy is None else policy
        schedule = self.schedule(sampler, num_steps, deterministic)
        rows = rollout.rows_of(all_prompts, mine, G, self.seed, self.step)
        probe = self._probe(schedule, rows.seeds)
        kept = rollout.around_densities(schedule.stochastic) if keep == "all" else (len(schedule),)
        plan = self.plan(rows, schedule, kept, grad_steps=grad_steps, shared_prior=shared_prior, probe=probe)
        with torch.no_grad():
            cond = sampler.condition([all_prompts[b] for b in mine]).to(self.device).repeat(G)
        progress = self._progress("sampling", len(rows.seeds) * len(schedule))
        ahead = None if grad_steps else self._score_ahead(rows.prompts)
        done = rollout.sample(sampler, cond, plan, progress, ahead.add if ahead else None)
        self._ahead = (done.samples, ahead) if ahead else None
        trajectory = self.trajectory(rows, cond, plan, done, len(all_prompts) * G)
        self.counters.samples += trajectory.size
        if done.probed is not None:
            k, table = torch.tensor(probe, device=self.device), self.rollout_table
            size = rollout.rows_at_once(table.micro_batch, table.micro_batch_frames, done.states.shape[-1])
            measured = divergence.rows(len(all_prompts), G, len(rows.seeds))
            kl = divergence.measure(self.policy, self.reference, cond, schedule, measured, done.probed, k, size)
            mean, total = self.gather(kl).double().mean(0).tolist()
            self.metrics |= {"policy/kl": mean, "policy/kl_nats": total}
        return trajectory

    def _score_ahead(self, prompts: Sequence[Prompt]) -> ScorePrefetcher | None:
        if self._ahead is not None:
            self._ahead[1].close()  # nobody asked for them
        wanted = self.rollout_table.score_ahead
        wanted = self.device.type == "cuda" if wanted == "auto" else wanted
        size = self.rollout_table.micro_batch
        if not wanted or not self.rewarded or len(prompts) <= size:
            return None
        from rlzoo.engine.prefetch import ScorePrefetcher

        return ScorePrefetcher(self.scorers, prompts, size, self.failures, self.device)

    def _share(self, prompts: Sequence[Prompt]) -> range:
        if len(prompts) < self.fabric.world_size:
            raise ConfigError(
                f"{len(prompts)} prompts cannot be shared by {self.fabric.world_size} processes",
                "raise rollout.prompts_per_step, or start fewer processes",
            )
        return rollout.share(len(prompts), self.fabric.global_rank, self.fabric.world_size)

    def _progress(self, phase: str, total: int) -> Any:
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            self.observer(Progress(phase, done, total))

        return advance

    def _probe(self, schedule: Schedule, seeds: Sequence[int]) -> tuple[int, ...]:
        """Rollout in which the KL of this step is measured: the first one, if it is due."""
        due = self.train.kl_every and self.step % self.train.kl_every == 0 and "policy/kl" not in self.metrics
        return divergence.probe(schedule, seeds) if due else ()

    # --- scores ------------------------------------------------------------------------------------------------------

    def score(self, trajectory: Trajectory, *, grad: bool = False) -> Scores:
        """Weighted sum of the run's rewards, (N,); see `TrainContext.score`."""
        samples = trajectory.samples if grad else trajectory.samples.detach()
        with torch.set_grad_enabled(grad):
            if self._ahead is not None and self._ahead[0] is trajectory.samples and not grad:
                scored, self._ahead = self._ahead[1].result(), None
            else:
                scored = scoring.score(
                    self.scorers,
                    samples,
                    trajectory.prompts,
                    self.rollout_table.micro_batch,
                    self.failures,
                    self._progress("scoring", len(trajectory)),
                )
            total = scoring.total(self.scorers, scored)
        if grad and not total.requires_grad:
            raise ContractError(
                "the score carries no gradient, although the algorithm asked for one",
                "a reward that offers reward-grad must keep the graph; see rlzoo plugins check",
            )
        self.counters.reward_calls += trajectory.size
        self._log_scores(total, scored)
        return Scores(total, {s.name: v for s, v in zip(self.scorers, scored.values, strict=True)})

    def _log_scores(self, total: Tensor, scored: scoring.Scored) -> None:
        columns = [scorer.name for scorer in self.scorers] + list(scored.parts)
        values = torch.stack([total, *scored.values], 1).detach().cpu()  # in one copy; parts are there already
        table = self.gather(torch.cat([values, *(part.to(values)[:, None] for part in scored.parts.values())], 1))
        for name, column in zip(["total", *columns], table.unbind(1), strict=True):
            figures = scoring.summary(column)
            self.metrics[f"reward/{name}"] = figures["mean"]
            self.metrics[f"reward/{name}_std"] = figures["std"]
        hits, rows = self.gather(torch.tensor([scoring.cache_use(self.scorers)])).sum(0).tolist()
        if rows:
            self.metrics["cache/hit_rate"] = hits / rows

    def recordings(self, prompts: Sequence[Prompt]) -> Samples:
        """The recordings of these prompts at the policy's rate."""
        return self.prompts.recordings(prompts, self.policy.media.sample_rate).to(self.device)

    def advantages(
        self, scores: Scores | Tensor, trajectory: Trajectory, normalise: Normalisation | None = None
    ) -> Tensor:
        """(N,) -> (N,) as `train.advantage` and its companions say; see `TrainContext.advantages`."""
        values = scores.values if isinstance(scores, Scores) else scores
        terms, weights = [values], [1.0]
        if isinstance(scores, Scores) and self.train.advantage_per_reward:
            terms = [scores.parts[scorer.name] for scorer in self.scorers]
            weights = [scorer.weight for scorer in self.scorers]
        all_advantages, self.history = advantages(
            self.gather(torch.stack(terms, 1).detach()).t(),
            torch.tensor(weights),
            self.train,
            normalise or self.train.advantage,
            lambda: self.gather(trajectory.group),
            # Hashes, because ranks exchange tensors and know only their own prompts.
            lambda: self.gather(torch.tensor([seed_of(prompt.id) for prompt in trajectory.prompts])),
            self.history,
        )
        rows = self.rows_of(trajectory)
        return all_advantages[rows.start : rows.stop]

    def rows_of(self, trajectory: Trajectory) -> range:
        """Indices of this rank's rows among those of all ranks. Collective."""
        sizes = self.gather(torch.tensor([len(trajectory)], device=self.device)).tolist()
        first = sum(sizes[: self.fabric.global_rank])
        return range(first, first + len(trajectory))

    # --- training ----------------------------------------------------------------------------------------------------

    def minibatches(self, trajectory: Trajectory) -> Iterable[Minibatch]:
        """Shuffled stochastic transitions as `[train]` says."""
        if not set(rollout.around_densities(trajectory.schedule.stochastic)) <= set(trajectory.kept):
            raise ContractError("this trajectory kept only its final state", 'call rollout(keep="all")')
        return minibatches(self.policy, trajectory, self.rows_of(trajectory), self.train, self.generator)

    def share(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """This rank's share of prompts that all ranks know."""
        return [prompts[b] for b in self._share(prompts)]

    def gather(self, values: Tensor) -> Tensor:
        """(N, ...) of this rank -> (N over all ranks, ...), in rank order."""
        return processes.gather(self.fabric, values)

    def apply_gradients(self) -> float:
        """Sum gradients over ranks, clip, step, zero, update the EMA; returns the norm before clipping."""
        norm = self.optimisation.apply(self.fabric, self.step)
        self.counters.updates += 1
        self.metrics["optim/grad_norm"] = norm
        return norm

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything here that a resumed run needs, the policy's weights aside."""
        return {
            "step": self.step,
            "generator": self.generator.get_state(),
            "cursor": self.cursor.state_dict(),
            "history": copy.deepcopy(self.history),
            "counters": self.counters.state_dict(),
            "optimisation": self.optimisation.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; the policy holds its trained weights already."""
        self.step = state["step"]
        self.generator.set_state(state["generator"])
        self.cursor.load_state_dict(state["cursor"])
        self.history = {key: list(past) for key, past in state["history"].items()}
        self.counters.load_state_dict(state["counters"])
        self.optimisation.load_state_dict(state["optimisation"])
