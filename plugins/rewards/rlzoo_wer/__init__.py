"""Word and character error rate of a recogniser: is it what the prompt says?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.assets import WAV2VEC2_ASR, at_hand
from rlzoo.plugin import Options, RewardSpec, hookimpl


class WEROptions(Options):
    """Which recogniser listens, and where the rate is cut."""

    recognizer: Literal["pocketsphinx", "wav2vec2", "whisper"] = "pocketsphinx"
    """`pocketsphinx`: offline, its English model comes from pip; sees whether speech is intelligible at all, too weak
    to rank good systems (19.5 % on natural speech). `wav2vec2`: the base model tuned on 960 h, 378 MB. `whisper`: any
    size, from the folder `checkpoint`; needs the extra `whisper`."""
    checkpoint: Path | None = None
    """Of `wav2vec2`: torchaudio's wav2vec2_fairseq_base_ls960_asr_ls960.pth; none: the cache, else a download. Of
    `whisper`: a folder as transformers saves it; there is no default."""
    max_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Rates above this count as this: a clip that is not understood at all is no worse than noise."""

    @model_validator(mode="after")
    def _checkpoint_where_needed(self) -> Self:
        if self.recognizer == "pocketsphinx" and self.checkpoint is not None:
            raise ValueError("`checkpoint` goes with recognizer = 'wav2vec2' or 'whisper'")
        if self.recognizer == "whisper" and self.checkpoint is None:
            raise ValueError("recognizer = 'whisper' needs `checkpoint`, a folder with a Whisper model")
        return self


def available(options: WEROptions) -> bool:
    """Whether the recogniser can be had without a download. Imports no torch."""
    return options.recognizer == "pocketsphinx" or at_hand((WAV2VEC2_ASR,), options.checkpoint)


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
