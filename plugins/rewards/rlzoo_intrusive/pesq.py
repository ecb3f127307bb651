"""PESQ: for speech that keeps the recording's timing, as with forced durations or a vocoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pesq import BufferTooShortError, NoUtterancesError, pesq

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo_intrusive import PESQOptions
from rlzoo_intrusive.aligned import RATE, pairs

FLOOR = 1.0
"""MOS-LQO of no speech."""


class PESQReward(Reward[PESQOptions]):
    """Wide-band PESQ (ITU-T P.862.2), MOS-LQO; 1.0 if it finds no utterance or less than a quarter of a second.

    Sample and recording must agree in time, up to small shifts, which PESQ aligns itself.
    """

    sample_rate = RATE

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at 16 kHz, prompts with recordings -> (N,). Not differentiable."""
        values = []
        for wanted, spoken in pairs(samples, prompts, "pesq"):
            if not (wanted.any() and spoken.any()):
                values.append(FLOOR)  # pesq divides by the power of either
                continue
            try:
                values.append(float(pesq(RATE, wanted.numpy(), spoken.numpy(), "wb")))
            except (NoUtterancesError, BufferTooShortError):
                values.append(FLOOR)
        return Scores(torch.tensor(values, dtype=torch.float32, device=samples.data.device))
