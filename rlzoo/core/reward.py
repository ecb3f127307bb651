"""The reward interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar

import torch

from rlzoo.core.fingerprint import fingerprint
from rlzoo.core.specs import Options
from rlzoo.core.types import Prompt, Samples, Scores

O = TypeVar("O", bound=Options)


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
