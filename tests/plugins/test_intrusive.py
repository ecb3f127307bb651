"""Measures against a recording: zero for itself, worse with noise, independent of the batch."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import rlzoo_intrusive
import torch
from rlzoo_intrusive import MCDOptions, PESQOptions, STOIOptions
from rlzoo_intrusive.mcd import MCDReward, cheapest_path
from torch import Tensor

from rlzoo.api import Prompt, Reward
from rlzoo.audio import resample, to_samples, write_audio
from rlzoo.config.registry import import_target
from rlzoo.errors import ConfigError, DataError, PluginError

RATE = 16_000


def speechlike(seconds: float = 2.0, pace: float = 1.0) -> Tensor:
    """Harmonics whose envelope moves like vowels do; `pace` stretches the movement, not the pitch."""
    t = torch.arange(int(seconds * RATE)) / RATE
    formant = 900 + 500 * torch.sin(2 * math.pi * 1.5 * pace * t)
    partials = [
        torch.exp(-(((120.0 * k - formant) / 400) ** 2)) * torch.sin(2 * math.pi * 120 * k * t) for k in range(1, 40)
    ]
    level = 0.55 + 0.45 * torch.sin(2 * math.pi * 3 * pace * t)
    # A floor of noise: a 16-bit file would put its own into bins that are empty.
    return noisy(0.1 * level * torch.stack(partials).sum(0), 0.001)


def noisy(wave: Tensor, level: float) -> Tensor:
    return wave + level * torch.randn(wave.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def prompt(tmp_path: Path) -> Prompt:
    path = write_audio(tmp_path / "recording.wav", speechlike(), RATE)
    return Prompt("p", "text", {"audio": str(path)})


def reward_named(name: str) -> Reward:
    if name == "mcd":
        return MCDReward(MCDOptions())
    package, module = ("pystoi", "stoi") if name == "stoi" else ("pesq", "pesq")
    pytest.importorskip(package, reason="the extra 'intrusive' is not installed")
    target = importlib.import_module(f"rlzoo_intrusive.{module}")
    reward: Reward = target.STOIReward(STOIOptions()) if name == "stoi" else target.PESQReward(PESQOptions())
    return reward


@pytest.mark.parametrize(("gone", "kept"), [("pystoi", "pesq"), ("pesq", "stoi")])
def test_one_missing_package_does_not_take_the_other_down(
    gone: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pystoi" if kept == "stoi" else "pesq", reason="the extra 'intrusive' is not installed")
    monkeypatch.setitem(sys.modules, gone, None)
    for name in ("stoi", "pesq", "aligned"):
        monkeypatch.delitem(sys.modules, f"rlzoo_intrusive.{name}", raising=False)
    specs = {spec.name: spec for spec in rlzoo_intrusive.rlzoo_rewards()}
    import_target(specs[kept].target, kept, specs[kept].extra)
    lost = specs["stoi" if kept == "pesq" else "pesq"]
    with pytest.raises(PluginError, match="cannot be imported") as error:
        import_target(lost.target, lost.name, lost.extra)
    assert "rlzoo-speech[intrusive]" in error.value.hint


each = pytest.mark.parametrize("name", ["mcd", "stoi", "pesq"])


@each
def test_the_recording_itself_is_best_and_noise_is_worse(name: str, prompt: Prompt) -> None:
    wave = speechlike()
    waves = [wave, noisy(wave, 0.003), noisy(wave, 0.03)]
    best, good, bad = reward_named(name).score(to_samples(waves, RATE), [prompt] * 3).values.tolist()
    assert best > good > bad
    assert best == pytest.approx({"mcd": 0.0, "stoi": 1.0, "pesq": 4.64}[name], abs=0.3)


@each
def test_a_row_does_not_depend_on_its_batch_and_any_clip_has_a_score(name: str, prompt: Prompt) -> None:
    reward = reward_named(name)
    waves = [noisy(speechlike(), 0.01), speechlike(0.5), torch.zeros(RATE), torch.zeros(160), speechlike(5.0)]
    together = reward.score(to_samples(waves, RATE), [prompt] * 5).values
    alone = torch.cat([reward.score(to_samples([wave], RATE), [prompt]).values for wave in waves])
    assert torch.isfinite(together).all()
    assert torch.equal(together, alone)


@each
def test_prompts_without_a_recording_are_refused(name: str, tmp_path: Path) -> None:
    reward = reward_named(name)
    samples = to_samples([speechlike(0.5)], RATE)
    with pytest.raises(ConfigError, match="prompt 'q' has none"):
        reward.score(samples, [Prompt("q", "text")])
    with pytest.raises(DataError, match="does not exist"):
        reward.score(samples, [Prompt("q", "text", {"audio": str(tmp_path / "absent.wav")})])


def test_a_recording_at_another_rate_is_resampled(tmp_path: Path) -> None:
    path = write_audio(tmp_path / "r.wav", resample(speechlike(), RATE, 22_050), 22_050)
    prompt = Prompt("p", "text", {"audio": str(path)})
    score = MCDReward(MCDOptions()).score(to_samples([speechlike()], RATE), [prompt]).values.item()
    noise = MCDReward(MCDOptions()).score(to_samples([noisy(speechlike(), 0.03)], RATE), [prompt]).values.item()
    assert noise < 2 * score < 0


def test_warping_forgives_the_pace(prompt: Prompt) -> None:
    slower = speechlike(2.5, pace=0.8)
    reward = MCDReward(MCDOptions())
    same_words, other_words = reward.score(
        to_samples([slower, speechlike(2.5, pace=2.3).flip(0)], RATE), [prompt] * 2
    ).values.tolist()
    assert same_words > 0.6 * other_words  # both negative: less than 0.6 of the distance


def test_the_cheapest_path_is_the_best_of_all_paths() -> None:
    cost = np.random.default_rng(0).random((4, 5))
    moves = ((1, 0), (0, 1), (1, 1))
    best = math.inf
    for length in range(3, 8):
        for path in itertools.product(moves, repeat=length):
            cells = [(0, 0), *itertools.accumulate(path, lambda a, b: (a[0] + b[0], a[1] + b[1]), initial=(0, 0))][1:]
            if cells[-1] == (3, 4) and all(s < 4 and t < 5 for s, t in cells):
                best = min(best, sum(cost[cell] for cell in cells))
    total, steps = cheapest_path(cost)
    assert total == pytest.approx(best)
    assert 5 <= steps <= 8
