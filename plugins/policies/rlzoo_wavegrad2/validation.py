"""Validation of pretraining: the noise loss by level, and K-step samples beside the recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rlzoo.api import Prompt
from rlzoo.pretraining.panel import Panel
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.data import LogMel, Utterance, mel_cepstral_distance
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from rlzoo_wavegrad2.schedules import named_levels, to_schedule

LEVELS = (0.1, 0.3, 0.6, 0.9, 0.99)
"""Noise levels sqrt(alpha_bar) at which the noise loss is reported."""


class Judge:
    """Samples with the recordings' own durations and always the same noise, and their distance to the recordings."""

    def __init__(self, policy: WaveGrad2Policy, utterances: Sequence[Utterance]) -> None:
        self.policy, self.utterances = policy, utterances
        self.sizes = [len(utterance.wave) for utterance in utterances]
        self.mel = LogMel(policy.config)
        self.spectra = [self.mel(utterance.wave.float()[None]) for utterance in utterances]
        self.condition = policy.batch([policy.encode(utterance.ids, utterance.frames) for utterance in utterances])

    def _noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """(N, L) from one generator a row, so that no row's noise depends on its mates."""
        rows = [torch.randn(size, generator=g) for size, g in zip(self.sizes, generators, strict=True)]
        return pad_sequence(rows, batch_first=True).to(self.policy.device)

    def _generators(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(row) for row in range(len(self.sizes))]

    @torch.no_grad()
    def speak(self, levels: Tensor) -> list[Tensor]:
        """(K+1,) levels -> the waveforms (L_i,) of all utterances, on the CPU."""
        schedule, generators = to_schedule(levels), self._generators()
        x = self._noise(generators)
        for k in range(len(schedule)):
            at = torch.full((len(x),), k, device=x.device)
            step = self.policy.transition(x, at, self.condition, schedule)
            x = step.rsample(self._noise(generators)) if schedule.stochastic[k] else step.mode
        return [row[:size] for row, size in zip(x.clamp(-1, 1).cpu(), self.sizes, strict=True)]

    def distances(self, waves: Sequence[Tensor]) -> tuple[float, float]:
        """Means over the utterances: |difference| of log-mel magnitudes in nepers, mel-cepstral distance in dB."""
        spectra = [self.mel(wave[None]) for wave in waves]
        pairs = list(zip(spectra, self.spectra, strict=True))
        mel = sum(float((one - other).abs().mean()) for one, other in pairs)
        cepstral = sum(float(mel_cepstral_distance(one, other)) for one, other in pairs)
        return mel / len(pairs), cepstral / len(pairs)

    def distance(self, levels: Tensor) -> float:
        """Mean log-mel distance of all utterances under this schedule."""
        return self.distances(self.speak(levels))[0]

    @torch.no_grad()
    def noise_loss(self, level: float) -> float:
        """Mean |predicted - true noise| at one noise level, always the same noise."""
        clean = pad_sequence([utterance.wave.float() for utterance in self.utterances], batch_first=True)
        noise = self._noise(self._generators())
        sigma = torch.full((len(clean),), (1 - level**2) ** 0.5, device=noise.device)
        return float(self.policy.denoising_loss(clean.to(noise.device), self.condition, sigma, noise).mean())


def validate(
    voice: Path, utterances: Sequence[Utterance], out: Path, steps: Sequence[int], panel: Panel, device: torch.device
) -> dict[str, float]:
    """Metrics `validation/...` of a voice file on recordings it has not seen; writes samples and originals to `out`.

    noise_LEVEL: noise loss at that sqrt(alpha_bar); mel_K, mcd_K: distances of K-step samples to the recordings, in
    nepers and dB; NAME_K and NAME_recordings: what the judges say.
    """
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=voice)).to(device)
    judge, rate = Judge(policy, utterances), policy.config.sample_rate
    metrics = {f"noise_{level}": judge.noise_loss(level) for level in LEVELS}
    systems: dict[str, list[Tensor]] = {}
    for num_steps in steps:
        waves = systems[str(num_steps)] = judge.speak(named_levels("auto", num_steps, policy.tuned))
        metrics[f"mel_{num_steps}"], metrics[f"mcd_{num_steps}"] = judge.distances(waves)
    systems["recordings"] = [utterance.wave.float() for utterance in utterances]
    prompts = [Prompt(utterance.id, utterance.text) for utterance in utterances]
    metrics |= panel.compare(systems, rate, prompts, out)
    return {f"validation/{name}": round(value, 5) for name, value in metrics.items()}
