"""Every algorithm on the voice that ships, one step: its style has noise of its own, so a step's deviations differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from one_step import check_one_step

from rlzoo.config.registry import discover
from rlzoo.config.resolve import resolve

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
    check_one_step(run, tmp_path / "run")
