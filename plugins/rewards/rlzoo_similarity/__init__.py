"""Is it the same voice? Speaker similarity to a reference recording."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import model_validator

from rlzoo.assets import Asset, at_hand
from rlzoo.plugin import Options, RewardSpec, hookimpl

ECAPA = Asset(
    name="ecapa-voxceleb",
    url="https://huggingface.co/speechbrain/spkrec-ecapa-voxceleb/resolve/"
    "0f99f2d0ebe89ac095bcc5903c4dd8f72b367286/embedding_model.ckpt",
    sha256="0575cb64845e6b9a10db9bcb74d5ac32b326b8dc90352671d345e2ee3d0126a2",
    size=83_316_686,
    licence="Apache-2.0",
    commercial_use=True,
    source="ECAPA-TDNN trained on VoxCeleb 1 and 2 (speechbrain/spkrec-ecapa-voxceleb)",
)


class SimilarityOptions(Options):
    """Whose voice it should be, and who compares."""

    reference: Path | None = None
    """A recording of the wanted voice, a few seconds of clean speech at any rate; none: each prompt's attribute
    `voice` (prompt set zero-shot), else its own recording."""
    encoder: Literal["auto", "ecapa", "resemblyzer"] = "auto"
    """Who tells speakers apart: SpeechBrain's ECAPA-TDNN, or Resemblyzer's GE2E encoder, whose weights come with the
    package (extra `similarity`). auto: ecapa where `checkpoint` names its weights, else resemblyzer."""
    checkpoint: Path | None = None
    """Weights of ECAPA-TDNN (SpeechBrain's `embedding_model.ckpt`); none: the cache, else a download of 83 MB."""

    @model_validator(mode="after")
    def _check(self) -> SimilarityOptions:
        if self.encoder == "resemblyzer" and self.checkpoint is not None:
            raise ValueError("checkpoint is ECAPA-TDNN's; resemblyzer's weights come with its package")
        return self

    @property
    def who(self) -> Literal["ecapa", "resemblyzer"]:
        """The encoder that is meant."""
        if self.encoder != "auto":
            return self.encoder
        return "resemblyzer" if self.checkpoint is None else "ecapa"


def available(options: SimilarityOptions) -> bool:
    """True if the weights are on this machine: Resemblyzer's come with its package."""
    if options.who == "resemblyzer":
        return find_spec("resemblyzer") is not None
    return at_hand((ECAPA,), options.checkpoint)


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="similarity",
        summary="speaker similarity to a reference recording (cosine of speaker embeddings), -1 to 1",
        target="rlzoo_similarity.reward:SimilarityReward",
        options=SimilarityOptions,
        offers=frozenset({"reward-grad"}),
        available="rlzoo_similarity:available",
        extra="similarity",
        reference="arXiv:2005.07143",
        assets=(ECAPA,),
        expected_failures=dict.fromkeys(
            (
                "scores_are_sound",
                "scores_are_deterministic",
                "rows_are_independent",
                "gradient_is_as_announced",
                "extreme_clips_do_not_raise",
            ),
            "the kit's prompts bring no recordings to compare with; tests/plugins/test_similarity.py checks it",
        ),
    )
