"""Log-mel spectrograms: as numbers, to compare clips, and as small pictures, for reports."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlzoo.speech.audio import slaney_mel

BANDS, MOST_FRAMES, RANGE_DB = 80, 320, 70.0
"""Height and largest width of a picture, and its range in dB below the loudest point."""


def log_mel(wave: Tensor, rate: int, bands: int, hop: int) -> Tensor:
    """(L,) -> (bands, frames) in dB; windows of about 32 ms, a power of two long."""
    size = 1 << (round(0.032 * rate) - 1).bit_length()
    wave = torch.nn.functional.pad(wave, (0, max(0, size - wave.shape[-1])))
    window = torch.hann_window(size)
    power = torch.stft(wave, size, hop, window=window, center=False, return_complex=True).abs().square()
    return 10 * (slaney_mel(rate, size, bands).T @ power).clamp(min=1e-10).log10()


def pictures(waves: list[Tensor], rate: int) -> list[bytes]:
    """One PNG per waveform (L,): time to the right, frequency upwards, the same colours for the same level in all."""
    longest = max(wave.shape[-1] for wave in waves)
    hop = max(round(0.004 * rate), -(-longest // MOST_FRAMES))
    spectra = [log_mel(wave, rate, BANDS, hop) for wave in waves]
    top = max(float(spectrum.max()) for spectrum in spectra)
    colours = (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    made = []
    for spectrum in spectra:
        level = ((spectrum - top) / RANGE_DB + 1).clamp(0, 1).flip(0)
        picture = Image.fromarray((level * 255).round().to(torch.uint8).numpy())
        picture.putpalette(colours.tobytes())
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        made.append(buffer.getvalue())
    return made
