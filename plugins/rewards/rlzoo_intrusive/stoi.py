"""STOI: for speech that keeps the recording's timing, as with forced durations or a vocoder."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pystoi import stoi

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo_intrusive import STOIOptions
from rlzoo_intrusive.aligned import RATE, pairs

FLOOR = 1e-5
"""Score that pystoi returns for too little speech."""
MIN_SAMPLES = RATE // 8


@contextlib.contextmanager
def _fixed_draws() -> Iterator[None]:
    """Pystoi keeps silence from dividing by zero with numpy's global generator; a score must not depend on that."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


class STOIReward(Reward[STOIOptions]):
    """(Extended) STOI as pystoi computes it (Taal et al., 2011); about 0 for less than 0.4 s of speech.

    Sample and recording must agree in time: a shift of a syllable looks like unintelligible speech.
    """

    sample_rate = RATE

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at 16 kHz, prompts with recordings -> (N,). Not differentiable."""
        values = []
        for wanted, spoken in pairs(samples, prompts, "stoi"):
            if len(spoken) < MIN_SAMPLES:
                values.append(FLOOR)  # pystoi fails where it has not one frame
                continue
            with warnings.catch_warnings(), _fixed_draws():
                # Too little speech: pystoi warns and returns 1e-5, which is what the docstring promises.
                warnings.filterwarnings("ignore", message="Not enough STFT frames", category=RuntimeWarning)
                values.append(float(stoi(wanted.numpy(), spoken.numpy(), RATE, extended=self.options.extended)))
        return Scores(torch.tensor(values, dtype=torch.float32, device=samples.data.device))
