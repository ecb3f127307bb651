"""Measures against a recording of the same text: cepstral distance, intelligibility, quality."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import Options, RewardSpec, hookimpl


class MCDOptions(Options):
    """Options of the spectral distance."""

    coefficients: Annotated[int, Field(ge=4, le=60)] = 24
    """Cepstral coefficients, without the zeroth, which is the level."""
    mels: Annotated[int, Field(ge=20, le=128)] = 80
    """Bands of the spectrum they are made of."""


class STOIOptions(Options):
    """Options of STOI."""

    extended: bool = True
    """Extended STOI, which also hears modulated noise (Jensen and Taal, 2016)."""


class PESQOptions(Options):
    """Wide-band PESQ has no options."""


_NO_RECORDINGS = dict.fromkeys(
    (
        "scores_are_sound",
        "scores_are_deterministic",
        "rows_are_independent",
        "gradient_is_as_announced",
        "extreme_clips_do_not_raise",
    ),
    "the kit's prompts bring no recordings to compare with; tests/plugins/test_intrusive.py makes these checks",
)


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="mcd",
        summary="minus the mel-cepstral distortion to the prompt's recording, in dB, after time warping",
        target="rlzoo_intrusive.mcd:MCDReward",
        options=MCDOptions,
        expected_failures=_NO_RECORDINGS,
    )
    yield RewardSpec(
        name="stoi",
        summary="short-time objective intelligibility against the prompt's recording, 0 to 1",
        target="rlzoo_intrusive.stoi:STOIReward",
        options=STOIOptions,
        extra="intrusive",
        expected_failures=_NO_RECORDINGS,
    )
    yield RewardSpec(
        name="pesq",
        summary="wide-band PESQ against the prompt's recording, about 1 to 4.6",
        target="rlzoo_intrusive.pesq:PESQReward",
        options=PESQOptions,
        extra="intrusive",
        expected_failures=_NO_RECORDINGS,
    )
