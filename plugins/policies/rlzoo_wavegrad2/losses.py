"""Losses of pretraining: the published ones (arXiv:2106.09660), windowed, and an auxiliary one of ours.

    L1(eps, eps_theta(sqrt(ab) y + sqrt(1 - ab) eps, hidden, sqrt(ab)))  +  duration MSE in seconds^2
    +  `spectral_weight` x L1 between a mel decoder's spectrum of the hidden frames and the recording's
    +  `estimate_weight` x spectral distance between the clean estimate at the noise loss's level and the recording
    +  `rollout_weight` x spectral distance of what a few-step rollout takes for clean speech (InferGrad,
       arXiv:2202.03751).

The mel decoder teaches the encoder what phones sound like, which takes the noise loss alone a GPU (as in FastSpeech 2s,
arXiv:2006.04558). It is not part of the saved network. The first `mel_steps` steps train encoder, durations and mel
decoder without the denoiser, which is most of a step's work. The last term is there where `rollout_levels` are given.
At sqrt(alpha_bar) = 0.3 an error of 0.03 in the noise is one of 0.1 in the speech, and a sampler of two steps never
gets the chance to correct it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlzoo.api import GaussianDiffusionPolicy
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.data import Batch, LogMel, windows
from rlzoo_wavegrad2.network import WaveGrad2Network
from rlzoo_wavegrad2.schedules import placed_levels, to_schedule, training_levels


class MelDecoder(nn.Sequential):
    """Hidden frames (B, H, T) -> log-mel spectrum (B, M, T): convolutions that see 9 frames."""

    def __init__(self, hidden: int, bands: int, channels: int = 128) -> None:
        super().__init__(
            nn.Conv1d(hidden, channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(channels, bands, 1),
        )


class Losses(nn.Module):
    """The network, the mel decoder beside it, and the losses of one batch."""

    def __init__(self, network: WaveGrad2Network, options: PretrainOptions) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.mel = LogMel(network.config)
        self.mel_decoder = MelDecoder(network.config.hidden_channels, self.mel.banks.shape[1])
        self.made: Tensor
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))
        # Windows of 16, 32 and 64 ms: from the pitch period to the phone.
        self.resolutions = [2 ** round(math.log2(network.config.sample_rate * ms / 1000)) for ms in (16, 32, 64)]
        self.levels: Tensor
        self.register_buffer("levels", training_levels())
        # Windows all have one shape, so one compilation serves the whole run. A function, not a submodule: the state
        # dict keeps its names.
        decoder = network.decoder.forward
        self.denoise: Callable[..., Any] = torch.compile(decoder, dynamic=False) if options.compile else decoder

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,) sqrt(alpha_bar) of windows, on the generator's device; see the option `level_sampling`."""
        device = generator.device
        if self.options.level_sampling == "log-snr":
            cleanest, noisiest = (torch.logit(level**2) for level in placed_levels(2)[1:])
            share = torch.rand(count, generator=generator, device=device)
            return torch.sigmoid(cleanest + (noisiest - cleanest) * share).sqrt()
        s = torch.randint(1, len(self.levels), (count,), generator=generator, device=device)
        mix = torch.rand(count, generator=generator, device=device).to(self.levels)
        return (self.levels[s] + mix * (self.levels[s - 1] - self.levels[s])).float()

    def rollout(self, hidden: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
        """Spectral distance to `clean` (N, L) of the clean estimates at every step of a rollout, their mean.

        `noise` (K, N, L): the start and what each transition adds. Unlike the paper's, gradients do not go from one
        step into the one before: every step is told by itself what it should have heard.
        """
        levels = torch.tensor([1.0, *self.options.rollout_levels], dtype=torch.float64)
        x, distances = noise[0], []
        for k, (sigma, following) in enumerate(itertools.pairwise(to_schedule(levels).times.to(x.device))):
            level = (1 - sigma**2).sqrt()
            predicted = self.denoise_at(x, hidden, level.to(x.dtype).expand(len(x)))
            estimate = (x - sigma * predicted) / level
            distances.append(stft_distance(estimate, clean, self.resolutions))
            if k + 1 < len(noise):
                of_clean, of_x, std = GaussianDiffusionPolicy.posterior(sigma, following)
                x = of_clean * estimate.detach().clamp(-1, 1) + of_x * x + std * noise[k + 1]
        return torch.stack(distances).mean()

    def denoise_at(self, noisy: Tensor, hidden: Tensor, level: Tensor) -> Tensor:
        """The denoiser in its precision; float32 comes out."""
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.options.precision == "bf16-mixed"):
            predicted: Tensor = self.denoise(noisy, hidden, level)
        return predicted.float()

    def forward(self, batch: Batch, starts: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The losses `duration`, `spectral` and, after `mel_steps` steps, `noise` (`estimate`, `rollout`), scalars.

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
            distance = (self.mel_decoder(hidden) - self.mel(batch.waves)).abs().mean(1)
            spectral = (distance * inside).sum() / inside.sum()
        found = {"duration": duration, "spectral": spectral}
        self.made += 1
        if int(self.made) <= o.mel_steps:
            return found
        cut, clean = windows(batch, hidden, starts, o.window_frames)
        rolled = len(clean) // 2 if o.rollout_levels else 0
        if rolled:
            steps = (len(o.rollout_levels), *clean[:rolled].shape)
            noise = torch.randn(steps, generator=generator, device=clean.device)
            found["rollout"] = self.rollout(cut[:rolled], clean[:rolled], noise)
        clean, cut = clean[rolled:], cut[rolled:]
        level = self.draw_levels(len(clean), generator)
        noise = torch.randn(clean.shape, generator=generator, device=clean.device)
        noisy = level[:, None] * clean + (1 - level[:, None] ** 2).sqrt() * noise
        predicted = self.denoise_at(noisy, cut, level)
        if o.estimate_weight:
            # Weighted by the level, the gradient with respect to the predicted noise does not grow with the noise.
            estimate = (noisy - (1 - level[:, None] ** 2).sqrt() * predicted) / level[:, None]
            found["estimate"] = stft_distance(estimate, clean, self.resolutions, level)
        return {"noise": (predicted - noise).abs().mean(), **found}

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        o = self.options
        weights = {
            "noise": 1.0,
            "duration": o.duration_weight,
            "spectral": o.spectral_weight,
            "estimate": o.estimate_weight,
            "rollout": o.rollout_weight,
        }
        return torch.stack([weights[name] * value for name, value in losses.items()]).sum()


def stft_distance(estimate: Tensor, clean: Tensor, sizes: Sequence[int], weight: Tensor | None = None) -> Tensor:
    """Multi-resolution STFT distance of waves (N, L) (Yamamoto et al., arXiv:1910.11480): mean over window `sizes`.

    Spectral convergence plus L1 between log magnitudes, floor 0.01. `weight` (N,): of the rows, 1 unless given.
    """
    rows = (estimate.new_ones(len(estimate)) if weight is None else weight)[:, None, None]
    found = []
    for size in sizes:
        window = torch.hann_window(size, device=clean.device)
        one, other = (
            torch.stft(wave, size, size // 4, window=window, return_complex=True).abs() for wave in (estimate, clean)
        )
        convergence = (rows * (one - other)).norm() / (rows * other).norm().clamp(min=1e-3)
        logs = (one.clamp(min=0.01).log() - other.clamp(min=0.01).log()).abs()
        found.append(convergence + (rows * logs).mean())
    return torch.stack(found).mean()
