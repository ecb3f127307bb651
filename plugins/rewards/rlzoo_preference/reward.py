"""The trained model as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.assets import sha256_of
from rlzoo.audio import require_rate
from rlzoo.errors import ConfigError, DataError
from rlzoo_preference import PreferenceOptions
from rlzoo_preference.encoders import RATE, LogMel, Wav2Vec2, describe, make
from rlzoo_preference.model import load


class PreferenceReward(Reward[PreferenceOptions]):
    """Log odds: a clip that scores 1 higher than another is preferred to it e : 1. The training clips' mean is 0.

    `parts["novelty"]` says how far a clip is from what raters heard: the root mean square of its features in standard
    deviations of the training clips, about 1 for clips like those. Where it grows during a run, the score is a guess.
    """

    sample_rate = RATE

    def __init__(self, options: PreferenceOptions) -> None:
        super().__init__(options)
        if options.checkpoint is None:
            raise ConfigError(
                "'preference' needs `checkpoint`",
                "train one: rlzoo reward train-preference --pairs pairs.jsonl --out preference.safetensors",
            )
        self.head, settings = load(options.checkpoint, {"log-mel": LogMel.size, "wav2vec2": Wav2Vec2.size})
        self.encoder = make(settings.name, settings.layer, options.encoder_checkpoint)
        if self.encoder.sha256 != settings.sha256:
            raise DataError(
                f"'{options.checkpoint}' was trained on another wav2vec 2.0 (SHA-256 {settings.sha256})",
                "give those weights as `encoder_checkpoint`",
            )
        self.level_dbfs = settings.level_dbfs
        self.version = f"1+{sha256_of(options.checkpoint)[:12]}"

    def to(self, device: torch.device | str) -> Self:
        """Move encoder and head."""
        self.head.to(device)
        self.encoder.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) at 16 kHz -> (N,), differentiable in the waveform. DataError for an empty clip."""
        require_rate(samples, self.sample_rate, "preference")
        if not bool((samples.lengths > 0).all()):
            raise DataError("'preference' was given an empty clip", "the policy predicts no duration for a prompt")
        features = describe(self.encoder, samples, self.level_dbfs)
        novelty = self.head.standardised(features.detach()).square().mean(1).sqrt()
        return Scores(self.head(features), {"novelty": novelty})
