"""Grad-TTS's parts (Popov et al., arXiv:2105.06337), all convolutions in time: an encoder of phones with durations and
pitch, a mean log-mel spectrum, and a denoiser of what remains.

A state (M, 1 + T) holds the style, Z numbers, in its first column, and behind it the residual: what the mean spectrum
of that style leaves out. Shapes: B rows, P phones, T frames, M bands, C channels.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.functional import length_mask
from rlzoo_gradtts.levels import LEVELS, alpha_of, embed_level
from rlzoo_gradtts.style import STATISTICS, ReferenceEncoder, StyleDenoiser, StyledMean

Positive = Annotated[int, Field(ge=1, le=1 << 16)]
Scale = Annotated[float, Field(gt=0, le=1000)]
REFERENCE_PITCH = 100.0
"""Hertz; pitch is predicted as a logarithm relative to it."""


class NetworkConfig(BaseModel):
    """Size of a network and what it generates; stored with its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sample_rate: Annotated[int, Field(ge=1_000, le=384_000)] = 16_000
    fft: Positive = 800
    """Samples, the window's length too."""
    hop: Positive = 200
    bands: Positive = 128
    """80 bands cost 1.2 points of Distill-MOS in Griffin-Lim alone."""
    floor: Scale = 1e-4
    """Smallest mel magnitude; a higher one is heard: at 1e-3 Griffin-Lim of recordings loses 1.5 points of NISQA."""
    residual_scale: Scale = 0.5
    """The diffusion runs on (log-mel - mean) / this, which makes its clean states about as large as its noise."""
    phones: Positive = 88
    """Rows of the embedding."""
    channels: Positive = 128
    style: Positive
    """Numbers of a style, at most as many as bands. Voices before styles have none and are refused."""
    style_hidden: Positive = 64
    encoder_layers: Positive = 6
    decoder_dilations: tuple[Positive, ...] = (1, 2, 4, 8, 1, 2)
    denoiser_dilations: tuple[Positive, ...] = (1, 2, 4, 8, 1, 2, 4, 8)

    @property
    def shortest(self) -> int:
        """Fewest frames T whose waveform, (T - 1)·hop, is longer than the half window that is mirrored at its ends."""
        return self.fft // (2 * self.hop) + 2


class Prosody(NamedTuple):
    """Plan of every phone: logarithm of its frames + 1/2, and of its pitch over 100 Hz; (B, P) each."""

    log_frames: Tensor
    log_pitch: Tensor


class Convolutions(nn.Module):
    """Residual convolutions of width 5, zero on padding."""

    def __init__(self, channels: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, 5, padding=2 * d, dilation=d) for d in dilations)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, C, T), mask (B, 1, T) -> (B, C, T)."""
        x = x * mask
        for layer in self.layers:
            x = (x + F.relu(layer(x))) * mask
        return x


def predictor(channels: int) -> nn.Sequential:
    """(B, C, P) -> (B, 1, P)."""
    return nn.Sequential(nn.Conv1d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv1d(channels, 1, 3, padding=1))


def predict(layers: nn.Sequential, x: Tensor, mask: Tensor) -> Tensor:
    """Apply a `predictor` to (B, C, P) with mask (B, 1, P) -> (B, P); padding is zero inside it too."""
    first, bend, last = layers
    predicted: Tensor = last(bend(first(x)) * mask)
    return predicted[:, 0]


class Gated(nn.Module):
    """A layer of the denoiser: WaveNet's gated convolution with the frames beside it (DiffWave, arXiv:2009.09761)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.level = nn.Linear(channels, channels)
        self.convolution = nn.Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.frames = nn.Conv1d(channels, 2 * channels, 1)
        self.output = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, x: Tensor, level: Tensor, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, T), level (B, C), frames (B, C, T) -> what goes on and what is skipped to the end, (B, C, T) each."""
        inner = (x + self.level(level)[..., None]) * mask
        gate, signal = (self.convolution(inner) + self.frames(frames)).chunk(2, 1)
        residual, skip = self.output(gate.sigmoid() * signal.tanh()).chunk(2, 1)
        return (x + residual) / math.sqrt(2), skip


class Denoiser(nn.Module):
    """v = alpha eps - sigma x0 (Salimans & Ho, arXiv:2202.00512) of a noisy residual."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c = config.channels
        self.input = nn.Conv1d(config.bands, c, 1)
        self.level = nn.Sequential(nn.Linear(2 * LEVELS, c), nn.SiLU(), nn.Linear(c, c))
        self.style = nn.Linear(config.style, c)
        self.layers = nn.ModuleList(Gated(c, dilation) for dilation in config.denoiser_dilations)
        hidden, last = nn.Conv1d(c, c, 1), nn.Conv1d(c, config.bands, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.output = nn.Sequential(hidden, nn.ReLU(), last)

    def forward(self, x: Tensor, sigma: Tensor, frames: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        """(B, M, T) at noise levels sigma (B,), frames (B, C, T), styles (B, Z), mask (B, 1, T) -> (B, M, T)."""
        level = self.level(embed_level(sigma)) + self.style(style)
        y, skips = F.relu(self.input(x)), torch.zeros((), device=x.device)
        for layer in self.layers:
            y, skip = layer(y, level, frames, mask)
            skips = skips + skip
        output: Tensor = self.output(skips / math.sqrt(len(self.layers))) * mask
        return output


class Bands(nn.Module):
    """A scale and a shift of the clean residual that the denoiser predicts, in every band; the identity at first.

    Loudness, spectral tilt, the sharpness of formants and how much of the noise stays in are of this kind.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.zeros(bands)), nn.Parameter(torch.zeros(bands))

    def forward(self, clean: Tensor) -> Tensor:
        """(B, M, T) -> (B, M, T)."""
        return clean * (1 + self.scale[:, None]) + self.shift[:, None]


def column(style: Tensor, bands: int) -> Tensor:
    """(..., Z) -> (..., M, 1): the first column of a state, whose other rows are unused."""
    return F.pad(style, (0, bands - style.shape[-1]))[..., None]


def state_mask(frames: Tensor, style: int, bands: int, size: int) -> Tensor:
    """Frames (B,) -> (B, M, 1 + T) bool: the real part of a state; `style` is Z, `size` is 1 + T."""
    mask = length_mask(frames + 1, size)[:, None].repeat(1, bands, 1)
    mask[:, style:, 0] = False
    return mask


class PlainSpectrum(nn.Module):
    """The log-mel spectrum of a text before its style: an envelope, and on it the ripple of the pitch's harmonics.

    A voiced log spectrum repeats along frequency with the period of the pitch: the first terms of its Fourier series,
    with a gain for every band. They fade where bands are wider than harmonics are apart, the finer ones first.
    """

    TERMS = 4

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.envelope = nn.Conv1d(config.channels, config.bands, 1)
        self.gains = nn.Conv1d(config.channels, self.TERMS * config.bands, 1)
        for parameter in self.gains.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, phase: Tensor, fade: Tensor) -> Tensor:
        """Features (B, C, T), band centres over the pitch in radians and how much ripple is left (B, M, T) each ->
        (B, M, T)."""
        spectrum: Tensor = self.envelope(features)
        for order, gain in enumerate(self.gains(features).chunk(self.TERMS, 1), 1):
            spectrum = spectrum + gain * fade ** (order * order) * (order * phase).cos()
        return spectrum


class GradTTSNetwork(nn.Module):
    """Phones -> frames and mean spectrum; noisy state -> clean one."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.embedding = nn.Embedding(config.phones, c)
        self.encoder = Convolutions(c, (1,) * config.encoder_layers)
        self.durations, self.pitch = predictor(c), predictor(c)
        self.place = nn.Linear(4, c)
        self.comb = nn.Linear(config.bands, c)
        self.decoder = Convolutions(c, config.decoder_dilations)
        self.plain = PlainSpectrum(config)
        self.mean = StyledMean(config.bands, config.style, c, config.style_hidden)
        self.reference = ReferenceEncoder(config.bands, config.style, 2 * config.style_hidden)
        self.style_denoiser = StyleDenoiser(config.style, c, config.style_hidden)
        self.denoiser = Denoiser(config)
        self.average: Tensor
        """(M,): mean log-mel spectrum of the corpus."""
        self.register_buffer("average", torch.zeros(config.bands))
        self.clean_style: Tensor
        """(Z,): mean style of the recordings without a condition."""
        self.register_buffer("clean_style", torch.zeros(config.style))
        centres, spacing = band_centres(config)
        self.centres: Tensor
        self.spacing: Tensor
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("spacing", spacing, persistent=False)

    def encode(self, ids: Tensor, phones: Tensor) -> tuple[Tensor, Prosody]:
        """ids (B, P) of which phones (B,) are real -> (B, C, P) and what it plans for every phone."""
        mask = length_mask(phones, ids.shape[1])[:, None].float()
        encoded = self.encoder(self.embedding(ids).transpose(1, 2), mask)
        # Prosody is read off what the spectrum needs, and does not bend it.
        still = encoded.detach()
        return encoded, Prosody(predict(self.durations, still, mask), predict(self.pitch, still, mask))

    def expand(self, encoded: Tensor, frames: Tensor, contour: Tensor) -> Tensor:
        """One row: encoded (C, P), frames (P,) int64, pitch of every frame (T,) -> (T, C), before the decoder.

        A frame knows its phone, where in it it is, how long the phone is, its pitch, and where the harmonics of that
        pitch lie among the bands: a comb, fading where bands are wider than harmonics are apart.
        """
        total = int(frames.sum())
        starts = frames.cumsum(0) - frames
        phone = torch.repeat_interleave(torch.arange(len(frames), device=frames.device), frames, output_size=total)
        inside = (torch.arange(total, device=frames.device) - starts[phone]).float()
        size = frames[phone].float()
        phase, fade = self.harmonics(contour)
        comb = (phase.cos() * fade).t()
        place = torch.stack([inside / size, (size - 1 - inside) / size, size / 10, contour], 1)
        expanded: Tensor = encoded.t()[phone] + self.place(place) + self.comb(comb)
        return expanded

    def harmonics(self, contour: Tensor) -> tuple[Tensor, Tensor]:
        """Pitch (..., T) -> phase of every band among the harmonics, in radians, and how much of their ripple its width
        leaves, (..., M, T) each."""
        hertz = REFERENCE_PITCH * contour.exp()[..., None, :]
        spread = 2 * self.spacing[:, None] / hertz
        return 2 * math.pi * self.centres[:, None] / hertz, torch.exp(-(spread**2))

    def decode(self, expanded: Tensor, contour: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C), pitch (B, T), mask (B, 1, T) -> features (B, C, T), plain spectrum (B, M, T) less the average."""
        features: Tensor = self.decoder(expanded.transpose(1, 2), mask)
        return features, self.plain(features, *self.harmonics(contour)) * mask

    def mean_spectrum(self, features: Tensor, plain: Tensor, style: Tensor) -> Tensor:
        """Result of `decode` and styles (B, Z) -> mean log-mel spectrum (B, M, T)."""
        mean: Tensor = self.mean(features, plain, style) + self.average[:, None]
        return mean

    def posterior(self, summary: Tensor) -> tuple[Tensor, Tensor]:
        """`summarise` of recordings (B, 4 M) -> mean and logarithm of the variance of their styles, (B, Z) each."""
        level = self.average.new_zeros(STATISTICS, len(self.average))
        level[0] = level[2] = self.average  # a mean and a percentile are levels, the others are differences
        mean, log_variance = self.reference(summary - level.flatten())
        return mean, log_variance

    def clean(
        self, x: Tensor, sigma: Tensor, features: Tensor, mask: Tensor, style: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noisy states (B, M, 1 + T) at levels sigma (B,), mask of `state_mask` as numbers -> the clean styles (B, Z)
        and residuals (B, M, T) that are predicted. With `style` (B, Z), the residual in that style."""
        frames = mask[:, :1, 1:]
        if style is None:
            text = (features * frames).sum(2) / frames.sum(2)
            style = self.style_denoiser(x[:, : self.config.style, 0], sigma, text)
        return style, self.residual(x[..., 1:], sigma, features, style, frames)

    def residual(self, x: Tensor, sigma: Tensor, features: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        """Noisy residuals (B, M, T) at levels sigma (B,) in styles (B, Z) -> the clean ones that are predicted."""
        level = sigma[:, None, None]
        v: Tensor = self.denoiser(x * mask, sigma, features, style, mask)
        return (alpha_of(level) * x - level * v) * mask


def along(values: Tensor, centres: Tensor, total: int) -> Tensor:
    """Values (P,) at centres (P,) in frames, rising -> (T,), linear between and constant beyond."""
    if len(values) == 1:
        return values.expand(total)
    frame = torch.arange(total, device=values.device) + 0.5
    right = torch.searchsorted(centres.contiguous(), frame).clamp(1, len(values) - 1)
    left = right - 1
    weight = (frame - centres[left]) / (centres[right] - centres[left]).clamp(min=1e-3)
    return torch.lerp(values[left], values[right], weight.clamp(0, 1))


def band_centres(config: NetworkConfig) -> tuple[Tensor, Tensor]:
    """Centre of every band and distance to the next, (M,) each, in hertz (the Slaney scale of `Mel`)."""
    # Linear up to 1 kHz with 200/3 Hz a mel, then 27 mels for each factor of 6.4.
    top = 15 + 27 * math.log(config.sample_rate / 2000) / math.log(6.4)
    mels = torch.linspace(0, top, config.bands + 2, dtype=torch.float64)
    hertz = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))
    return hertz[1:-1].float(), hertz.diff()[1:].float()
