"""What only this reward must satisfy; rlzoo's own tests run it."""

import math

import pytest
import torch
from rlzoo_loudness import LoudnessOptions
from rlzoo_loudness.reward import LoudnessReward

from rlzoo.api import Prompt
from rlzoo.audio import to_samples


def test_a_sine_has_the_level_of_its_amplitude():
    wave = 0.1 * torch.sin(torch.arange(16_000) * 2 * math.pi * 440 / 16_000)
    scores = LoudnessReward(LoudnessOptions(target_dbfs=-20)).score(to_samples([wave], 16_000), [Prompt("a")])
    level = 20 * math.log10(0.1 / math.sqrt(2))
    assert scores.values.item() == pytest.approx(-abs(level + 20), abs=0.05)
