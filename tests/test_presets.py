"""Presets that are named after a publication keep its figures, where they are easily taken for others."""

from __future__ import annotations

from typing import Any

import pytest

from rlzoo.config.layers import preset_tables
from rlzoo.config.registry import discover

REGISTRY = discover()
PUBLISHED: dict[tuple[str, str], dict[str, Any]] = {
    # The authors' --scale_lr multiplies 1e-8 with the batch.
    ("dpo", "paper"): {"train.learning_rate": 1e-8 * 2048, "train.warmup_steps": 500, "algorithm.pairs_per_step": 2048},
    ("nft", "paper"): {
        "algorithm.beta": 0.1,  # goes with a decay that starts late and almost reaches 1
        "algorithm.decay_flat": 75,
        "algorithm.decay_rate": 0.0075,
        "algorithm.decay_max": 0.999,
        "algorithm.draws": 9,
        "train.times": "schedule",
        "train.advantage_std": "batch",
        "train.ema_decay": 0.9,
        "rollout.deterministic": True,
    },
    # Several updates per rollout: with one the ratio is 1 and the clip never acts.
    ("grpo", "paper"): {"algorithm.kl": "rate", "train.num_minibatches": 2, "train.advantage_std": "batch"},
    ("grpo", "dance"): {"train.num_minibatches": 3, "train.step_fraction": 0.6, "train.ema_decay": 0.995},
    ("grpo", "mix"): {
        "train.num_minibatches": 4,
        "algorithm.init_same_noise": True,
        "train.advantage_per_reward": True,
    },
    ("grpo", "cps"): {"algorithm.ratio": "distance", "train.num_minibatches": 2},
    ("grpo", "fast"): {"algorithm.place": "random", "algorithm.window": 3, "train.num_minibatches": 2},
    ("grpo-guard", "paper"): {"algorithm.clip": 2e-6, "train.num_minibatches": 2},
    ("rwr", "paper"): {"train.advantage": "none", "train.advantage_clip": None},  # raw scores above 5 stay
    ("awm", "paper"): {"algorithm.draws": 6, "algorithm.anchor": "ema", "rollout.num_steps": 14},
    ("klinr", "paper"): {"train.step_fraction": 0.01, "rollout.num_steps": 1000},  # as dlpo's, from one paper
    ("dlpo", "paper"): {"train.step_fraction": 0.01, "rollout.num_steps": 1000},
}


@pytest.mark.parametrize(("name", "preset"), PUBLISHED, ids="-".join)
def test_a_preset_has_the_figures_that_were_published(name: str, preset: str) -> None:
    tables = preset_tables(REGISTRY.get("algorithm", name), preset)
    found = {}
    for path in PUBLISHED[name, preset]:
        table, _, key = path.partition(".")
        found[path] = tables[table].get(key)
    assert found == PUBLISHED[name, preset]
