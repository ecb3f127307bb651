"""The speed benchmark runs from end to end, on networks that are small, and notices a result that is wrong."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig

TINY = NetworkConfig(
    sample_rate=2000,
    encoder_channels=8,
    speaker_channels=4,
    predictor_channels=4,
    down_channels=(4, 8, 8),
    up_channels=(12, 8, 8, 4),
    factors=(5, 4, 4),
    dilations=((1, 2, 4, 8),) * 3,
)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks" / "speed"))
    monkeypatch.setitem(PRESETS, "mini", TINY)
    monkeypatch.setitem(PRESETS, "base", TINY)
    module = importlib.import_module("run")
    monkeypatch.setattr(module, "matmul_ceiling", lambda device, dtype: 1e11)
    monkeypatch.setattr(module, "keep_freed_memory", lambda: True)  # would change this process for good
    return module


def test_the_benchmark_stores_what_it_measured(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--repeats", "1", "--out", str(tmp_path)])
    bench.main()
    stored = json.loads((tmp_path / "cpu-quick.json").read_text())
    assert [row["what"].split()[0] for row in stored["rows"]].count("denoiser") == 3
    assert all(row["ours"] > 0 and row["gflop"] > 0 and row["difference"] < 1e-4 for row in stored["rows"])
    assert stored["about"]["torch"] == torch.__version__
    table = (tmp_path / "cpu-quick.md").read_text()
    assert all(f"| {row['what']} |" in table for row in stored["rows"])


def test_a_wrong_result_ends_the_benchmark(bench: ModuleType) -> None:
    runs = bench.Bench(torch.device("cpu"), 1)
    x = torch.randn(3, 4)
    with pytest.raises(SystemExit, match="wrong, fp32: results differ"):
        runs.compare("wrong", {"literal": lambda: x @ x.t(), "ours": lambda: 1.001 * (x @ x.t())}, 1.0)
