"""Style: the recording condition and manner of an utterance, Z numbers that the voice learns from its recordings.

A reference encoder infers them from a recording while the voice is trained (a variational one; Hsu et al.,
arXiv:1810.07217), a small denoiser samples them while it speaks, and the mean spectrum depends on them. Shapes: B rows,
Z numbers, M bands, T frames, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo_gradtts.levels import LEVELS, alpha_of, embed_level

STATISTICS = 4
"""Numbers per band that `summarise` gives."""


def summarise(mel: Tensor) -> Tensor:
    """Log-mel spectrum (M, T) -> (4 M,): mean, spread, tenth percentile and mean step between frames of each band.

    They tell loudness, colour, bandwidth, noise and echo, and little of the words.
    """
    steps = mel.diff(dim=1).abs().mean(1) if mel.shape[1] > 1 else torch.zeros_like(mel[:, 0])
    return torch.cat([mel.mean(1), mel.std(1, correction=0), mel.quantile(0.1, dim=1), steps])


class ReferenceEncoder(nn.Module):
    """A recording's summary -> the posterior of its style, a diagonal Gaussian."""

    def __init__(self, bands: int, size: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(STATISTICS * bands, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.mean, self.log_variance = nn.Linear(hidden, size), nn.Linear(hidden, size)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -2.0)

    def forward(self, summary: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4 M) less the corpus' average where it is one -> mean and logarithm of the variance, (B, Z) each."""
        hidden = self.layers(summary)
        return self.mean(hidden), self.log_variance(hidden).clamp(-8, 2)


class StyleDenoiser(nn.Module):
    """v = alpha eps - sigma z of a noisy style, given the text: the part of the voice that chooses a style."""

    def __init__(self, size: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.noisy, self.level = nn.Linear(size, hidden), nn.Linear(2 * LEVELS, hidden)
        self.text = nn.Linear(channels, hidden)
        self.hidden, self.output = nn.Linear(hidden, hidden), nn.Linear(hidden, size)

    def forward(self, z_t: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """z_t (B, Z) at noise levels (B,), mean features of the text (B, C) -> the clean style (B, Z)."""
        inner = F.silu(self.noisy(z_t) + self.level(embed_level(sigma)) + self.text(text))
        v = self.output(F.silu(self.hidden(inner)))
        clean: Tensor = alpha_of(sigma)[:, None] * z_t - sigma[:, None] * v
        return clean


class StyledMean(nn.Module):
    """The mean log-mel spectrum of a text in a style: the plain one, coloured, and a floor of noise added to it."""

    def __init__(self, bands: int, size: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.bands = bands
        self.inner = nn.Conv1d(channels, channels, 1)
        self.styled = nn.Conv1d(channels, bands, 1)
        self.style = nn.Sequential(nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, 2 * bands + 2 * channels))
        nn.init.zeros_(self.styled.weight)

    def forward(self, features: Tensor, plain: Tensor, z: Tensor) -> Tensor:
        """Features (B, C, T), plain spectrum (B, M, T), styles (B, Z) -> (B, M, T), less the corpus' average."""
        channels = features.shape[1]
        colour, floor, scale, shift = self.style(z)[..., None].split([self.bands, self.bands, channels, channels], 1)
        inner = F.relu(self.inner(features) * (1 + scale) + shift)
        # Magnitudes of speech and noise add up, so that words are learnt from noisy recordings, too.
        return torch.logaddexp(plain + self.styled(inner) + colour, floor - FLOOR)


FLOOR = 3.0
"""Nepers below the corpus' average spectrum at which the floor of noise begins before anything is learnt."""


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(B, Z) each -> (B,): KL divergence of the posteriors from a standard normal distribution."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """(B, Z): one draw from each posterior."""
    return mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator, device=mean.device)


__all__ = ["ReferenceEncoder", "StyleDenoiser", "StyledMean", "divergence", "sample", "summarise"]
