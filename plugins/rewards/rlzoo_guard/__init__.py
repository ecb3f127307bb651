"""Cheap checks of the signal that catch what predictors of quality do not hear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from rlzoo.plugin import Options, RewardSpec, hookimpl

Share = Annotated[float, Field(ge=0, le=1)]
Decibels = Annotated[float, Field(ge=-120, le=0)]
Positive = Annotated[float, Field(gt=0)]


class GuardOptions(Options):
    """Limits of the signal. Each excess costs up to 1; a clean signal scores 0."""

    max_clipped: Share = 0.001
    """Share of samples at full scale."""
    max_dc: Share = 0.02
    """Offset, as a share of full scale."""
    max_silence: Share = 0.5
    """Share of 20 ms frames more than 40 dB below the active speech level."""
    min_level_dbfs: Decibels = -45.0
    """Quietest active speech level."""
    max_level_dbfs: Decibels = -10.0
    """Loudest active speech level."""
    min_bandwidth_hz: Positive = 1_000.0
    """Least frequency below which 99 % of the power lies: less is a hum."""
    max_bandwidth: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Greatest such frequency, as a share of half the rate: more is white noise."""
    min_seconds_per_letter: Positive = 0.025
    """Fastest speech, in seconds per letter of the prompt (English is read at about 0.065)."""
    max_seconds_per_letter: Positive = 0.25
    """Slowest speech."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_level_dbfs >= self.max_level_dbfs:
            raise ValueError("min_level_dbfs must be below max_level_dbfs")
        if self.min_seconds_per_letter >= self.max_seconds_per_letter:
            raise ValueError("min_seconds_per_letter must be below max_seconds_per_letter")
        return self


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="guard",
        summary="0 minus a penalty for clipping, offset, silence, level, bandwidth and speaking rate",
        target="rlzoo_guard.reward:GuardReward",
        options=GuardOptions,
        reference="ITU-T P.56 (active speech level); the limits are rlzoo's own",
        tier="stable",
    )
