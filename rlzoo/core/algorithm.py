"""The algorithm interface and what the engine gives to an algorithm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from rlzoo.core.policy import Policy
from rlzoo.core.specs import Options
from rlzoo.core.types import Batch, DenoisingBatch, Minibatch, Prompt, Reduction, Samples, Scores, Trajectory

O = TypeVar("O", bound=Options)
Normalisation = Literal["prompt", "group", "batch", "none"]


class TrainContext(Protocol):
    """The engine, as an algorithm sees it. Every call counts against the budget by itself."""

    @property
    def policy(self) -> Policy:
        """The policy that is trained; in eval mode, so that sampling and training see the same network."""
        ...

    @property
    def reference(self) -> Policy:
        """A frozen copy of the starting weights."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def generator(self) -> torch.Generator:
        """CPU generator, the same on every rank; saved in checkpoints."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def step(self) -> int:
        """Index of this optimisation step, from 0."""
        ...

    @property
    def logprob_reduction(self) -> Reduction:
        """Reduction over a state's elements of every log-probability and KL of this run."""
        ...

    @property
    def num_steps(self) -> int:
        """K of this run's rollouts."""
        ...

    def next_prompts(self, count: int | None = None) -> list[Prompt]:
        """The next prompts of the epoch, the same on every rank; default `rollout.prompts_per_step`."""
        ...

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
        """Sample G rows for each prompt (this rank's share of them).

        `keep="final"` stores no intermediate states; `grad_steps` keeps the graph through the last so many steps;
        `deterministic` lists steps k that take the mode instead of a draw; `shared_prior` starts a group from one
        noise.
        """
        ...

    def score(self, trajectory: Trajectory, *, grad: bool = False) -> Scores:
        """Weighted sum of the run's rewards, (N,); raises ContractError on a wrong shape, Diverged on NaN."""
        ...

    def recordings(self, prompts: Sequence[Prompt]) -> Samples:
        """The recordings of these prompts at the policy's rate; DataError if the prompt set has none."""
        ...

    def advantages(
        self, scores: Scores | Tensor, trajectory: Trajectory, normalise: Normalisation | None = None
    ) -> Tensor:
        """Scores of `score`, or (N,) own values -> (N,) advantages as `train.advantage` and its companions
        say, clipped to +-`train.advantage_clip`.

        Statistics run over all ranks; those per prompt survive checkpoints. Of values of one's own the single rewards
        are not known: `train.advantage_per_reward` does not change them.
        """
        ...

    def minibatches(self, trajectory: Trajectory) -> Iterable[Minibatch]:
        """Shuffled stochastic transitions as `train.inner_epochs`, `train.minibatch`, `train.step_selection` say."""
        ...

    def micro_batches(self, rows: int) -> Iterable[Tensor]:
        """Indices 0 ... `rows` - 1, (n,) int64, `train.micro_batch` at a time: what fits in memory."""
        ...

    def denoising_batches(
        self,
        trajectory: Trajectory,
        purpose: str,
        *,
        update: int = 0,
        updates: int = 1,
        draws: int = 1,
        rows: Tensor | None = None,
    ) -> Iterable[DenoisingBatch]:
        """Micro-batches of this rank's clean samples with times and noise, for a denoising loss.

        Each row comes `draws` times in each of `updates` gradient updates; this is update number `update`. All times of
        a row lie evenly apart (see `draw`). `rows` (m,) int64 restricts it to some rows. The same arguments give the
        same batches again.
        """
        ...

    def share(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """This rank's share of prompts that all ranks know; for work that starts without a rollout."""
        ...

    def times(self, uniform: Tensor) -> Tensor:
        """Uniform draws (n,) in [0, 1) -> training times (n,), as `train.times` says."""
        ...

    def draw(self, trajectory: Trajectory, purpose: str, part: int = 0, parts: int = 1) -> tuple[Tensor, Tensor]:
        """Training times t (N,) and noise (N, *S) for `denoising_loss`, from each row's own seed and `purpose`.

        Whoever draws `parts` times for the same rows counts them with `part`: each row's uniform draws then lie evenly
        apart (low-discrepancy times, Kingma et al., arXiv:2107.00630), so that no row sees more of the noisy ones.
        """
        ...

    def crop(
        self, purpose: str, seeds: Sequence[int | str], cond: Batch, *states: Tensor
    ) -> tuple[Batch, list[Tensor]]:
        """Conditioning and states (n, *S) cut to one window per row as `train.window_frames` says; else as they are.

        Transitions and denoising batches come cropped. A row's window depends on its seed and `purpose` alone.
        """
        ...

    def gather(self, values: Tensor) -> Tensor:
        """(N,) of this rank -> (N over all ranks,), in rank order."""
        ...

    def apply_gradients(self) -> float:
        """Sum gradients over ranks, clip, step, zero, update the EMA; returns the norm before clipping."""
        ...


class Algorithm(ABC, Generic[O]):
    """An RL algorithm. Read `step` top to bottom: it is the paper's box."""

    uses_reward: bool = True
    """False if no score enters the loss (supervised controls): the engine then checks no reward's way to it."""

    def __init__(self, options: O) -> None:
        self.options = options

    def setup(self, ctx: TrainContext) -> None:
        """Build value heads, old copies, running statistics. Called once, before the first step or a resume."""

    @abstractmethod
    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """One optimisation iteration; returns metrics named `group/name`."""

    def state_dict(self) -> dict[str, Any]:
        """Whatever `setup` built and a resumed run needs: tensors and plain values only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
