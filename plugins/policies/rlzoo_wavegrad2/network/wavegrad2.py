"""The whole network; its state dict has the names and shapes of the public model (maum-ai/wavegrad2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlzoo_wavegrad2.network.denoiser import Denoiser, init_orthogonal
from rlzoo_wavegrad2.network.encoder import Encoder, Resampling
from rlzoo_wavegrad2.network.presets import NetworkConfig


class WaveGrad2Network(nn.Module):
    """Text encoder, resampling, denoiser. `init` false leaves the convolutions as torch made them (loading follows)."""

    def __init__(self, config: NetworkConfig, init: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.symbols, config.encoder_channels)
        self.speaker_embedding = nn.Embedding(config.speakers, config.speaker_channels)
        self.resampling = Resampling(config)
        self.decoder = Denoiser(config)
        if init:
            init_orthogonal(self.decoder)

    def encode(self, ids: Tensor, lengths: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Phoneme ids (B, P), valid counts (B,) -> hidden (B, P, H)."""
        x = self.encoder(ids, lengths)
        if speaker is None:
            speaker = torch.zeros(ids.shape[0], dtype=torch.long, device=ids.device)
        voice = self.speaker_embedding(speaker)[:, None].expand(-1, ids.shape[1], -1)
        return torch.cat([x, voice], 2)

    def frames(self, seconds: Tensor, lengths: Tensor, pace: float = 1.0) -> Tensor:
        """Durations (B, P) in seconds -> whole frames (B, P), at least one per row, none behind its end."""
        rounded = (seconds * pace * self.config.frame_rate).round().clamp(min=0)
        rounded = rounded * (torch.arange(seconds.shape[1], device=seconds.device) < lengths[:, None])
        silent = rounded.sum(1) == 0
        rounded[silent, 0] = 1
        return rounded
