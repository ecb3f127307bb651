"""Every algorithm on the voice that ships, one step: its style has noise of its own, so a step's deviations differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.config.registry import discover
from rlzoo.config.resolve import resolve
from rlzoo.engine.checkpoint import load_policy
from rlzoo.engine.loop import train
from rlzoo.files.rundir import RunDirectory

OFFERED = discover().policy("gradtts").offers | {"reward-grad"}
RECORDINGS = {"sft"}
WEIGHS: dict[str, dict[str, Any]] = {
    "adjoint-matching": {},
    "grpo": {"ratio": "distance"},
    "grpo-guard": {},
    "tempflow": {"branches": 1},
}
"""Algorithms, with options, that ask for the deviations of steps."""
ALGORITHMS = [
    pytest.param(name, marks=[] if name in WEIGHS else pytest.mark.slow)
    for name, spec in sorted(discover().specs["algorithm"].items())
    if spec.needs <= OFFERED and name not in RECORDINGS
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_trains_it(algorithm: str, tmp_path: Path) -> None:
    """With the self-checks on: the ratio is 1 before the first update, and the reward reaches the policy."""
    run = resolve(
        {
            "algorithm": {"name": algorithm, **WEIGHS.get(algorithm, {})},
            "policy": {"name": "gradtts"},
            "prompts": {"name": "short"},
            "rewards": [{"name": "dnsmos"}],
            "rollout": {"prompts_per_step": 2, "samples_per_prompt": 2},
            "train": {"steps": 1, "device": "cpu", "eval_every": 0},
            "eval": {"prompts": 1, "judges": []},
        }
    )
    directory = RunDirectory.create(tmp_path / "run", toml="", config=run.to_dict(), env={})
    train(run, directory, resume=False)
    before, after = load_policy(directory.path, start=True), load_policy(directory.path)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    (row,) = directory.metrics()
    if "policy/ratio_max" in row:
        assert row["policy/ratio_max"] == pytest.approx(1, abs=1e-4)
