"""Losses of one training step: those of Grad-TTS with known durations (arXiv:2105.06337, Eq. 14-16), and
those of a variational style (Hsu et al., arXiv:1810.07217)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlzoo.functional import length_mask
from rlzoo_gradtts.data import Batch
from rlzoo_gradtts.levels import alpha_of, noise_level
from rlzoo_gradtts.network import GradTTSNetwork
from rlzoo_gradtts.style import divergence, sample

STYLE_WEIGHT = 1e-3
"""Weight of the style's divergence, in nats: the other losses are means over some 20,000 numbers of an utterance."""
CLEAN_RATE = 0.01
"""Rate at which the mean style of clean recordings follows its encoder."""


class Losses(nn.Module):
    """Mean squared errors of the mean spectrum, of v, of durations and of pitch, the last two in logarithms; of the
    style its divergence, weighted, and the mean squared error of its denoiser."""

    def __init__(self, network: GradTTSNetwork, mean_steps: int = 0) -> None:
        """The first `mean_steps` steps leave out the chain, which costs most of a step and learns from a mean that is
        good."""
        super().__init__()
        self.network, self.mean_steps = network, mean_steps
        self.made: Tensor
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """A batch on the CPU -> named losses, scalars on the network's device; their sum is what training lowers."""
        network, size = self.network, batch.mel.shape[2]
        starts, sizes, phones = batch.starts.tolist(), batch.sizes.tolist(), batch.phones.tolist()
        totals = batch.frames.sum(1).tolist()
        batch = batch.to(network.average.device)
        mask = length_mask(batch.sizes, size)[:, None].float()
        encoded, planned = network.encode(batch.ids, batch.phones)
        expanded = torch.zeros(len(batch.ids), size, encoded.shape[1], device=encoded.device)
        contour = torch.zeros(len(batch.ids), size, device=encoded.device)
        for row, (count, start, frames, total) in enumerate(zip(phones, starts, sizes, totals, strict=True)):
            whole = network.expand(encoded[row, :, :count], batch.frames[row, :count], batch.contour[row, :total])
            expanded[row, :frames] = whole[start : start + frames]
            contour[row, :frames] = batch.contour[row, start : start + frames]
        features, plain = network.decode(expanded, contour, mask)
        centre, log_variance = network.posterior(batch.summary)
        self._follow(centre, batch.clean)
        style = sample(centre, log_variance, generator)
        target = batch.mel * mask
        mean = network.mean_spectrum(features, plain, style) * mask
        real = length_mask(batch.phones, batch.ids.shape[1])
        elements = mask.sum() * mean.shape[1]
        parts = {
            "mean": ((mean - target) ** 2).sum() / elements,
            "durations": (planned.log_frames - (batch.frames + 0.5).log())[real].square().mean(),
            "pitch": (planned.log_pitch - batch.log_pitch)[real].square().mean(),
            "style": STYLE_WEIGHT * divergence(centre, log_variance).mean(),
        }
        self.made += 1
        if int(self.made) <= self.mean_steps:
            return parts
        # The chain is trained on what the rest of the network is. It bends the features alone.
        fixed = style.detach()
        clean = (target - mean.detach()) / network.config.residual_scale
        sigma = noise_level(torch.rand(len(mean), generator=generator, device=mean.device))
        level = sigma[:, None, None]
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        style_noise = torch.randn(style.shape, generator=generator, device=mean.device)
        noisy_style = alpha_of(sigma)[:, None] * fixed + sigma[:, None] * style_noise
        text = ((features * mask).sum(2) / mask.sum(2)).detach()
        predicted = network.style_denoiser(noisy_style, sigma, text)
        noisy = (alpha_of(level) * clean + level * noise) * mask
        v = network.denoiser(noisy, sigma, features, predicted.detach(), mask)
        return {
            **parts,
            "diffusion": ((v - (alpha_of(level) * noise - level * clean)) ** 2 * mask).sum() / elements,
            # An error of the clean style over sigma is one of v.
            "style_diffusion": ((predicted - fixed) / sigma[:, None]).square().mean(),
        }

    @torch.no_grad()
    def _follow(self, centre: Tensor, clean: Tensor) -> None:
        if bool(clean.any()):
            self.network.clean_style.lerp_(centre[clean].float().mean(0), CLEAN_RATE)
