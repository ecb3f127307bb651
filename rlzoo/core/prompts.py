"""The prompt-set interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rlzoo.core.types import Prompt, Samples
from rlzoo.errors import DataError


class PromptSet(ABC):
    """Training prompts, held-out prompts, and recordings if there are any: the target of a `PromptSpec`.

    Its constructor takes its options. Contract, held by the conformance kit: both parts have prompts, none is in both,
    ids are unique and safe in file names, and the order is always the same.
    """

    @abstractmethod
    def train(self) -> Sequence[Prompt]:
        """The training prompts, in a fixed order."""

    @abstractmethod
    def heldout(self) -> Sequence[Prompt]:
        """The held-out prompts, in a fixed order."""

    def recordings(self, prompts: Sequence[Prompt], sample_rate: int | None) -> Samples:
        """Recordings of N prompts, (N, L) at `sample_rate` Hz (None: their own). DataError if there are none."""
        raise DataError(
            f"the algorithm needs recordings, and {type(self).__name__} has only text",
            "use a prompt set with recordings, such as a folder in LJSpeech's layout",
        )
