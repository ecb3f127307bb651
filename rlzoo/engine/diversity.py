"""Distance between samples of one prompt. A collapsed policy says everything in one way."""

from __future__ import annotations

from itertools import combinations

import torch

from rlzoo.core.types import Samples
from rlzoo.engine.spectrogram import log_mel

_BANDS = 40
_FLOOR_DB = 60.0  # below the louder sample's maximum: what lies deeper is not heard, and would count most


@torch.no_grad()
def diversity(samples: Samples) -> float:
    """Mean over pairs of the N >= 2 samples of one prompt of how far they are apart, over the length both have.

    Audio: root mean square difference of log-mel spectrograms, in dB (40 bands, windows of about 32 ms every 16 ms).
    Anything else: root mean square difference.
    """
    waves = [samples.row(row).float().cpu() for row in range(len(samples))]
    rate = samples.media.sample_rate
    if samples.media.kind == "audio" and rate is not None:
        waves = [log_mel(wave, rate, _BANDS, hop=round(0.016 * rate)) for wave in waves]
    distances = []
    for one, other in combinations(waves, 2):
        size = min(one.shape[-1], other.shape[-1])
        a, b = one[..., :size], other[..., :size]
        if samples.media.kind == "audio":
            floor = torch.maximum(a.amax(), b.amax()) - _FLOOR_DB
            a, b = a.clamp(min=float(floor)), b.clamp(min=float(floor))
        distances.append(float((a - b).square().mean().sqrt()))
    return sum(distances) / len(distances)
