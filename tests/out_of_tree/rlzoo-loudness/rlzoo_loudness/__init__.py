"""Announces the reward `loudness`. Light: no torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import Options, RewardSpec, hookimpl


class LoudnessOptions(Options):
    """Options of `loudness`."""

    target_dbfs: Annotated[float, Field(ge=-90, le=0)] = -26.0
    """Active speech level that scores best, in dBFS."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    """The one reward of this package."""
    yield RewardSpec(
        name="loudness",
        summary="minus the distance to a wanted speech level, in dB",
        target="rlzoo_loudness.reward:LoudnessReward",
        options=LoudnessOptions,
        offers=frozenset({"reward-grad"}),
        reference="ITU-T P.56",
    )
