"""The speed benchmark runs from end to end, on networks that are small, and notices a result that is wrong."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
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
CPU = torch.device("cpu")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark on tiny networks, in this process: its own processes would each take seconds to start."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks" / "speed"))
    monkeypatch.setitem(PRESETS, "mini", TINY)
    monkeypatch.setitem(PRESETS, "base", TINY)
    module = importlib.import_module("run")
    monkeypatch.setattr(sys.modules["sides"], "matmul_ceiling", lambda device, dtype: 1e11)
    monkeypatch.setattr(module, "Apart", partial(module.Work, device=CPU))
    return module


def test_the_benchmark_stores_what_it_measured(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "--quick", "--repeats", "1", "--out", str(tmp_path)])
    bench.main()
    stored = json.loads((tmp_path / "cpu-quick.json").read_text())
    assert [row["what"].split()[0] for row in stored["rows"]].count("denoiser") == 3
    for row in stored["rows"]:
        assert min(row[side] for side in ("literal", "configured", "ours", "gflop", "own_gflop")) > 0
        assert row["difference"] < 1e-4
        assert set(row["peaks"]) == {"literal", "configured", "ours"}
    assert stored["about"]["torch"] == torch.__version__
    table = (tmp_path / "cpu-quick.md").read_text()
    assert all(f"| {row['what']} |" in table for row in stored["rows"])


def test_sides_that_do_not_fit_together_are_measured_in_pairs(bench: ModuleType) -> None:
    case = bench.Case("crowded", "training", TINY, (6,), crowded=True)
    row = bench.compare(case, CPU, 1)
    assert min(row.literal, row.configured, row.ours) > 0
    assert set(row.peaks) == {"literal", "configured", "ours"}


def test_a_wrong_result_ends_the_benchmark(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bench.Work._literal_step
    monkeypatch.setattr(bench.Work, "_literal_step", lambda self, x, level: 1.001 * right(self, x, level))
    with pytest.raises(SystemExit, match="wrong, fp32: results differ"):
        bench.compare(bench.Case("wrong", "denoiser", TINY, (6,)), CPU, 1)


def test_a_process_of_its_own_answers_the_same(bench: ModuleType) -> None:
    sides = sys.modules["sides"]
    case = bench.Case("apart", "sampling", TINY, (6, 4), 2)
    apart = sides.Apart(case, "ours")
    found = torch.as_tensor(apart.result())
    apart.close()
    torch.testing.assert_close(found, torch.as_tensor(bench.Work(case, "ours", CPU).result()))
