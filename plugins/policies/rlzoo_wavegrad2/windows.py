"""Crops of an utterance that the denoiser treats as it treats the whole: a window of frames with a halo around it.

Inside the window nothing that reaches an output lies beyond the crop. Where the utterance ends the crop ends too, so
its edges are padded as they are in the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rlzoo.api import Batch, Crop
from rlzoo_wavegrad2.network import NetworkConfig


def halo(config: NetworkConfig) -> int:
    """Hidden frames around a window that its outputs depend on, on either side.

    Reaches are counted in samples of each rate outside the window, whose ends lie between frames: from the output up
    to the frames, then each rate's modulation down from the noisy waveform.
    """
    factors, hop = config.factors, config.hop
    rate = hop  # samples per frame where `reach` is counted
    reach, needed = 1, [1]  # the last convolution
    modulations: list[int] = []
    for factor, dilations in zip(factors[::-1], config.dilations[::-1], strict=True):
        inner = sum(dilations[1:])
        # A block of the large network is followed by a second one at its rate, all of it modulated.
        reach += inner + sum(dilations) if config.large else inner
        modulations.append(reach + 2)  # through the modulation's own two convolutions
        reach += dilations[0]
        needed.append(-(-reach // rate))
        rate //= factor
        reach = -(-(2 * reach - 1 + factor) // (2 * factor))  # linear interpolation from the rate below
        needed.append(-(-reach // rate))
    needed.append(reach + 1)  # the convolution on the frames
    # Down: each rate must reach as far as its modulation asks, and as far as the rate below it.
    down = 0
    convolutions = 14 if config.large else 7
    for factor, finer, modulation in zip(factors, (*factors[1:], 0), modulations[::-1], strict=True):
        rate *= factor
        down = max(down, modulation)
        needed.append(-(-down // rate))
        if finer:  # each coarse sample is the middle of `finer` samples
            down = (down + convolutions) * finer - (finer - 1) // 2
    needed.append(-(-(down + 2) // hop))
    return max(needed)


def crop(config: NetworkConfig, cond: Batch, first: Tensor, count: Tensor) -> tuple[Batch, Crop]:
    """See `Policy.crop`; adds `start` (N,), first frame of the crop, and `window` (N, 2), frames of it in the crop."""
    around = halo(config)
    start = (first - around).clamp(min=0)
    frames = torch.minimum(first + count + around, cond.get("frames")) - start
    place = Crop(start, frames)
    tensors = {
        **cond.tensors,
        "frames": frames,
        "hidden": place.cut(cond.get("hidden")),
        "start": start,
        "window": torch.stack([first - start, first - start + count], 1),
    }
    return Batch(tensors), Crop(start * config.hop, frames * config.hop)
