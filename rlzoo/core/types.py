"""The data that moves between policies, rewards, algorithms and the engine.

Legend: **B** prompts, **G** samples per prompt, **N** = B·G rows, **K** denoising steps, **S** one state's shape
(`(L,)` for a waveform, `(D,)` for a vector), **M** rows of a minibatch of transitions.
Step index k = 0 ... K-1 counts RL steps, noisiest first; `states[K]` is clean.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from rlzoo.errors import ContractError

Reduction = Literal["mean", "sum"]


@dataclass(frozen=True)
class Prompt:
    """Text to speak. `id` is unique within a prompt set and safe in a file name."""

    id: str
    text: str = ""
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)
    """Anything else about it, such as `voice`, for policies and rewards that know the name."""


@dataclass(frozen=True)
class Media:
    """Type of a policy's samples: `kind` and, for audio, the rate in Hz."""

    kind: str
    sample_rate: int | None = None


@dataclass(frozen=True)
class Samples:
    """Samples for rewards. `data` (N, ..., L) float32, audio (N, L) in [-1, 1], zero beyond `lengths` (N,) int64."""

    data: Tensor
    """(N, ..., L) float32."""
    lengths: Tensor
    """(N,) int64."""
    media: Media

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> Samples:
        return Samples(self.data[rows], self.lengths[rows], self.media)

    def row(self, index: int) -> Tensor:
        """The valid part of one row, (*S) cut to its own length."""
        return self.data[index][..., : int(self.lengths[index])]

    def to(self, device: torch.device | str) -> Samples:
        return Samples(self.data.to(device), self.lengths.to(device), self.media)

    def detach(self) -> Samples:
        return Samples(self.data.detach(), self.lengths, self.media)


@dataclass(frozen=True)
class Scores:
    """`values` (N,) float32, finite, higher is better; `parts` named components, each (N,), logged only."""

    values: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Conditioning: tensors that all have N rows."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return int(next(iter(self.tensors.values())).shape[0])

    def __getitem__(self, rows: Tensor | slice | Sequence[int]) -> Batch:
        return Batch({name: tensor[rows] for name, tensor in self.tensors.items()})

    def get(self, name: str) -> Tensor:
        return self.tensors[name]

    def repeat(self, count: int) -> Batch:
        """Each row `count` times in a row: B -> B·count, the order of `Trajectory.group`."""
        return Batch({name: tensor.repeat_interleave(count, 0) for name, tensor in self.tensors.items()})

    def to(self, device: torch.device | str) -> Batch:
        return Batch({name: tensor.to(device) for name, tensor in self.tensors.items()})


@dataclass(frozen=True)
class Schedule:
    """`times` (K+1,) decreasing float64, in the policy's own units; `stochastic` (K,) bool, False = no density."""

    times: Tensor
    stochastic: Tensor

    def __len__(self) -> int:
        return int(self.stochastic.shape[0])

    def pick(self, uniform: Tensor) -> Tensor:
        """Uniform draws (n,) in [0, 1) -> the time before one of the K steps, each as likely, noisiest first."""
        k = (uniform * len(self)).long().clamp(max=len(self) - 1)
        return self.times.to(uniform)[k]

    def to(self, device: torch.device | str) -> Schedule:
        """The copy on that device, sent there once: a GPU is waited for each time."""
        sent: dict[torch.device, Schedule] = self.__dict__.setdefault("_sent", {})
        place = torch.device(device)
        if place not in sent:
            sent[place] = Schedule(self.times.to(place), self.stochastic.to(place))
        return sent[place]

    def once(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """Result of `compute`, which is called once for this schedule and `key`: coefficients of its steps."""
        known: dict[Hashable, Tensor] = self.__dict__.setdefault("_known", {})
        if key not in known:
            known[key] = compute()
        return known[key]


@dataclass(frozen=True)
class Crop:
    """Position of each of M windows in its state: `start` (M,) and `length` (M,) int64 on the last axis.

    A crop holds a window and as much around it as the network has to see; `Policy.mask` of its conditioning is true
    on the window alone.
    """

    start: Tensor
    length: Tensor

    @cached_property
    def size(self) -> int:
        """The longest crop's length; a GPU is waited for when it is first asked for."""
        return int(self.length.max())

    def cut(self, x: Tensor) -> Tensor:
        """(M, ..., L) -> (M, ..., longest crop), zero behind a crop's own length."""
        offset = torch.arange(self.size, device=x.device)
        index = (self.start[:, None] + offset).clamp(max=x.shape[-1] - 1)
        inside = offset < self.length[:, None]
        shape = (len(x), *([1] * (x.dim() - 2)), len(offset))
        taken = x.gather(-1, index.view(shape).expand(*x.shape[:-1], -1))
        return torch.where(inside.view(shape), taken, taken.new_zeros(()))


@dataclass(frozen=True)
class Transitions:
    """M transitions of a trajectory: x[k] -> x[k+1]. `log_prob` is the sampling policy's, in the run's reduction.

    With `train.window_frames` states and conditioning are crops, and `log_prob` is the window's.
    """

    row: Tensor
    """(M,) int64, rows of the trajectory on this rank."""
    k: Tensor
    """(M,) int64."""
    before: Tensor
    """(M, *S)."""
    after: Tensor
    """(M, *S)."""
    cond: Batch
    log_prob: Tensor
    """(M,)."""
    crop: Crop | None = None

    def cut(self, x: Tensor) -> Tensor:
        """(N, *S), one state per row of the trajectory -> (M, *S): this piece's rows, cropped as its states are."""
        rows = x[self.row]
        return rows[..., : self.before.shape[-1]] if self.crop is None else self.crop.cut(rows)


@dataclass(frozen=True)
class Minibatch:
    """One gradient update's transitions, cut into pieces that fit in memory.

    `size` counts the transitions of *all* ranks. `mean` divides by it, and gradients are summed over ranks, so one
    rank and many give the same gradient.
    """

    pieces: Sequence[Transitions]
    """What iterating over it gives."""
    size: int
    """Transitions of all ranks."""

    def __iter__(self) -> Iterator[Transitions]:
        return iter(self.pieces)

    def mean(self, loss_M: Tensor) -> Tensor:
        """(M,) of one piece -> its share of the mean over the whole minibatch, a scalar."""
        return loss_M.sum() / self.size


@dataclass(frozen=True)
class DenoisingBatch:
    """n clean states with noise and training times, ready for a denoising loss; cut to windows if the run uses them."""

    rows: Tensor
    """(n,) int64, rows of the trajectory on this rank."""
    clean: Tensor
    """(n, *S)."""
    noise: Tensor
    """(n, *S)."""
    t: Tensor
    """(n,) training times."""
    cond: Batch


@dataclass(frozen=True)
class Trajectory:
    """N rollouts of this rank. A row's noise depends on (seed, step, prompt, repetition) and on nothing else."""

    prompts: tuple[Prompt, ...]
    """N, already repeated."""
    group: Tensor
    """(N,) int64: which prompt of this step, counted over all ranks."""
    cond: Batch
    schedule: Schedule
    states: Tensor
    """(J, N, *S): the states of `kept`; read them with `state`."""
    kept: tuple[int, ...]
    """J of 0 ... K: around the steps that have a density, and the clean one."""
    log_probs: Tensor
    """(K, N) under the sampling policy; zero at deterministic steps."""
    samples: Samples
    size: int
    """N over all ranks."""
    seeds: tuple[int, ...]
    """N, one per row; `ctx.draw` derives further noise from them."""
    window_log_probs: Tensor | None = None
    """(K, N): of the window that is trained, with `train.window_frames`."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def final(self) -> Tensor:
        """(N, *S): the clean end of every row."""
        return self.states[-1]

    def state(self, k: int | Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """x_k of these rows, (n, *S); k is one index for all of them, or (n,) int64.

        Raises ContractError if x_k was not kept: no step with a density begins or ends there.
        """
        missing = set(range(len(self.schedule) + 1) if isinstance(k, Tensor) else [k]) - set(self.kept)
        if isinstance(k, Tensor) and missing:
            missing &= set(k.tolist())
            k = torch.searchsorted(torch.tensor(self.kept, device=k.device), k)
        if missing:
            raise ContractError(
                f"the states {sorted(missing)} of this trajectory were not kept, only {list(self.kept)}",
                'call rollout(keep="all"), and train where Schedule.stochastic is true',
            )
        return self.states[k, rows] if isinstance(k, Tensor) else self.states[self.kept.index(k)][rows]

    def seeds_of(self, rows: Tensor) -> list[int]:
        """Seeds of these rows (n,), for `ctx.crop`."""
        return [self.seeds[row] for row in rows.tolist()]

    def mean(self, loss_N: Tensor) -> Tensor:
        """(N,) of this rank -> its share of the mean over all ranks' rows, a scalar."""
        return loss_N.sum() / self.size
