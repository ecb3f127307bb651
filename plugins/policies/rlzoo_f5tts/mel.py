"""Between waveforms and what F5-TTS generates: log-mel spectra, Vocos back to a waveform, Griffin-Lim without weights.

**M** bands, **T** frames, **L** samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import griffinlim, melscale_fbanks

RATE = 24_000
FFT, HOP, BANDS = 1024, 256, 100
FLOOR = 1e-5
LOUDEST = 1e2
"""Vocos' largest magnitude of one bin."""


class Mel(nn.Module):
    """Log-mel magnitudes as Vocos and F5-TTS take them: HTK bands of height 1, frames centred on multiples of HOP."""

    def __init__(self) -> None:
        super().__init__()
        banks = melscale_fbanks(FFT // 2 + 1, 0.0, RATE / 2, BANDS, RATE, norm=None, mel_scale="htk").t()
        self.banks: Tensor
        self.window: Tensor
        self.register_buffer("banks", banks, persistent=False)  # (M, FFT / 2 + 1)
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(L,) at 24 kHz, L > FFT / 2 -> (M, T), natural logarithm, T = L // HOP + 1."""
        spectrum = torch.stft(wave, FFT, HOP, window=self.window, return_complex=True)
        return (self.banks @ spectrum.abs()).clamp(min=FLOOR).log()


class Vocos(nn.Module):
    """Vocos (Siuzdak, arXiv:2306.00814) from mel spectra, with the parameter names of the published file."""

    def __init__(self, dim: int = 512, inner: int = 1536, depth: int = 8) -> None:
        super().__init__()
        self.backbone = Backbone(dim, inner, depth)
        self.head = Head(dim)

    def forward(self, mel: Tensor) -> Tensor:
        """(N, M, T) without padding -> (N, (T - 1) HOP); not clipped."""
        out: Tensor = self.head(self.backbone(mel))
        return out


class Backbone(nn.Module):
    """ConvNeXt blocks at the rate of the frames."""

    def __init__(self, dim: int, inner: int, depth: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(BANDS, dim, 7, padding=3)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.convnext = nn.ModuleList([ConvNeXt(dim, inner, 1 / depth) for _ in range(depth)])
        self.final_layer_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, mel: Tensor) -> Tensor:
        """(N, M, T) -> (N, T, D)."""
        h = self.norm(self.embed(mel).transpose(1, 2))
        for block in self.convnext:
            h = block(h)
        out: Tensor = self.final_layer_norm(h)
        return out


class ConvNeXt(nn.Module):
    """ConvNeXt block (Liu et al., arXiv:2201.03545) over time."""

    def __init__(self, dim: int, inner: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.gamma = nn.Parameter(scale * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        h = self.dwconv(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.gamma * self.pwconv2(F.gelu(self.pwconv1(self.norm(h))))
        return out


class Head(nn.Module):
    """Magnitude and phase of every bin, then the inverse transform."""

    window: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim, FFT + 2)
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, (T - 1) HOP)."""
        level, phase = self.out(x).transpose(1, 2).float().chunk(2, 1)
        spectrum = torch.polar(level.exp().clamp(max=LOUDEST), phase)
        return torch.istft(spectrum, FFT, HOP, window=self.window)


class GriffinLim(nn.Module):
    """A waveform without a vocoder's weights (Perraudin et al., 2013): audible, metallic. Draws nothing.

    Its gradient is that of the inverse transform with the phases found: they are constants of the backward pass.
    """

    def __init__(self, mel: Mel, iterations: int = 32, momentum: float = 0.99) -> None:
        super().__init__()
        self.iterations, self.momentum = iterations, momentum
        self.inverse: Tensor
        self.window: Tensor
        self.register_buffer("inverse", torch.linalg.pinv(mel.banks), persistent=False)
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """(N, M, T) -> (N, (T - 1) HOP)."""
        magnitude, length = (self.inverse @ mel.exp()).clamp(min=1e-7), (mel.shape[2] - 1) * HOP
        with torch.no_grad():
            wave = griffinlim(magnitude, self.window, FFT, HOP, FFT, 1.0, self.iterations, self.momentum, length, False)
            found = torch.stft(wave, FFT, HOP, window=self.window, return_complex=True)
            phase = found / found.abs().clamp(min=1e-12)
        return torch.istft(magnitude * phase, FFT, HOP, window=self.window, length=length)
