"""How much samples of one prompt differ. A policy that has collapsed says everything in one way."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from rlzoo._types import Samples
from rlzoo.audio import slaney_mel

_MELS = 40
_FLOOR_DB = 60.0  # below the louder sample's maximum: what lies deeper is not heard, and would count most


@torch.no_grad()
def diversity(samples: Samples) -> float:
    """Mean over pairs of the N >= 2 samples of one prompt of how far they are apart, over the length both have.

    Audio: root mean square difference of log-mel spectrograms, in dB (40 bands, windows of 32 ms every 16 ms). Anything
    else: root mean square difference.
    """
    waves = [samples.row(row).float().cpu() for row in range(len(samples))]
    rate = samples.media.sample_rate
    if samples.media.kind == "audio" and rate is not None:
        waves = [_log_mel(wave, rate) for wave in waves]
    distances = []
    for one, other in combinations(waves, 2):
        size = min(one.shape[-1], other.shape[-1])
        a, b = one[..., :size], other[..., :size]
        if samples.media.kind == "audio":
            floor = torch.maximum(a.amax(), b.amax()) - _FLOOR_DB
            a, b = a.clamp(min=float(floor)), b.clamp(min=float(floor))
        distances.append(float((a - b).square().mean().sqrt()))
    return sum(distances) / len(distances)


def _log_mel(wave: Tensor, rate: int) -> Tensor:
    """(L,) -> (mels, frames) in dB."""
    size = 1 << (round(0.032 * rate) - 1).bit_length()
    wave = torch.nn.functional.pad(wave, (0, max(0, size - wave.shape[-1])))
    window = torch.hann_window(size)
    power = torch.stft(wave, size, size // 2, window=window, center=False, return_complex=True).abs().square()
    return 10 * (slaney_mel(rate, size, _MELS).T @ power).clamp(min=1e-10).log10()
