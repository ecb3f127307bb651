"""Between waveforms and what the policy generates: log-mel spectra, and Griffin-Lim back."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.functional import melscale_fbanks

from rlzoo.functional import length_mask
from rlzoo.parallel import map_rows
from rlzoo_gradtts.network import NetworkConfig

ITERATIONS = 32
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

    def invert(self, mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """(M, T) -> (L,) in [-1, 1] by fast Griffin-Lim (Perraudin et al., 2013), from zero phases: it draws nothing.

        Of a batch (N, M, T) only `frames` (N,) of each row are real: (N, L), zero behind a row's (frames - 1)·hop. The
        gradient is that of the inverse transform with the phases found: they are constants of the backward pass.
        """
        if frames is None:
            return self._together(mel[None], torch.full((1,), mel.shape[1], device=mel.device))[0]
        if mel.device.type != "cpu":
            return self._together(mel, frames)
        # Row by row a sample's bits do not depend on its batch mates. Griffin-Lim would magnify the last one.
        size, counts = (mel.shape[2] - 1) * self.hop, frames.tolist()

        def invert(row: int, one: Tensor) -> Tensor:
            wave = self.invert(one[0, :, : counts[row]])
            return F.pad(wave, (0, size - len(wave)))[None]

        return map_rows(invert, mel)

    def _together(self, mel: Tensor, frames: Tensor) -> Tensor:
        """All rows at once, without a wait for the GPU. torch.istft would wait each time, to check its window."""
        rows = _Rows(self, frames, mel.shape[2])
        magnitude = (self.inverse @ mel.exp()).clamp(min=SILENCE) * rows.real
        with torch.no_grad():
            phase, before = torch.ones_like(magnitude), torch.zeros_like(magnitude)
            for _ in range(ITERATIONS):
                found = rows.spectra(rows.waves(magnitude * phase))
                step = torch.sub(found, before, alpha=MOMENTUM / (1 + MOMENTUM))
                phase, before = step.sgn(), found
            found = rows.spectra(rows.waves(magnitude * phase))
            phase = found.sgn()
        return rows.waves(magnitude * phase).clamp(-1, 1)


class _Rows:
    """Fourier transforms of N waveforms (N, L) of different lengths, whose spectra (N, F, T) have `frames` (N,)."""

    def __init__(self, mel: Mel, frames: Tensor, size: int) -> None:
        self.mel, self.size = mel, size
        half = mel.fft // 2
        self.real = length_mask(frames, size)[:, None]  # (N, 1, T)
        inside = length_mask((frames - 1) * mel.hop, (size - 1) * mel.hop)
        # Each row is mirrored at its own two ends.
        place = torch.arange(-half, (size - 1) * mel.hop + half, device=frames.device).abs()
        last = (frames[:, None] - 1) * mel.hop - 1
        self.mirrored = (last - (place - last).abs()).clamp(min=0)  # (N, L + fft)
        squares = mel.window.square()[None, :, None] * self.real
        self.weight = torch.where(inside, self._overlapped(squares), torch.inf)  # (N, L)

    def spectra(self, waves: Tensor) -> Tensor:
        """(N, L) -> (N, F, T), complex."""
        pieces = waves.gather(1, self.mirrored).unfold(1, self.mel.fft, self.mel.hop)
        found: Tensor = torch.fft.rfft(pieces * self.mel.window)
        return found.transpose(1, 2)

    def waves(self, spectra: Tensor) -> Tensor:
        """(N, F, T), zero behind a row's frames -> (N, L), zero behind its end: the closest waveform."""
        pieces = torch.fft.irfft(spectra, self.mel.fft, 1) * self.mel.window[:, None]
        return self._overlapped(pieces) / self.weight

    def _overlapped(self, pieces: Tensor) -> Tensor:
        """(N, fft, T), placed a hop apart and added up, without the mirrored ends -> (N, L)."""
        fft, hop = self.mel.fft, self.mel.hop
        whole = F.fold(pieces, (1, (self.size - 1) * hop + fft), (1, fft), stride=(1, hop))[:, 0, 0]
        return whole[:, fft // 2 : fft // 2 + (self.size - 1) * hop]
