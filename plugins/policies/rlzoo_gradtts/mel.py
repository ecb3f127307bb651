"""Between waveforms and what the policy generates: log-mel spectra, and Griffin-Lim back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.functional import griffinlim, melscale_fbanks

from rlzoo_gradtts.network import NetworkConfig

ITERATIONS = 16
MOMENTUM = 0.99
SILENCE = 1e-7


class Mel(nn.Module):
    """Log-mel magnitudes (M, T) of a waveform (L,), L = (T - 1)·hop, and a waveform that has them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.fft, self.hop, self.floor = config.fft, config.hop, config.floor
        rate = config.sample_rate
        banks = melscale_fbanks(self.fft // 2 + 1, 0.0, rate / 2, config.bands, rate, "slaney", "slaney").t()
        self.banks: Tensor
        self.inverse: Tensor
        self.window: Tensor
        # Constants of the configuration: no part of a voice.
        self.register_buffer("banks", banks, persistent=False)  # (M, F)
        self.register_buffer("inverse", torch.linalg.pinv(banks), persistent=False)  # (F, M)
        self.register_buffer("window", torch.hann_window(self.fft), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """(L,) -> (M, T), natural logarithm; T = L // hop + 1."""
        spectrum = torch.stft(wave, self.fft, self.hop, window=self.window, return_complex=True)
        return (self.banks @ spectrum.abs()).clamp(min=self.floor).log()

    def invert(self, mel: Tensor) -> Tensor:
        """(M, T) -> (L,) in [-1, 1] by fast Griffin-Lim (Perraudin et al., 2013), from zero phases: it draws nothing.

        The gradient is that of the inverse transform with the phases found: they are constants of the backward pass.
        """
        magnitude = (self.inverse @ mel.exp()).clamp(min=SILENCE)
        length = (mel.shape[1] - 1) * self.hop
        with torch.no_grad():
            wave = griffinlim(
                magnitude, self.window, self.fft, self.hop, self.fft, 1.0, ITERATIONS, MOMENTUM, length, False
            )
            found = torch.stft(wave, self.fft, self.hop, window=self.window, return_complex=True)
            phase = found / found.abs().clamp(min=1e-12)
        wave = torch.istft(magnitude * phase, self.fft, self.hop, window=self.window, length=length)
        return wave.clamp(-1, 1)
