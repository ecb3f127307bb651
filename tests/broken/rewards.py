"""Rewards with one bug each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rlzoo.api import Prompt, Samples, Scores
from rlzoo.testing.specs import ToyRewardOptions
from rlzoo.testing.toys import ToyReward


class Sound(ToyReward):
    """A sound reward that is made without arguments."""

    def __init__(self) -> None:
        super().__init__(ToyRewardOptions())


class WrongShape(Sound):
    """One column instead of one number per sample."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        return Scores(super().score(samples, prompts).values[:, None])


class Random(Sound):
    """Another score every time."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        values = super().score(samples, prompts).values
        return Scores(values + 0.1 * torch.randn_like(values))


class BatchNormalised(Sound):
    """Standardises over the batch."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        values = super().score(samples, prompts).values
        return Scores(values - values.mean())


class MeanOverPadding(Sound):
    """Averages over the whole width of the batch."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        return Scores(-((samples.data - 1) ** 2).mean(-1))


class Detached(Sound):
    """Offers a gradient and gives none."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        return Scores(super().score(samples, prompts).values.detach())


class NeedsTwoElements(Sound):
    """Fails on very short samples."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        if int(samples.lengths.min()) < 2:
            raise ValueError("too short")
        return super().score(samples, prompts)


class Trainable(Sound):
    """Keeps a network that would be trained along."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(2, 1).eval()


BROKEN = [
    ("scores_are_sound", WrongShape),
    ("scores_are_deterministic", Random),
    ("rows_are_independent", BatchNormalised),
    ("rows_are_independent", MeanOverPadding),
    ("gradient_is_as_announced", Detached),
    ("extreme_clips_do_not_raise", NeedsTwoElements),
    ("parameters_are_frozen", Trainable),
]
