"""UTMOS: predicted naturalness of synthetic speech, the strong learner of the VoiceMOS Challenge 2022."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.assets import Asset
from rlzoo.plugin import Options, RewardSpec, hookimpl

STRONG = Asset(
    name="utmos22-strong",
    url="https://github.com/tarepan/SpeechMOS/releases/download/v1.0.0/utmos22_strong_step7459_v1.pt",
    sha256="38aa51ab79e2a4e09a1449758a4b37e9cbb2e8235a49662a732d33a9ba1e9bff",
    size=411_179_119,
    licence="MIT",
    commercial_use=True,
    source="UTMOS22 strong learner (sarulab-speech), as repacked by SpeechMOS v1.0.0",
)


class UTMOSOptions(Options):
    """Path of the weights and level of the clips."""

    checkpoint: Path | None = None
    """Weights in either published layout (SpeechMOS's state dict, sarulab's Lightning checkpoint); none: the
    cache, else a download of 411 MB."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network. `bfloat16` is for GPUs; it moved scores by less than 0.05 (random weights), so judge
    in `float32`."""
    level_dbfs: Annotated[float, Field(ge=-60, le=0)] | None = -26.0
    """Active speech level to which clips are brought first, in dBFS; none: as they are. Levelling brings the predictor
    closer to people, and a policy cannot earn reward by gain."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="utmos",
        summary="predicted naturalness (MOS) of synthetic speech, about 1 to 5",
        target="rlzoo_utmos.reward:UTMOSReward",
        options=UTMOSOptions,
        offers=frozenset({"reward-grad"}),
        reference="arXiv:2204.02152",
        tier="stable",
        assets=(STRONG,),
        fallback="distillmos",
    )
