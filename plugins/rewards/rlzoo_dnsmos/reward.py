"""DNSMOS as a reward: equal to the published package, batched, on any device, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import full_precision, normalise_level, require_rate
from rlzoo.errors import DataError
from rlzoo_dnsmos import DNSMOSOptions, clips, weights
from rlzoo_dnsmos.p808 import P808

if TYPE_CHECKING:
    from rlzoo_dnsmos.p835 import P835


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
        if not bool((samples.lengths > 0).all()):
            raise DataError(
                "'dnsmos' was given an empty clip", "the policy predicts no duration for one of its prompts"
            )
        if self.options.level_dbfs is not None:
            samples = normalise_level(samples, self.options.level_dbfs)
        with full_precision(samples.data.device):
            rows = torch.stack([self._row(samples, row) for row in range(len(samples))])
        if self.options.model == "p808":
            return Scores(rows[:, 0])
        from rlzoo_dnsmos.p835 import PARTS

        parts = dict(zip(PARTS, rows.unbind(1), strict=True))
        return Scores(parts[self.options.part], parts)

    def _row(self, samples: Samples, row: int) -> torch.Tensor:
        clip = clips.repeated(samples.row(row).float())
        scores: torch.Tensor = self.network(clip, clips.windows(clip.shape[0]))
        return scores.mean(0)
