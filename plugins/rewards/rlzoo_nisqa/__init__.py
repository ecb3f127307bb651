"""NISQA: predicted quality of transmitted speech in five dimensions, and naturalness of synthetic speech."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.assets import Asset
from rlzoo.plugin import Options, RewardSpec, hookimpl

_WEIGHTS = "https://github.com/gabrielmittag/NISQA/raw/b1f74030a069b616c8d71f92c211e44ba94a0fae/weights"
_LICENCE = "CC BY-NC-SA 4.0"

V2 = Asset(
    name="nisqa-v2",
    url=f"{_WEIGHTS}/nisqa.tar",
    sha256="7ec4cf937514dd3f8860b21e66fabd8ca87a168572675ef8d979c4c4ad2e805c",
    size=1_051_663,
    licence=_LICENCE,
    commercial_use=False,
    source="NISQA v2 (gabrielmittag/NISQA), five dimensions",
)
TTS = Asset(
    name="nisqa-tts",
    url=f"{_WEIGHTS}/nisqa_tts.tar",
    sha256="c556a954cd9536360b4fe6f524ad432816509cd22f436f345b281a7851360656",
    size=1_237_159,
    licence=_LICENCE,
    commercial_use=False,
    source="NISQA-TTS v1 (gabrielmittag/NISQA), naturalness",
)


class SharedOptions(Options):
    """Options of both rewards."""

    checkpoint: Path | None = None
    """Published weights (`.tar`); none: the cache, else a download of 1 MB. Their licence forbids commercial use."""
    sample_rate: Annotated[int, Field(ge=8_000, le=48_000)] | None = None
    """Rate in Hz to which clips are brought first; none: as they come. The same speech scores differently at different
    rates (4.37 at 22,050 Hz, 4.55 at 16,000 Hz), so compare at one rate only and state it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network behind its spectrum. `bfloat16` is for GPUs; it moved scores by less than 0.05 (random
    weights), so judge in `float32`."""
    level_dbfs: Annotated[float, Field(ge=-60, le=0)] | None = None
    """Active speech level to which clips are brought first, in dBFS; none: as they are, like the published code."""


class NISQAOptions(SharedOptions):
    """Options of NISQA: the output that is the score, and preparation of the clips."""

    part: Literal["mos", "noisiness", "discontinuity", "coloration", "loudness"] = "mos"
    """Output that is the score; all five are logged. Higher is better in each."""


class NISQATTSOptions(SharedOptions):
    """Preparation of the clips."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="nisqa",
        summary="predicted quality (MOS) of transmitted speech, with four dimensions beside it",
        target="rlzoo_nisqa.reward:NISQAReward",
        options=NISQAOptions,
        offers=frozenset({"reward-grad"}),
        reference="arXiv:2104.09494",
        tier="stable",
        assets=(V2,),
    )
    yield RewardSpec(
        name="nisqa-tts",
        summary="predicted naturalness (MOS) of synthetic speech",
        target="rlzoo_nisqa.reward:NISQATTSReward",
        options=NISQATTSOptions,
        offers=frozenset({"reward-grad"}),
        reference="doi:10.21437/Interspeech.2020-2382",
        tier="stable",
        assets=(TTS,),
    )
