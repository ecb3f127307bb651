"""One reward made of several: a weighted sum with hard floors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from rlzoo.plugin import Options, RewardSpec, hookimpl


class Part(Options):
    """One reward of the sum."""

    name: str
    """Name of the reward, as in `rlzoo plugins list`."""
    options: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Its options."""
    weight: Annotated[float, Field(ge=-1000, le=1000)] = 1.0
    """Factor in the sum; 0 for a part that only sets a floor."""
    mean: float = 0.0
    """Subtracted first: the score of speech that is neither good nor bad."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """Divided by: how far apart good and bad speech score. 1 and mean 0 leave the score raw."""
    floor: float | None = None
    """Least score of this part, before standardising; a sample below it gets `broken` instead of the sum."""


class CompositeOptions(Options):
    """Parts of the sum, and the score of a sample below a floor."""

    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """The rewards, in order."""
    broken: float = -3.0
    """Score of a sample that breaks a floor; with standardised parts, -3 is far below anything ordinary."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not any(part.weight for part in self.parts):
            raise ValueError("at least one part needs a weight other than 0")
        return self


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="composite",
        summary="weighted sum of rewards, each raw or standardised, with hard floors",
        target="rlzoo_composite.reward:CompositeReward",
        options=CompositeOptions,
    )
