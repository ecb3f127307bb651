"""What pretraining is judged by: the noise loss by level, and K-step samples beside the recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.api import Batch
from rlzoo.audio import write_audio
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.data import LogMel, Utterance
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from rlzoo_wavegrad2.schedules import placed_levels, to_schedule

LEVELS = (0.1, 0.3, 0.6, 0.9, 0.99)
"""Noise levels sqrt(alpha_bar) at which the noise loss is reported."""


class Judge:
    """Samples with the recordings' own durations and always the same noise, and their log-mel distance."""

    def __init__(self, policy: WaveGrad2Policy, utterances: Sequence[Utterance]) -> None:
        self.policy, self.utterances = policy, utterances
        self.mel = LogMel(policy.config)
        self.conditions = [self._condition(utterance) for utterance in utterances]

    @torch.no_grad()
    def _condition(self, utterance: Utterance) -> Batch:
        network = self.policy.network
        lengths = torch.tensor([len(utterance.ids)])
        encoded = network.encode(utterance.ids[None], lengths)
        hidden = network.resampling(encoded, utterance.frames[None], lengths)
        return Batch({"hidden": hidden, "frames": torch.tensor([hidden.shape[2]])})

    @torch.no_grad()
    def speak(self, row: int, levels: Tensor) -> Tensor:
        """(K+1,) levels -> waveform (L,) of utterance `row`."""
        schedule = to_schedule(levels)
        generator, size = torch.Generator().manual_seed(row), len(self.utterances[row].wave)
        x = torch.randn(1, size, generator=generator)
        for k in range(len(schedule)):
            step = self.policy.transition(x, torch.tensor([k]), self.conditions[row], schedule)
            x = step.rsample(torch.randn(1, size, generator=generator)) if schedule.stochastic[k] else step.mode
        return x[0].clamp(-1, 1)

    def mel_distance(self, row: int, wave: Tensor) -> float:
        """Mean |difference| of log-mel magnitudes to the recording, in nepers."""
        return float((self.mel(wave[None]) - self.mel(self.utterances[row].wave.float()[None])).abs().mean())

    def distance(self, levels: Tensor) -> float:
        """Mean log-mel distance of all utterances under this schedule."""
        rows = range(len(self.utterances))
        return sum(self.mel_distance(row, self.speak(row, levels)) for row in rows) / len(rows)

    @torch.no_grad()
    def noise_loss(self, level: float) -> float:
        """Mean |predicted - true noise| at one noise level, always the same noise."""
        total = 0.0
        for row, (utterance, cond) in enumerate(zip(self.utterances, self.conditions, strict=True)):
            clean = utterance.wave.float()[None]
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(row))
            sigma = torch.tensor([(1 - level**2) ** 0.5])
            total += float(self.policy.denoising_loss(clean, cond, sigma, noise))
        return total / len(self.utterances)


def validate(voice: Path, utterances: Sequence[Utterance], out: Path, steps: Sequence[int]) -> dict[str, float]:
    """Metrics `validation/...` of a voice file on recordings it has not seen; writes samples and originals to `out`."""
    judge = Judge(WaveGrad2Policy(WaveGrad2Options(checkpoint=voice)), utterances)
    metrics = {f"validation/noise_{level}": round(judge.noise_loss(level), 5) for level in LEVELS}
    rate = judge.policy.config.sample_rate
    out.mkdir(parents=True, exist_ok=True)
    for num_steps in steps:
        total = 0.0
        for row, utterance in enumerate(utterances):
            wave = judge.speak(row, placed_levels(num_steps))
            total += judge.mel_distance(row, wave)
            write_audio(out / f"{utterance.id}-{num_steps}.wav", wave, rate)
        metrics[f"validation/mel_{num_steps}"] = round(total / len(utterances), 5)
    for utterance in utterances:
        write_audio(out / f"{utterance.id}-original.wav", utterance.wave.float(), rate)
    return metrics
