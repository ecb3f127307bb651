"""Frozen encoders: N clips at 16 kHz -> one vector each, blind to batch mates and padding, differentiable.

**N** clips, **L** samples, **F** frames, **D** features. `make` builds the one that a checkpoint names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo import wav2vec2
from rlzoo.api import Samples
from rlzoo.assets import WAV2VEC2_ASR, obtain, sha256_of
from rlzoo.audio import full_precision, normalise_level, slaney_mel, valid_mask
from rlzoo.plugin import Options

RATE = 16_000
WINDOW, HOP = 400, 160
MELS = 64
FLOOR = 1e-7
"""Floor of the mel power; 66 dB below that of speech at -26 dBFS in a loud band."""
# Below this a spread is rounding; its root then keeps a finite derivative.
_TINY = 1e-6


class EncoderSettings(Options):
    """Description of the encoder in a checkpoint."""

    name: Literal["log-mel", "wav2vec2"]
    level_dbfs: float | None
    layer: int = 0
    sha256: str = ""
    """SHA-256 of the weights of wav2vec 2.0; other weights make other features."""


class Encoder(Protocol):
    """(N, L) at 16 kHz -> (N, D)."""

    size: int
    sha256: str

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """(N, L), (N,) -> (N, D)."""

    def to(self, device: torch.device | str) -> Self:
        """Move what it computes with."""


def make(name: str, layer: int, checkpoint: Path | None) -> Encoder:
    """The encoder of this name, frozen. DataError if its weights cannot be had."""
    return LogMel() if name == "log-mel" else Wav2Vec2(obtain(WAV2VEC2_ASR, checkpoint), layer)


def describe(encoder: Encoder, samples: Samples, level_dbfs: float | None) -> Tensor:
    """N clips at 16 kHz -> (N, D), each brought to the level that raters heard."""
    if level_dbfs is not None:
        samples = normalise_level(samples, level_dbfs)
    waves = samples.data * valid_mask(samples.lengths, samples.data.shape[-1])
    with full_precision(waves.device):
        return encoder(waves, samples.lengths)


def statistics(x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(N, F, C), (N,) -> mean and spread over each row's own frames, (N, C) each."""
    mask = valid_mask(lengths, x.shape[1])[..., None]
    count = lengths[:, None]
    mean = (x * mask).sum(1) / count
    variance = ((x - mean[:, None]).square() * mask).sum(1) / count
    return mean, (variance + _TINY).sqrt()


class LogMel:
    """Mean, spread and mean absolute movement of 64 log-mel bands (base 10, 25 ms every 10 ms): 192 features."""

    size = 3 * MELS
    sha256 = ""

    def __init__(self) -> None:
        self.window, self.filters = torch.hann_window(WINDOW), slaney_mel(RATE, WINDOW, MELS)

    def to(self, device: torch.device | str) -> Self:
        """Move window and filters."""
        self.window, self.filters = self.window.to(device), self.filters.to(device)
        return self

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Frames that lie wholly inside a clip count; one shorter than a frame is lengthened with zeros."""
        waves = F.pad(waves, (0, max(0, WINDOW - waves.shape[-1])))
        count = torch.div(lengths.clamp(min=WINDOW) - WINDOW, HOP, rounding_mode="floor") + 1
        bins = torch.stft(waves, WINDOW, HOP, window=self.window, center=False, return_complex=True)
        power = (bins.real.square() + bins.imag.square()).transpose(1, 2)
        x = (power @ self.filters).clamp(min=FLOOR).log10()
        mean, spread = statistics(x, count)
        moves = (x[:, 1:] - x[:, :-1]).abs() * valid_mask(count - 1, x.shape[1] - 1)[..., None]
        return torch.cat([mean, spread, moves.sum(1) / (count - 1).clamp(min=1)[:, None]], 1)


class Wav2Vec2:
    """Mean and spread over time of one transformer layer of wav2vec 2.0 base (arXiv:2006.11477): 1,536 features."""

    size = 2 * 768

    def __init__(self, checkpoint: Path, layer: int) -> None:
        self.network, self.layer, self.sha256 = wav2vec2.load_recognizer(checkpoint), layer, sha256_of(checkpoint)

    def to(self, device: torch.device | str) -> Self:
        """Move the network."""
        self.network.to(device)
        return self

    def __call__(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """A clip shorter than 25 ms is lengthened with zeros."""
        return wav2vec2.in_pieces(self._pooled, waves, lengths)

    def _pooled(self, waves: Tensor, lengths: Tensor) -> Tensor:
        frames, count = wav2vec2.frames(self.network, waves, lengths)
        hidden = self.network.encoder.extract_features(frames, count, self.layer)[-1]
        return torch.cat(statistics(hidden, count), 1)
