"""DNSMOS Pro, trained on BVCC: a small predictor of the naturalness of synthetic speech, with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlzoo.assets import Asset
from rlzoo.plugin import Options, RewardSpec, hookimpl

BVCC = Asset(
    name="dnsmos-pro-bvcc",
    url="https://github.com/fcumlin/DNSMOSPro/raw/13cd16c7b211c763abb83f046571aa0adcda6e1d/runs/BVCC/model_best.pt",
    sha256="dfadd819314a64cbf1e753f7a58b71d67739445fa48623013a5d8e452a4c7194",
    size=342_174,
    licence="MIT",
    commercial_use=True,
    source="DNSMOS Pro (fcumlin/DNSMOSPro), trained on BVCC",
)


class DNSMOSProOptions(Options):
    """Path of the weights and level of the clips."""

    checkpoint: Path | None = None
    """The published TorchScript archive, of which only the tensors are read; none: the cache, else a download of
    0.3 MB."""
    level_dbfs: Annotated[float, Field(ge=-60, le=0)] | None = -26.0
    """Active speech level to which clips are brought first, in dBFS; none: as they are. The predictor hears the level:
    without this its ranking of vocoders was measured to agree with people much less."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="dnsmos-pro",
        summary="predicted naturalness (MOS) of synthetic speech, small, with its variance",
        target="rlzoo_dnsmos_pro.reward:DNSMOSProReward",
        options=DNSMOSProOptions,
        offers=frozenset({"reward-grad"}),
        reference="doi:10.21437/Interspeech.2024-478",
        tier="stable",
        assets=(BVCC,),
        fallback="dnsmos",
    )
