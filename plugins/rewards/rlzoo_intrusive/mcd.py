"""Mel-cepstral distortion after dynamic time warping: how far apart are the spectra, wherever the phones fall."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import recording, require_rate, slaney_mel
from rlzoo_intrusive import MCDOptions

RATE = 16_000
FFT = 1024
HOP = 160
FLOOR = 1e-5
Matrix = NDArray[np.float64]


class MCDReward(Reward[MCDOptions]):
    """-MCD in dB, averaged over the warping path; 0 is the recording itself.

    MCD = 10 / ln 10 · sqrt(2 sum_d (c_d - c'_d)^2) (Kubichek, 1993) on cosine-transformed log-mel bands. Figures made
    with another cepstrum (SPTK, WORLD) do not compare.
    """

    sample_rate = RATE

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at 16 kHz, prompts with recordings -> (N,). Not differentiable."""
        require_rate(samples, self.sample_rate, "mcd")
        values = []
        for row, prompt in enumerate(prompts):
            spoken = self.cepstrum(samples.row(row).detach().cpu().float())
            wanted = self.cepstrum(recording(prompt, RATE, "mcd"))
            values.append(-warped_distance(spoken, wanted))
        return Scores(torch.tensor(values, dtype=torch.float32, device=samples.data.device))

    def cepstrum(self, wave: Tensor) -> Matrix:
        """(L,) -> (frames, coefficients)."""
        o = self.options
        wave = F.pad(wave, (0, max(0, FFT - wave.shape[0])))
        window = torch.hann_window(FFT)
        magnitude = torch.stft(wave, FFT, HOP, window=window, pad_mode="constant", return_complex=True).abs()
        log_mel = (slaney_mel(RATE, FFT, o.mels).T @ magnitude).clamp(min=FLOOR).log().T.double()
        band = torch.arange(o.mels, dtype=torch.float64) + 0.5
        order = torch.arange(1, o.coefficients + 1, dtype=torch.float64)
        cosine = math.sqrt(2 / o.mels) * torch.cos(math.pi / o.mels * band[:, None] * order)
        result: Matrix = (log_mel @ cosine).numpy()
        return result


def warped_distance(a: Matrix, b: Matrix) -> float:
    """(S, D), (T, D) -> mean distortion in dB along the cheapest path from corner to corner, steps of one frame."""
    squares = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)
    cost = 10 / math.log(10) * np.sqrt(2 * squares)
    total, steps = cheapest_path(cost)
    return total / steps


def cheapest_path(cost: Matrix) -> tuple[float, int]:
    """(S, T) -> its sum and its number of cells; by anti-diagonals, of which each cell needs only earlier ones."""
    S, T = cost.shape
    # Row s + 1 of `total` belongs to row s of `cost`; the border stands for cells outside.
    total = np.full((S + 1, T + 1), np.inf)
    count = np.zeros((S + 1, T + 1), dtype=np.int64)
    total[0, 0] = 0.0
    for diagonal in range(S + T - 1):
        s = np.arange(max(0, diagonal - T + 1), min(S, diagonal + 1))
        t = diagonal - s
        before = np.stack([total[s, t], total[s, t + 1], total[s + 1, t]])
        counts = np.stack([count[s, t], count[s, t + 1], count[s + 1, t]])
        choice = before.argmin(0)
        cells = np.arange(len(s))
        total[s + 1, t + 1] = before[choice, cells] + cost[s, t]
        count[s + 1, t + 1] = counts[choice, cells] + 1
    return float(total[S, T]), int(count[S, T])
