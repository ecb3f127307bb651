"""Two processes learn what one learns in the settings that are not the default, where statistics are taken apart."""

from __future__ import annotations

from typing import Any

import pytest
from toy_contexts import assert_ranks_agree

from rlzoo.config.registry import discover, import_target

REGISTRY = discover()
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("adjoint-matching", {"steps": 2}, {}),
    ("awm", {"anchor": "ema", "kl": 0.3, "draws": 2, "updates": 2}, {"advantage": "batch"}),
    ("bon", {"best": 2, "draws": 2}, {}),
    ("d3po", {"credit": "trajectory"}, {"logprob_reduction": "sum"}),
    ("ddpo", {"clip": 0.05}, {"advantage": "prompt", "advantage_min_count": 6}),
    ("dlpo", {"credit": "step", "target": "own", "estimator": "scalar"}, {}),
    ("dlpo", {"target": "data", "centre": True}, {}),
    ("dpo", {"updates": 2}, {}),
    ("draft", {"steps": 3}, {}),
    ("grpo", {"beta": 0.3, "kl": "rate"}, {"advantage_std": "batch"}),
    ("nft", {"kl": 0.2, "draws": 2, "updates": 2}, {"advantage_std": "batch"}),
    ("onlydl", {}, {}),
    ("rwr", {"weighting": "exponential", "updates": 2}, {"advantage": "none"}),
    ("rwr", {"weighting": "sparse", "keep": 0.25}, {"advantage": "batch"}),
    ("sft", {"source": "recordings", "draws": 2}, {}),
]


@pytest.mark.parametrize(
    ("name", "options", "table"), CASES, ids=lambda part: part if isinstance(part, str) else "-".join(map(str, part))
)
def test_two_processes_learn_what_one_learns(name: str, options: dict[str, Any], table: dict[str, Any]) -> None:
    spec = REGISTRY.get("algorithm", name)
    assert_ranks_agree(lambda: import_target(spec.target, name)(spec.options(**options)), steps=2, **table)
