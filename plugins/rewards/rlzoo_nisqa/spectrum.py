"""NISQA's front end: mel picture of a clip at the clip's own rate, cut into overlapping segments. Differentiable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo.audio import slaney_mel
from rlzoo_nisqa.network import Settings

FLOOR = 1e-4
TOP_DB = 80.0


class FrontEnd:
    """(L,) at `rate` -> (T, mels, segment). Filters of each rate are made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._mels: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, wave: Tensor, rate: int) -> Tensor:
        """A clip too short for one segment (150 ms) is lengthened with zeros first."""
        s = self.settings
        picture = self.decibels(wave, rate)
        return picture.unfold(1, s.segment, s.segment_hop).transpose(0, 1)

    def decibels(self, wave: Tensor, rate: int) -> Tensor:
        """(L,) -> (mels, frames): 20 log10 of the mel magnitudes, at most 80 dB below the clip's own maximum."""
        s = self.settings
        hop, window = int(rate * s.hop_seconds), int(rate * s.window_seconds)
        wave = F.pad(wave, (0, max(0, (s.segment - 1) * hop - wave.shape[0])))
        spectrum = torch.stft(
            reflected(wave, s.fft // 2),
            s.fft,
            hop_length=hop,
            win_length=window,
            window=torch.hann_window(window, device=wave.device),
            center=False,
            return_complex=True,
        )
        mel = self._filters(rate, wave.device).T @ spectrum.abs()
        level = 20 * mel.clamp(min=FLOOR).log10()
        return torch.maximum(level, level.max() - TOP_DB)

    def _filters(self, rate: int, device: torch.device) -> Tensor:
        if (rate, device) not in self._mels:
            s = self.settings
            self._mels[rate, device] = slaney_mel(rate, s.fft, s.mels, s.top_hz).to(device)
        return self._mels[rate, device]


def reflected(wave: Tensor, size: int) -> Tensor:
    """(L,) -> (L + 2·size,), mirrored at both ends, as often as it takes when it is shorter than `size`."""
    period = 2 * (wave.shape[0] - 1)
    position = torch.arange(-size, wave.shape[0] + size, device=wave.device).remainder(period)
    return wave[torch.minimum(position, period - position)]
