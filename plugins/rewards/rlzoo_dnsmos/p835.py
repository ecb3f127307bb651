"""P.835: log power spectrum of each window through a CNN -> signal, background, overall (arXiv:2110.01763).

Windows of 9.01 s every second overlap by eight ninths, and 99 % of the work lies in the layers before the second
pooling, where frames of different windows still fall on one grid. There every frame of the *clip* is computed once;
only the first and last 8 frames of a window, which see its zero padding, are computed for it alone. The clip is worked
through in short strips with a halo, which keeps memory small. A single window shares nothing and goes through at once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo_dnsmos.clips import FRAME_HOP, FRAMES, FRAMES_PER_HOP, first_frames
from rlzoo_dnsmos.layers import AT_ONCE, Layers

POWER_FLOOR = 1e-12
_TRUNK = (("conv2d", False), ("conv2d_1", False), ("conv2d_2", False), ("conv2d_3", True), ("conv2d_4", True))
_HEAD = (("conv2d_5", True), ("conv2d_6", False))
_DENSE = ("dense", "dense_1", "dense_3")
_POOLED = 4  # frames per column of the trunk's output
_EDGE = 8  # frames at a window's end that feel its zero padding through five 3x3 layers, rounded up to columns
_STRIP = 184  # frames kept of an inner strip

# Calibration of the raw outputs to MOS, highest power first (constants of the published package).
_POLYNOMIALS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}
_PERSONALIZED = {
    "sig": (-0.01019296, 0.02751166, 1.19576786, -0.24348726),
    "bak": (-0.04976499, 0.44276479, -0.1644611, 0.96883132),
    "ovrl": (-0.00533021, 0.005101, 1.18058466, -0.11236046),
}
PARTS = ("sig", "bak", "ovrl")


class P835(Layers):
    """(N, T) clips, and row and second at which each window starts -> (W, 3) signal, background, overall MOS."""

    def __init__(self, weights: dict[str, Tensor], personalized: bool, in_bfloat16: bool = False) -> None:
        super().__init__(weights, in_bfloat16)
        self.polynomials = _PERSONALIZED if personalized else _POLYNOMIALS
        fourier = torch.cat([weights["stft-real/kernel"], weights["stft-imag/kernel"]]).squeeze(-1)
        self.register_buffer("fourier", fourier.T.contiguous())

    def forward(self, clips: Tensor, windows: list[tuple[int, int]]) -> Tensor:
        """(N, T), W windows by row and second -> (W, 3)."""
        end = (max(second for _, second in windows) * FRAMES_PER_HOP + FRAMES + 1) * FRAME_HOP
        spectrum, size = self.spectrum(clips[:, :end]), AT_ONCE if clips.is_cuda else 1
        with self.arithmetic(clips.device):
            columns = self.columns(spectrum, windows)
            raw = torch.cat([self.head(part) for part in columns.split(size)]).float()
        return torch.stack([polynomial(raw[:, i], self.polynomials[part]) for i, part in enumerate(PARTS)], 1)

    def spectrum(self, clips: Tensor) -> Tensor:
        """(N, T) -> (N, F, 161) log10 power of frames of 320 samples every 160."""
        spectrum = clips.unfold(1, 2 * FRAME_HOP, FRAME_HOP) @ self.get_buffer("fourier")
        bins = spectrum.shape[2] // 2
        # The published graph takes a root and squares it again; without, the gradient of silence is finite.
        return (spectrum[..., :bins].square() + spectrum[..., bins:].square()).clamp(min=POWER_FLOOR).log10()

    def columns(self, spectrum: Tensor, windows: list[tuple[int, int]]) -> Tensor:
        """(N, F, 161) of clips -> (W, 32, 225, 40): the trunk's output for each window, as if computed for it alone."""
        if len(windows) == 1:  # nothing is shared, so no edge is computed twice
            return self.convolve(spectrum[:, None, :FRAMES], _TRUNK)
        device = spectrum.device
        shared = self._inner(spectrum)
        row, first = first_frames(windows, device)
        strip = torch.arange(2 * _EDGE, device=device)
        keep = _EDGE // _POOLED
        heads = self._strips(spectrum[row[:, None], first[:, None] + strip])[:, :, :keep]
        tails = self._strips(spectrum[row[:, None], first[:, None] + FRAMES - 2 * _EDGE + strip])[:, :, -keep:]
        inner = torch.arange(keep, FRAMES // _POOLED - keep, device=device)
        middle = shared[row[:, None], :, first[:, None] // _POOLED + inner].transpose(1, 2)
        return torch.cat([heads, middle, tails], 2)

    def _inner(self, spectrum: Tensor) -> Tensor:
        """(N, F, 161) -> (N, 32, >= F / 4, 40); columns within 8 frames of a clip's ends are not meaningful."""
        frames = spectrum.shape[1]
        count = -(-frames // _STRIP)
        padded = F.pad(spectrum, (0, 0, _EDGE, count * _STRIP - frames + _EDGE))
        strips = padded.unfold(1, _STRIP + 2 * _EDGE, _STRIP).transpose(2, 3).flatten(0, 1)
        halo = _EDGE // _POOLED
        columns: Tensor = self._strips(strips)[:, :, halo:-halo]
        return columns.reshape(-1, count, *columns.shape[1:]).transpose(1, 2).flatten(2, 3)

    def _strips(self, strips: Tensor) -> Tensor:
        """(M, frames, 161) -> (M, 32, frames / 4, 40)."""
        size = 4 * AT_ONCE if strips.is_cuda else 1
        return torch.cat([self.convolve(part[:, None], _TRUNK) for part in strips.split(size)])

    def head(self, columns: Tensor) -> Tensor:
        """(W, 32, 225, 40) -> (W, 3) raw outputs."""
        return self.dense(self.convolve(columns, _HEAD).amax((2, 3)), _DENSE)


def polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Horner's scheme, highest power first."""
    value = torch.zeros_like(x)
    for coefficient in coefficients:
        value = value * x + coefficient
    return value
