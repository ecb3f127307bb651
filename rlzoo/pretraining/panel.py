"""Rewards as judges of a validation: of samples, and of the recordings beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlzoo.core.types import Prompt
from rlzoo.engine.rewards import build_reward
from rlzoo.speech.audio import resample_samples, to_samples, write_audio


class Panel:
    """Rewards by name, with their options, on one device. ConfigError for a reward or option that there is not."""

    def __init__(self, judges: Mapping[str, Mapping[str, Any]], device: torch.device) -> None:
        self.rewards = {name: build_reward(name, options, f"judges.{name}") for name, options in judges.items()}
        for reward in self.rewards.values():
            reward.to(device)
        self.device = device

    @torch.no_grad()
    def scores(self, waves: Sequence[Tensor], rate: int, prompts: Sequence[Prompt]) -> dict[str, float]:
        """Waves (L_i,) at `rate` hertz, one a prompt -> each reward's mean score."""
        found = {}
        for name, reward in self.rewards.items():
            samples = to_samples([wave.to(self.device) for wave in waves], rate)
            samples = resample_samples(samples, reward.sample_rate)
            found[name] = float(reward.score(samples, prompts).values.mean())
        return found

    def compare(
        self, systems: Mapping[str, Sequence[Tensor]], rate: int, prompts: Sequence[Prompt], out: Path
    ) -> dict[str, float]:
        """Waves of each system -> `REWARD_SYSTEM`: its mean score; every wave is written to `out/ID-SYSTEM.wav`."""
        out.mkdir(parents=True, exist_ok=True)
        metrics: dict[str, float] = {}
        for system, waves in systems.items():
            scores = self.scores(waves, rate, prompts)
            metrics |= {f"{name}_{system}": score for name, score in scores.items()}
            for prompt, wave in zip(prompts, waves, strict=True):
                write_audio(out / f"{prompt.id}-{system}.wav", wave, rate)
        return metrics


__all__ = ["Panel"]
