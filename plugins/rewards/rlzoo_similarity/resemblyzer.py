"""Resemblyzer's speaker encoder (GE2E, Wan et al., arXiv:1710.10467), with the weights that its package brings.

The package itself is not imported: it asks for librosa and a voice detector, which the encoder does not need.
**N** rows, **L** samples, **F** frames.
"""

from __future__ import annotations

import pickle
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.audio import slaney_mel
from rlzoo.errors import DataError, PluginError

RATE = 16_000
FFT, HOP, MELS = 400, 160, 40
WIDTH = 256
WINDOW, STEP = 160, 77
"""Frames of a window, 1.6 s, and from one to the next: 1.3 a second."""
COVERED = 0.75
"""A last window that holds less speech than this share of itself is left out."""
LEVEL_DBFS = -30.0
"""Quieter clips are raised to it."""


class Encoder(nn.Module):
    """Clips -> embeddings of length 1, no number of which is negative. 1,423,616 parameters."""

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("filters", slaney_mel(RATE, FFT, MELS).T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(FFT), persistent=False)

    def forward(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """(N, L) at 16 kHz, (N,) -> (N, 256): the mean over a row's windows, each row by itself."""
        rows = [self.windows(wave[:length]) for wave, length in zip(waves, lengths.tolist(), strict=True)]
        _, (hidden, _) = self.lstm(torch.cat(rows))
        parts = F.normalize(F.relu(self.linear(hidden[-1])), dim=1).split([len(row) for row in rows])
        return F.normalize(torch.stack([part.mean(0) for part in parts]), dim=1)

    def windows(self, wave: Tensor) -> Tensor:
        """(L,) -> (windows, WINDOW, MELS) of mel power."""
        level = wave.square().mean().clamp(min=1e-12).sqrt()
        wave = wave * (10 ** (LEVEL_DBFS / 20) / level).clamp(min=1)
        frames = -(-(len(wave) + 1) // HOP)
        starts = list(range(0, max(1, frames - WINDOW + STEP + 1), STEP))
        if len(starts) > 1 and (len(wave) - starts[-1] * HOP) / (WINDOW * HOP) < COVERED:
            starts.pop()
        wave = F.pad(wave, (0, max(0, (starts[-1] + WINDOW) * HOP - len(wave))))
        bins = torch.stft(wave, FFT, HOP, window=self.window, pad_mode="constant", return_complex=True)
        mel = (self.filters @ (bins.real.square() + bins.imag.square())).T
        return torch.stack([mel[start : start + WINDOW] for start in starts])


def load_resemblyzer() -> Encoder:
    """The encoder with the package's weights, frozen. PluginError without the package, DataError for other weights."""
    found = find_spec("resemblyzer")
    if found is None or not found.submodule_search_locations:
        raise PluginError(
            "'similarity' takes Resemblyzer's weights, and the package 'resemblyzer' is not installed",
            "pip install 'rlzoo-speech[similarity]', or set encoder = \"ecapa\" (a download of 83 MB)",
        )
    path = Path(found.submodule_search_locations[0]) / "pretrained.pt"
    hint = "install resemblyzer again (0.1.4)"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        encoder = Encoder()
        encoder.load_state_dict({name: state[name] for name in encoder.state_dict()})
    except (OSError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError) as error:
        raise DataError(f"'{path}' does not hold Resemblyzer's weights: {str(error)[:200]}", hint) from error
    return encoder.eval().requires_grad_(False)
