"""The reward interface."""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar
from uuid import uuid4

import torch

from rlzoo.core.fingerprint import fingerprint
from rlzoo.core.specs import Options
from rlzoo.core.types import Prompt, Samples, Scores

O = TypeVar("O", bound=Options)
RewardFunction = Callable[[Samples, Sequence[Prompt]], Scores | torch.Tensor | Sequence[float]]


def unsound(scores: object, samples: Samples) -> str:
    """Describe what is wrong with the result of `Reward.score` for `samples`; empty if nothing is."""
    if not isinstance(scores, Scores):
        return f"returned {type(scores).__name__} instead of Scores: wrap the numbers, Scores(values)"
    device = samples.data.device
    for name, values in {
        "scores": scores.values,
        **{f"part '{key}'": part for key, part in scores.parts.items()},
    }.items():
        if not isinstance(values, torch.Tensor):
            return f"returned {type(values).__name__} as its {name}: return a tensor of shape ({len(samples)},)"
        if values.shape != (len(samples),):
            return (
                f"returned {name} of shape {tuple(values.shape)} for {len(samples)} samples: return one number per "
                f"sample, shape ({len(samples)},)"
            )
    # Parts are only logged, so their device and precision do not matter.
    if scores.values.device.type != device.type:
        return f"returned scores on {scores.values.device}, but its samples are on {device}: return them on that device"
    if scores.values.dtype != torch.float32:
        return f"returned scores as {scores.values.dtype}, not float32: end with .float()"
    return ""


class Reward(ABC, Generic[O]):
    """A score of samples; higher is better, always.

    Contract, held by the conformance kit: deterministic; a row's score depends neither on its batch mates nor on its
    position nor on padding; parameters are frozen; short and silent clips do not raise.
    """

    sample_rate: int | None = None
    """Rate in Hz at which it wants audio; the engine resamples once per rate. None: as it comes."""
    version: str = "1"
    """Part of the score cache's key: change it when the numbers change."""

    def __init__(self, options: O) -> None:
        self.options = options

    def cache_key(self) -> list[Any]:
        """JSON values that identify the scores of this reward in the score cache: `rlzoo.core.fingerprint`."""
        held = [value if isinstance(value, list | tuple) else [value] for value in vars(self).values()]
        parts = [part.cache_key() for values in held for part in values if isinstance(part, Reward)]
        return [self.version, *fingerprint(type(self), self.options), parts]

    @abstractmethod
    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and their N prompts -> N scores, attached to the graph iff the spec offers `reward-grad`."""

    def to(self, device: torch.device | str) -> Self:
        """Move weights; called once, before the first `score`."""
        return self


class FunctionReward(Reward[Options]):
    """A function as a reward; made by `reward_from`."""

    def __init__(self, function: RewardFunction, sample_rate: int | None) -> None:
        super().__init__(Options())
        self.function, self.sample_rate, self.version = function, sample_rate, _version_of(function)

    @torch.no_grad()
    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and prompts -> (N,). Without a gradient."""
        found = self.function(samples, prompts)
        if isinstance(found, Scores):
            return found
        if not isinstance(found, torch.Tensor):
            found = torch.tensor([float(value) for value in found])
        return Scores(found.to(samples.data.device, torch.float32))


def reward_from(function: RewardFunction, *, sample_rate: int | None = None) -> Reward[Options]:
    """A plain function as a reward: `function(samples, prompts)` gives one number per sample, higher is better.

    `samples` are N recordings: `samples.row(i)` is the i-th, (L_i,) in [-1, 1], at `samples.media.sample_rate` Hz.
    `prompts` are their N prompts. The function returns a list, a tensor (N,) or `Scores`. With `sample_rate` it gets
    audio at that rate, in Hz. No gradient passes through it. Scores are cached under a hash of the function's file.
    """
    return FunctionReward(function, sample_rate)


def _version_of(function: RewardFunction) -> str:
    """A hash of the function's name and file; a new value each time for a function without a file (a notebook)."""
    try:
        source = Path(inspect.getsourcefile(inspect.unwrap(function)) or "").read_bytes()
    except (TypeError, OSError):
        source = uuid4().bytes
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return hashlib.sha256(name.encode() + source).hexdigest()[:16]
