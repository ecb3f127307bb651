"""UTMOS as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.assets import obtain
from rlzoo.audio import full_precision, normalise_level, require_rate
from rlzoo.wav2vec2 import in_pieces
from rlzoo_utmos import STRONG, UTMOSOptions
from rlzoo_utmos.checkpoint import load


class UTMOSReward(Reward[UTMOSOptions]):
    """Predicted MOS; not clamped, so it may leave [1, 5].

    Needs 16 kHz. Trained on clips of up to 10 s. A clip shorter than 400 samples (25 ms) is lengthened with zeros.
    Construction raises DataError if the weights are unavailable or are not those of the strong learner.
    """

    sample_rate = 16_000

    def __init__(self, options: UTMOSOptions) -> None:
        super().__init__(options)
        self.network = load(obtain(STRONG, options.checkpoint))

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) at 16 kHz -> (N,), differentiable in the waveform."""
        require_rate(samples, self.sample_rate, "utmos")
        if self.options.level_dbfs is not None:
            samples = normalise_level(samples, self.options.level_dbfs)
        device = samples.data.device
        half = self.options.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16) if half else full_precision(device):
            return Scores(in_pieces(self.network, samples.data, samples.lengths).float())
