"""DNSMOS Pro as a reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.assets import obtain
from rlzoo.audio import full_precision, normalise_level, require_rate
from rlzoo.errors import DataError
from rlzoo_dnsmos_pro import BVCC, DNSMOSProOptions
from rlzoo_dnsmos_pro.network import RATE, TRAINED_SAMPLES, load, repeated


class DNSMOSProReward(Reward[DNSMOSProOptions]):
    """Predicted MOS, about 1 to 5, not clamped; `parts["variance"]` is its predicted variance between listeners.

    Needs 16 kHz, and hears how the audio was brought there: it listens to the end of the band. Clips shorter than 10 s
    are repeated to 10 s, as in its training. Raises DataError for an empty clip.
    """

    sample_rate = RATE

    def __init__(self, options: DNSMOSProOptions) -> None:
        super().__init__(options)
        self.network = load(obtain(BVCC, options.checkpoint))

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) at 16 kHz -> (N,), differentiable in the waveform."""
        require_rate(samples, self.sample_rate, "dnsmos-pro")
        if not bool((samples.lengths > 0).all()):
            raise DataError("'dnsmos-pro' was given an empty clip", "the policy predicts no duration for a prompt")
        if self.options.level_dbfs is not None:
            samples = normalise_level(samples, self.options.level_dbfs)
        waves = [repeated(samples.row(row).float()) for row in range(len(samples))]
        rows: list[torch.Tensor | None] = [None] * len(waves)
        with full_precision(samples.data.device):
            for piece in self._pieces(waves, samples.data.is_cuda):
                scores = self.network(torch.stack([waves[row] for row in piece]))
                for row, score in zip(piece, scores, strict=True):
                    rows[row] = score
        mean, variance = torch.stack([row for row in rows if row is not None]).unbind(1)
        return Scores(mean, {"variance": variance})

    def _pieces(self, waves: list[torch.Tensor], is_cuda: bool) -> list[list[int]]:
        """Rows of equal length together on a GPU; on a CPU one by one is no slower and keeps memory small."""
        short = [row for row, wave in enumerate(waves) if wave.shape[0] == TRAINED_SAMPLES]
        long = [[row] for row, wave in enumerate(waves) if wave.shape[0] != TRAINED_SAMPLES]
        size = 32 if is_cuda else 1
        return [short[start : start + size] for start in range(0, len(short), size)] + long
