"""DNSMOS as a reward: equal to the published package, batched, on any device, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import full_precision, normalise_level, require_rate
from rlzoo.errors import DataError
from rlzoo_dnsmos import DNSMOSOptions, clips, weights
from rlzoo_dnsmos.p808 import P808

if TYPE_CHECKING:
    from rlzoo_dnsmos.p835 import P835

CLIPS_AT_ONCE = 32
"""On a GPU; all are filled up to the longest one's length."""


class DNSMOSReward(Reward[DNSMOSOptions]):
    """Mean over the windows of a clip of the predicted MOS; `parts` has all three of P.835.

    Needs 16 kHz. A clip shorter than 9.01 s is repeated until it fills a window, as the published package does, so
    score differences between clips of very different lengths include that. Raises DataError for an empty clip.
    """

    sample_rate = clips.RATE

    def __init__(self, options: DNSMOSOptions) -> None:
        super().__init__(options)
        self.network: P808 | P835
        half = options.precision == "bfloat16"
        if options.model == "p808":
            self.network = P808(weights.tensors(weights.P808), half)
        else:
            from rlzoo_dnsmos.p835 import P835

            file = weights.P835_PERSONALIZED if options.personalized else weights.P835
            self.network = P835(weights.tensors(file), options.personalized, half)
        self.network.eval()

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) at 16 kHz -> (N,), differentiable in the waveform."""
        require_rate(samples, self.sample_rate, "dnsmos")
        lengths = samples.lengths.tolist()
        if min(lengths, default=1) < 1:
            raise DataError(
                "'dnsmos' was given an empty clip", "the policy predicts no duration for one of its prompts"
            )
        if self.options.level_dbfs is not None:
            samples = normalise_level(samples, self.options.level_dbfs)
        with full_precision(samples.data.device):
            # On a CPU row by row: no bit of a score depends on batch mates, and pictures stay in the caches.
            size = 1 if samples.data.device.type == "cpu" else CLIPS_AT_ONCE
            pieces = [slice(first, first + size) for first in range(0, len(samples), size)]
            rows = torch.cat([self._together(samples.data[piece].float(), lengths[piece]) for piece in pieces])
        if self.options.model == "p808":
            return Scores(rows[:, 0])
        from rlzoo_dnsmos.p835 import PARTS

        parts = dict(zip(PARTS, rows.unbind(1), strict=True))
        return Scores(parts[self.options.part], parts)

    def _together(self, data: Tensor, lengths: list[int]) -> Tensor:
        """(N, L), of which `lengths` are real -> (N, parts)"""
        starts = [clips.windows(clips.filled(length)) for length in lengths]
        windows = [(row, start) for row, own in enumerate(starts) for start in own]
        scores: Tensor = self.network(clips.repeated(data, lengths), windows)
        return torch.stack([own.mean(0) for own in scores.split([len(own) for own in starts])])
