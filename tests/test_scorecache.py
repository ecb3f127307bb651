"""Scores are computed once, and never mistaken for another's."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rlzoo.audio import to_samples
from rlzoo.core.reward import Reward
from rlzoo.core.types import Media, Prompt, Samples, Scores
from rlzoo.engine.scorecache import CachedReward, ScoreCache
from rlzoo.errors import DataError
from rlzoo.plugin import Options


class Scale(Options):
    factor: float = 1.0


class Loudness(Reward[Scale]):
    """Sum of squares; counts the rows it was asked for."""

    def __init__(self, options: Scale) -> None:
        super().__init__(options)
        self.rows = 0

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        self.rows += len(samples)
        values = self.options.factor * samples.data.square().sum(1)
        return Scores(values, {"length": samples.lengths.float()})


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    return ScoreCache(tmp_path / "deep" / "scores.sqlite")


WAVES = [torch.linspace(0, 1, 50), torch.linspace(0, 1, 40), torch.full((30,), 0.1)]
PROMPTS = [Prompt(name, f"text {name}") for name in "abc"]


def batch(*rows: int, padding: int = 0, rate: int = 8_000) -> tuple[Samples, list[Prompt]]:
    samples = to_samples([WAVES[row] for row in rows], rate)
    data = torch.nn.functional.pad(samples.data, (0, padding))
    return Samples(data, samples.lengths, samples.media), [PROMPTS[row] for row in rows]


def test_known_rows_are_not_computed_again_and_keep_their_order(cache: ScoreCache) -> None:
    plain, cached = Loudness(Scale()), CachedReward("loudness", Loudness(Scale()), cache)
    inner = cached.reward
    assert isinstance(inner, Loudness)
    for rows, computed, hits in (((0, 1), 2, 0), ((1, 2, 0), 3, 2), ((2, 2), 3, 4)):
        expected, found = plain.score(*batch(*rows)), cached.score(*batch(*rows))
        assert torch.allclose(found.values, expected.values)
        assert torch.equal(found.parts["length"], expected.parts["length"])
        assert inner.rows == computed
        assert (cached.hits, cached.misses) == (hits, computed)


def test_padding_is_no_part_of_the_key(cache: ScoreCache) -> None:
    cached = CachedReward("loudness", Loudness(Scale()), cache)
    cached.score(*batch(0))
    cached.score(*batch(0, padding=9))
    assert (cached.hits, cached.misses) == (1, 1)


def test_everything_a_score_depends_on_is_part_of_the_key(cache: ScoreCache) -> None:
    samples, prompts = batch(0)
    changed = samples.data.clone()
    changed[0, 3] += 1e-6
    later = Loudness(Scale())
    later.version = "2"
    other_attributes = [Prompt("a", "text a", {"speaker": 1})]
    keys = [
        CachedReward("loudness", Loudness(Scale()), cache).keys(samples, prompts),
        CachedReward("other", Loudness(Scale()), cache).keys(samples, prompts),
        CachedReward("loudness", Loudness(Scale(factor=2)), cache).keys(samples, prompts),
        CachedReward("loudness", later, cache).keys(samples, prompts),
        CachedReward("loudness", Loudness(Scale()), cache).keys(samples, [Prompt("a", "other text")]),
        CachedReward("loudness", Loudness(Scale()), cache).keys(samples, other_attributes),
        CachedReward("loudness", Loudness(Scale()), cache).keys(*batch(0, rate=16_000)),
        CachedReward("loudness", Loudness(Scale()), cache).keys(
            Samples(changed, samples.lengths, samples.media), prompts
        ),
        CachedReward("loudness", Loudness(Scale()), cache).keys(
            Samples(samples.data, samples.lengths - 1, Media("audio", 8_000)), prompts
        ),
    ]
    assert len({key for (key,) in keys}) == len(keys)
    # The name of a prompt is not what a reward hears.
    assert CachedReward("loudness", Loudness(Scale()), cache).keys(samples, [Prompt("z", "text a")]) == keys[0]


class Weighted(Options):
    checkpoint: Path


def test_other_weights_or_other_code_are_another_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").write_text("1")
    code = "from rlzoo.api import Reward\nclass R(Reward):\n    def score(self, samples, prompts): raise {}\n"
    module = tmp_path / "edited_reward.py"
    monkeypatch.syspath_prepend(str(tmp_path))

    def key() -> str:
        import edited_reward

        reward = edited_reward.R(Weighted(checkpoint=tmp_path / "weights"))
        return CachedReward("r", reward, ScoreCache(tmp_path / "s.sqlite")).keys(*batch(0))[0]

    module.write_text(code.format("ValueError"))
    keys = [key(), key()]
    (tmp_path / "weights").write_text("22")
    keys.append(key())
    module.write_text(code.format("TypeError"))
    keys.append(key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_gradient_goes_past_the_cache(cache: ScoreCache) -> None:
    cached = CachedReward("loudness", Loudness(Scale()), cache)
    samples, prompts = batch(0)
    cached.score(samples, prompts)
    data = samples.data.clone().requires_grad_()
    cached.score(Samples(data, samples.lengths, samples.media), prompts).values.sum().backward()
    assert torch.allclose(data.grad, 2 * data.detach())
    assert cached.misses == 1
    with torch.no_grad():
        cached.score(Samples(data, samples.lengths, samples.media), prompts)
    assert cached.hits == 1


def test_what_is_not_finite_is_passed_on_and_not_kept(cache: ScoreCache) -> None:
    cached = CachedReward("loudness", Loudness(Scale(factor=float("inf"))), cache)
    assert torch.isinf(cached.score(*batch(0)).values).all()
    assert len(cache) == 0


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path / "s.sqlite", max_rows=2)
    cache.put({"a": (1.0, {})})
    cache.put({"b": (2.0, {})})
    cache.get(["a"])
    cache.put({"c": (3.0, {"x": 0.5})})
    assert cache.get(["a", "b", "c"]) == {"a": (1.0, {}), "c": (3.0, {"x": 0.5})}


def _write(path: Path, first: int) -> None:
    cache = ScoreCache(path)
    for index in range(first, first + 50):
        cache.put({str(index): (float(index), {})})


def test_writers_share_a_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(_write, [tmp_path / "s.sqlite"] * 2, (0, 50)))
    cache = ScoreCache(tmp_path / "s.sqlite")
    assert len(cache) == 100
    assert cache.get(["73"]) == {"73": (73.0, {})}


def test_a_file_that_is_no_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.sqlite").write_text("this is no database at all, not even nearly")
    with pytest.raises(DataError, match=r"s\.sqlite' cannot be used"):
        ScoreCache(tmp_path / "s.sqlite")
    with pytest.raises(DataError, match="cannot be used"):
        ScoreCache(tmp_path / "s.sqlite" / "below")
