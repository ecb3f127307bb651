"""STOI and PESQ: for speech that keeps the recording's timing, as with forced durations or a vocoder."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pesq import BufferTooShortError, NoUtterancesError, pesq
from pystoi import stoi
from torch import Tensor

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import require_rate
from rlzoo_intrusive import PESQOptions, STOIOptions
from rlzoo_intrusive.recordings import recording

RATE = 16_000
PESQ_FLOOR = 1.0
STOI_FLOOR = 1e-5
"""What pystoi says of too little speech."""
STOI_SAMPLES = RATE // 8


@contextlib.contextmanager
def _fixed_draws() -> Iterator[None]:
    """Pystoi keeps silence from dividing by zero with numpy's global generator; a score must not depend on that."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def _pairs(samples: Samples, prompts: Sequence[Prompt], who: str) -> list[tuple[Tensor, Tensor]]:
    """(recording, sample) of each row, both cut to the shorter; what is missing or surplus at the end is not heard."""
    require_rate(samples, RATE, who)
    pairs = []
    for row, prompt in enumerate(prompts):
        wanted, spoken = recording(prompt, RATE, who), samples.row(row).detach().cpu().float()
        size = min(len(wanted), len(spoken))
        pairs.append((wanted[:size], spoken[:size]))
    return pairs


class STOIReward(Reward[STOIOptions]):
    """(Extended) STOI as pystoi computes it (Taal et al., 2011); about 0 for less than 0.4 s of speech.

    Sample and recording must agree in time: a shift of a syllable looks like unintelligible speech.
    """

    sample_rate = RATE

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at 16 kHz, prompts with recordings -> (N,). Not differentiable."""
        values = []
        for wanted, spoken in _pairs(samples, prompts, "stoi"):
            if len(spoken) < STOI_SAMPLES:
                values.append(STOI_FLOOR)  # pystoi fails where it has not one frame
                continue
            with warnings.catch_warnings(), _fixed_draws():
                # Too little speech: pystoi warns and returns 1e-5, which is what the docstring promises.
                warnings.filterwarnings("ignore", message="Not enough STFT frames", category=RuntimeWarning)
                values.append(float(stoi(wanted.numpy(), spoken.numpy(), RATE, extended=self.options.extended)))
        return Scores(torch.tensor(values, dtype=torch.float32, device=samples.data.device))


class PESQReward(Reward[PESQOptions]):
    """Wide-band PESQ (ITU-T P.862.2), MOS-LQO; 1.0 where it finds no utterance or less than a quarter of a second.

    Sample and recording must agree in time, up to small shifts, which PESQ aligns itself.
    """

    sample_rate = RATE

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at 16 kHz, prompts with recordings -> (N,). Not differentiable."""
        values = []
        for wanted, spoken in _pairs(samples, prompts, "pesq"):
            if not (wanted.any() and spoken.any()):
                values.append(PESQ_FLOOR)  # pesq divides by the power of either
                continue
            try:
                values.append(float(pesq(RATE, wanted.numpy(), spoken.numpy(), "wb")))
            except (NoUtterancesError, BufferTooShortError):
                values.append(PESQ_FLOOR)
        return Scores(torch.tensor(values, dtype=torch.float32, device=samples.data.device))
