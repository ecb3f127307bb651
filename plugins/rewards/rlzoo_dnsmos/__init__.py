"""Microsoft's DNSMOS: how clean and how natural speech sounds. Its weights arrive with `pip install`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.plugin import Options, RewardSpec, hookimpl


class DNSMOSOptions(Options):
    """Options of DNSMOS."""

    model: Literal["p808", "p835"] = "p808"
    """`p808`: one overall MOS, fast, orders noise and naturalness best. `p835`: signal, background and overall."""
    part: Literal["ovrl", "sig", "bak"] = "ovrl"
    """Output of P.835 that is the score; the others are logged. Without effect on `p808`."""
    personalized: bool = False
    """P.835 for one wanted speaker: other voices count as noise."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network behind its spectrum. `bfloat16` moved the scores of twelve clips by up to 0.014, where
    they differ by 0.16 among themselves; for GPUs, and CPUs with bf16 units (P.835 in half the time there)."""
    level_dbfs: Annotated[float, Field(ge=-60, le=0)] | None = None
    """Active speech level to which clips are brought first, in dBFS; none: as they are, like the published package.
    P.808 does not hear the level, P.835 does."""


def available(options: DNSMOSOptions) -> bool:
    """True if the weights can be had without a download: the package is there. Imports no torch."""
    from importlib.util import find_spec

    return find_spec("speechmos") is not None


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="dnsmos",
        summary="predicted mean opinion score of speech quality (P.808 or P.835), about 1 to 5",
        target="rlzoo_dnsmos.reward:DNSMOSReward",
        options=DNSMOSOptions,
        offers=frozenset({"reward-grad"}),
        reference="arXiv:2010.15258, arXiv:2110.01763",
        tier="stable",
        available="rlzoo_dnsmos:available",
    )
