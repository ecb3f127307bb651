"""What one training step lowers: Grad-TTS's losses with durations that are known (arXiv:2105.06337, Eq. 14-16)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rlzoo.functional import length_mask
from rlzoo_gradtts.data import Batch
from rlzoo_gradtts.network import GradTTSNetwork


def noise_level(uniform: Tensor) -> Tensor:
    """Uniform draws in [0, 1) -> sigma = sin(pi u / 2): the angles of (alpha, sigma) are spread evenly."""
    return (uniform * (math.pi / 2)).sin().clamp(0.01, 0.999)


class Losses(nn.Module):
    """Mean squared errors of the mean spectrum, of v, of durations and of pitch, the last two in logarithms."""

    def __init__(self, network: GradTTSNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """A batch on the CPU -> named losses, scalars on the network's device; their sum is what training lowers."""
        network, size = self.network, batch.mel.shape[2]
        starts, sizes, phones = batch.starts.tolist(), batch.sizes.tolist(), batch.phones.tolist()
        batch = batch.to(network.average.device)
        mask = length_mask(batch.sizes, size)[:, None].float()
        encoded, planned = network.encode(batch.ids, batch.phones)
        expanded = torch.zeros(len(batch.ids), size, encoded.shape[1], device=encoded.device)
        for row, (count, start, frames) in enumerate(zip(phones, starts, sizes, strict=True)):
            whole = network.expand(encoded[row, :, :count], batch.frames[row, :count], batch.log_pitch[row, :count])
            expanded[row, :frames] = whole[start : start + frames]
        features, mean = network.decode(expanded, mask)
        target = (batch.mel - network.average[:, None]) * mask
        clean = (target - mean.detach()) / network.config.residual_scale
        sigma = noise_level(torch.rand(len(mean), generator=generator, device=mean.device))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        level = sigma[:, None, None]
        alpha = (1 - level**2).sqrt()
        v = network.denoiser((alpha * clean + level * noise) * mask, sigma, features, mask)
        real = length_mask(batch.phones, batch.ids.shape[1])
        elements = mask.sum() * mean.shape[1]
        return {
            "mean": ((mean - target) ** 2).sum() / elements,
            "diffusion": ((v - (alpha * noise - level * clean)) ** 2 * mask).sum() / elements,
            "durations": (planned.log_frames - (batch.frames + 0.5).log())[real].square().mean(),
            "pitch": (planned.log_pitch - batch.log_pitch)[real].square().mean(),
        }
