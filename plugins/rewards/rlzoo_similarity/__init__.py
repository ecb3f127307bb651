"""Is it the same voice? Speaker similarity to a reference recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlzoo.assets import Asset
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
    """A recording of the wanted voice, a few seconds of clean speech at any rate; none: the recording that each prompt
    brings along."""
    checkpoint: Path | None = None
    """Weights of the speaker encoder (SpeechBrain's `embedding_model.ckpt`); none: the cache, else a download of
    83 MB."""


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    yield RewardSpec(
        name="similarity",
        summary="speaker similarity to a reference recording (ECAPA-TDNN, cosine), -1 to 1",
        target="rlzoo_similarity.reward:SimilarityReward",
        options=SimilarityOptions,
        offers=frozenset({"reward-grad"}),
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
