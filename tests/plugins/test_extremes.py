"""The documented scores of silence, 10 ms, a minute and other rates are what the rewards say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlzoo.api import Prompt
from rlzoo.audio import read_audio, resample_samples
from rlzoo.rewards import build_reward

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/data"
WEIGHTS = {
    "nisqa": "nisqa/nisqa.tar",
    "nisqa-tts": "nisqa/nisqa_tts.tar",
    "dnsmos-pro": "dnsmos_pro/model_best_BVCC.pt",
}
SLOW = ("distillmos", "dnsmos", "dnsmos-pro", "nisqa", "nisqa-tts")


def documented() -> dict[str, list[float]]:
    section = (ROOT / "docs/rewards.md").read_text().split("## Unusual input")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (-?\d.*?) \|$", section, re.MULTILINE)
    return {name: [float(cell) for cell in cells.split(" | ")] for name, cells in rows}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_rewards", ROOT / "benchmarks/rewards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_every_reward_that_is_measured(benchmark: ModuleType) -> None:
    assert set(documented()) == benchmark.REWARDS.keys() - benchmark.NEEDING - benchmark.FASTER
    assert all(len(cells) == 6 for cells in documented().values())


@pytest.mark.parametrize(
    "label",
    ["guard", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)],
)
def test_documented_scores(label: str, benchmark: ModuleType) -> None:
    if not SHARED.is_dir():
        pytest.skip("the clips and weights of ../shared are not here")
    name, options = benchmark.REWARDS[label]
    found: dict[str, Any] = {**options}
    if label in WEIGHTS:
        found["checkpoint"] = SHARED / WEIGHTS[label]
    reward = build_reward(name, found)
    wave, rate = read_audio(SHARED / "ljspeech/wavs/LJ001-0001.wav")
    scores = []
    for samples in benchmark.extremes(wave, rate).values():
        heard = resample_samples(samples, reward.sample_rate)
        with torch.no_grad():
            scores.append(reward.score(heard, [Prompt("clip")]).values.item())
    assert scores == pytest.approx(documented()[label], abs=0.02)
