"""Prompt sets as the engine uses them, and the cursor that walks through one in shuffled epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rlzoo.core.noise import generator_of, seed_of
from rlzoo.core.types import Prompt
from rlzoo.errors import DataError


class Cursor:
    """Endless shuffled epochs over the training prompts; epoch e's order follows from (run seed, e) alone."""

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        if not prompts:
            raise DataError("the prompt set has no training prompts", "check [prompts]")
        self._prompts = list(prompts)
        self._seed = seed
        self.position = 0

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts."""
        taken = [self._at(self.position + offset) for offset in range(count)]
        self.position += count
        return taken

    def _at(self, position: int) -> Prompt:
        epoch, place = divmod(position, len(self._prompts))
        order = torch.randperm(len(self._prompts), generator=generator_of(seed_of("epoch", self._seed, epoch)))
        return self._prompts[int(order[place])]

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"position": self.position, "prompts": len(self._prompts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; DataError if the set has another size than when it was saved."""
        if state["prompts"] != len(self._prompts):
            raise DataError(
                f"the prompt set had {state['prompts']} training prompts and now has {len(self._prompts)}",
                "resume with the prompts the run was started with",
            )
        self.position = state["position"]
