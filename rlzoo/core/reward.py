"""The reward interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, Self, TypeVar

import torch

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

    @abstractmethod
    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and their N prompts -> N scores, attached to the graph iff the spec offers `reward-grad`."""

    def to(self, device: torch.device | str) -> Self:
        """Move weights; called once, before the first `score`."""
        return self
