"""A reward learned from people: Bradley-Terry over pairs of recordings, on features of a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rlzoo.assets import WAV2VEC2_ASR
from rlzoo.plugin import Options, RewardSpec, hookimpl


class PreferenceOptions(Options):
    """Options of the trained model."""

    checkpoint: Path | None = None
    """Output of `rlzoo reward train-preference` (`.safetensors`), trained on your raters. There is no published one."""
    encoder_checkpoint: Path | None = None
    """Weights of the frozen wav2vec 2.0, for a model that was trained on it; none: the cache, else a download of
    378 MB."""


class TrainPreferenceOptions(Options):
    """Options of training on pairs."""

    encoder: Literal["log-mel", "wav2vec2"] = "log-mel"
    """Features of a clip: `log-mel`, the mean, spread and movement of 64 mel bands, needs nothing; `wav2vec2`, the
    mean and spread of one layer of wav2vec 2.0 base, needs 378 MB."""
    encoder_checkpoint: Path | None = None
    """Weights of wav2vec 2.0 (torchaudio's wav2vec2_fairseq_base_ls960_asr_ls960.pth); none: cache or download."""
    layer: Annotated[int, Field(ge=1, le=12)] = 6
    """Layer of wav2vec 2.0; the middle ones hold most of the sound."""
    level_dbfs: Annotated[float, Field(ge=-60, le=0)] | None = -26.0
    """Active speech level to which clips are brought first, in dBFS, as listeners hear them; none: as they are."""
    hidden: Annotated[int, Field(ge=0, le=4096)] = 0
    """Units of a hidden layer between features and score; 0: a straight line, which some hundred answers can carry."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the answers that is not trained on and by which the model is judged. No prompt and no recording is on
    both sides."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts of the training answers by which the weight decay is chosen (cross-validation over prompts)."""
    ties: Literal["half", "drop"] = "half"
    """Use of "about the same": half a win for either, or left out."""
    bins: Annotated[int, Field(ge=2, le=50)] = 5
    """Classes of confidence in the table of reliability and for the expected calibration error."""
    seed: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Seed of the held-out prompts and of a hidden layer."""
    device: str = "cpu"
    """Device of the encoder, e.g. `cuda`."""


def available(options: PreferenceOptions) -> bool:
    """A model is named; whether it is there is seen when it is read. Imports no torch."""
    return options.checkpoint is not None


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="preference",
        summary="what your raters prefer: Bradley-Terry on features of a frozen encoder, trained from their pairs",
        target="rlzoo_preference.reward:PreferenceReward",
        options=PreferenceOptions,
        offers=frozenset({"reward-grad"}),
        reference="Bradley and Terry, 1952; arXiv:1706.03741",
        assets=(WAV2VEC2_ASR,),
        available="rlzoo_preference:available",
        train="rlzoo_preference.train:train",
    )
