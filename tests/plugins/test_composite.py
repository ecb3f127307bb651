"""The composite reward is the sum it says it is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from pydantic import ValidationError
from rlzoo_composite import CompositeOptions, Part
from rlzoo_composite.reward import CompositeReward
from rlzoo_guard import GuardOptions
from rlzoo_guard.reward import GuardReward

from rlzoo.api import Media, Prompt, Reward, Samples, Scores
from rlzoo.audio import to_samples
from rlzoo.errors import ConfigError
from rlzoo.plugin import Options

PROMPTS = [Prompt("a", "some words"), Prompt("b", "some words")]


class Mean(Reward[Options]):
    """Mean of each row; remembers the rates it was given."""

    sample_rate = 8_000
    version = "7"
    seen: list[int | None]

    def __init__(self) -> None:
        super().__init__(Options())
        self.seen = []

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        self.seen.append(samples.media.sample_rate)
        return Scores(torch.stack([samples.row(row).mean() for row in range(len(samples))]), {"x": samples.lengths})


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Mean:
    mean = Mean()
    monkeypatch.setattr("rlzoo_composite.reward.build_reward", lambda name, options, where: mean)
    return mean


def samples() -> Samples:
    return to_samples([torch.full((800,), 0.5), torch.full((400,), -0.25)], 8_000)


def test_raw_and_standardised_parts_are_summed(parts: Mean) -> None:
    options = CompositeOptions(parts=(Part(name="mean", weight=2.0), Part(name="mean", weight=-1.0, mean=0.1, std=0.2)))
    reward = CompositeReward(options)
    scores = reward.score(samples(), PROMPTS)
    expected = [2 * x - (x - 0.1) / 0.2 for x in (0.5, -0.25)]
    assert scores.values.tolist() == pytest.approx(expected)
    assert scores.parts["1-mean"].tolist() == [0.5, -0.25]
    assert scores.parts["0-mean-x"].tolist() == [800, 400]
    assert reward.version == "1+7+7"


def test_the_cache_key_holds_those_of_the_parts(parts: Mean) -> None:
    reward = CompositeReward(CompositeOptions(parts=(Part(name="mean"),)))
    before = reward.cache_key()
    assert before[-1] == [parts.cache_key()]
    parts.version = "8"
    assert reward.cache_key() != before


def test_a_floor_replaces_the_sum_of_that_row_only(parts: Mean) -> None:
    options = CompositeOptions(parts=(Part(name="mean", weight=3.0), Part(name="mean", weight=0.0, floor=0.0)))
    scores = CompositeReward(options).score(samples(), PROMPTS)
    assert scores.values.tolist() == [1.5, -3.0]
    assert scores.parts["broken"].tolist() == [0.0, 1.0]


def test_each_part_gets_its_rate(parts: Mean) -> None:
    reward = CompositeReward(CompositeOptions(parts=(Part(name="mean"),)))
    batch = samples()
    reward.score(Samples(batch.data, batch.lengths, Media("audio", 16_000)), PROMPTS)
    assert parts.seen == [8_000]
    assert reward.sample_rate is None


def test_registered_rewards_are_built_by_name() -> None:
    """Through the registry, like a run does it."""
    wave = torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    batch = to_samples([wave], 16_000)
    options = CompositeOptions(parts=(Part(name="guard", weight=0.5, options={"max_dc": 0.1}),))
    expected = GuardReward(GuardOptions(max_dc=0.1)).score(batch, PROMPTS[:1]).values
    assert torch.equal(CompositeReward(options).score(batch, PROMPTS[:1]).values, 0.5 * expected)


@pytest.mark.parametrize(
    ("part", "said"),
    [(Part(name="gard"), "gard"), (Part(name="guard", options={"max_cd": 1}), "max_cd: no such option")],
)
def test_unknown_parts_and_options_are_named(part: Part, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CompositeReward(CompositeOptions(parts=(part,)))


def test_a_sum_of_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one part needs a weight"):
        CompositeOptions(parts=(Part(name="guard", weight=0),))
