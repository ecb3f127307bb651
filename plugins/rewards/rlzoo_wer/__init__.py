"""Word and character error rate of a recogniser: is it what the prompt says?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.plugin import Options, RewardSpec, hookimpl


class WEROptions(Options):
    """Which recogniser listens, and where the rate is cut."""

    recognizer: Literal["pocketsphinx", "wav2vec2"] = "pocketsphinx"
    """`pocketsphinx`: offline, its English model comes from pip; sees whether speech is intelligible at all, too weak
    to rank good systems (19.5 % on natural speech). `wav2vec2`: the base model tuned on 960 h, from `checkpoint`."""
    checkpoint: Path | None = None
    """Weights of `wav2vec2`: torchaudio's wav2vec2_fairseq_base_ls960_asr_ls960.pth."""
    max_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Rates above this count as this: a clip that is not understood at all is no worse than noise."""

    @model_validator(mode="after")
    def _checkpoint_where_needed(self) -> Self:
        if (self.recognizer == "wav2vec2") != (self.checkpoint is not None):
            raise ValueError("`checkpoint` goes with recognizer = 'wav2vec2', which cannot do without")
        return self


_NOT_SPEECH = {"scores_are_sound": "the kit's clips are no speech: nothing of the prompt is recognised in any of them"}


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="wer",
        summary="minus the word error rate of a recogniser against the prompt",
        target="rlzoo_wer.reward:WERReward",
        options=WEROptions,
        extra="wer",
        expected_failures=_NOT_SPEECH,
    )
    yield RewardSpec(
        name="cer",
        summary="minus the character error rate of a recogniser against the prompt",
        target="rlzoo_wer.reward:CERReward",
        options=WEROptions,
        extra="wer",
        expected_failures=_NOT_SPEECH,
    )
