"""A weighted sum of rewards with floors, e.g. naturalness that counts only while the words are understood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.audio import resample_samples
from rlzoo.rewards import build_reward, score_with
from rlzoo_composite import CompositeOptions


class CompositeReward(Reward[CompositeOptions]):
    """sum_i weight_i · (score_i - mean_i) / std_i, or `broken` where any score_i is below its floor.

    Standardising uses fixed numbers and not those of the batch, so that a row's score stays its own. `parts` has each
    score raw (`0-utmos`), each part's own parts, and `broken`. Takes audio at any rate and resamples for each part.
    """

    def __init__(self, options: CompositeOptions) -> None:
        super().__init__(options)
        self.rewards = [
            build_reward(part.name, part.options, f"rewards.parts.{index}.options")
            for index, part in enumerate(options.parts)
        ]
        self.version = "1+" + "+".join(reward.version for reward in self.rewards)

    def to(self, device: torch.device | str) -> Self:
        """Move every part."""
        self.rewards = [reward.to(device) for reward in self.rewards]
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and prompts -> (N,)."""
        at_rate: dict[int | None, Samples] = {}
        total = torch.zeros(len(samples), device=samples.data.device)
        broken = torch.zeros(len(samples), dtype=torch.bool, device=samples.data.device)
        parts: dict[str, torch.Tensor] = {}
        for index, (part, reward) in enumerate(zip(self.options.parts, self.rewards, strict=True)):
            rate = reward.sample_rate
            if rate not in at_rate:
                at_rate[rate] = resample_samples(samples, rate)
            scores = score_with(reward, part.name, at_rate[rate], prompts)
            values = scores.values.to(total.device)
            parts[f"{index}-{part.name}"] = values
            parts |= {f"{index}-{part.name}-{name}": value for name, value in scores.parts.items()}
            total = total + part.weight * (values - part.mean) / part.std
            if part.floor is not None:
                broken = broken | (values < part.floor)
        parts["broken"] = broken.float()
        return Scores(torch.where(broken, torch.full_like(total, self.options.broken), total), parts)
