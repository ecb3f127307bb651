"""What pretraining minimises: the published losses, windowed, and an auxiliary one of ours (arXiv:2106.09660).

    L1(eps, eps_theta(sqrt(ab) y + sqrt(1 - ab) eps, hidden, sqrt(ab)))  +  duration MSE in seconds^2
    +  `spectral_weight` x L1 between a linear read-out of the hidden frames and the log-mel spectrum.

The last term only trains the encoder sooner: its read-out is no part of the saved network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.data import Batch, LogMel, windows
from rlzoo_wavegrad2.network import WaveGrad2Network
from rlzoo_wavegrad2.schedules import training_levels


class Losses(nn.Module):
    """The network, the spectral read-out and the three losses of one batch."""

    def __init__(self, network: WaveGrad2Network, options: PretrainOptions) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.mel = LogMel(network.config)
        self.readout = nn.Conv1d(network.config.hidden_channels, 40, 1)
        self.levels: Tensor
        self.register_buffer("levels", training_levels())
        # Windows all have one shape, so one compilation serves the whole run. A function, not a submodule: the state
        # dict keeps its names.
        decoder = network.decoder.forward
        self.denoise: Callable[..., Any] = torch.compile(decoder, dynamic=False) if options.compile else decoder

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """sqrt(alpha_bar), uniform between neighbours of the 1000-step training schedule, on the generator's device."""
        device = generator.device
        s = torch.randint(1, len(self.levels), (count,), generator=generator, device=device)
        mix = torch.rand(count, generator=generator, device=device).to(self.levels)
        return (self.levels[s] + mix * (self.levels[s - 1] - self.levels[s])).float()

    def forward(self, batch: Batch, starts: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses `noise`, `duration` and `spectral`, scalars.

        `starts` (U, W): first frames of the windows. `generator`: noise and noise levels, on the batch's device.
        """
        o, net = self.options, self.network
        encoded = net.encode(batch.ids, batch.phones)
        seconds = net.resampling.seconds(encoded, batch.phones)
        valid = torch.arange(batch.ids.shape[1], device=batch.ids.device) < batch.phones[:, None]
        error = (seconds - batch.frames / net.config.frame_rate) ** 2
        duration = (error * valid).sum() / valid.sum()
        hidden = net.resampling(encoded, batch.frames, batch.phones)
        spectral = hidden.new_zeros(())
        if o.spectral_weight:
            inside = torch.arange(hidden.shape[2], device=hidden.device) < batch.totals[:, None]
            distance = (self.readout(hidden) - self.mel(batch.waves)).abs().mean(1)
            spectral = (distance * inside).sum() / inside.sum()
        cut, clean = windows(batch, hidden, starts, o.window_frames)
        level = self.draw_levels(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        noisy = level[:, None] * clean + (1 - level[:, None] ** 2).sqrt() * noise
        with torch.autocast(clean.device.type, torch.bfloat16, enabled=o.precision == "bf16-mixed"):
            predicted = self.denoise(noisy, cut, level)
        return {"noise": (predicted.float() - noise).abs().mean(), "duration": duration, "spectral": spectral}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        o = self.options
        return losses["noise"] + o.duration_weight * losses["duration"] + o.spectral_weight * losses["spectral"]
