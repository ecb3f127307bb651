"""A tiny grid on the toys and a made-up document, for the tests of benchmarks."""

import json
from pathlib import Path

from rlzoo.bench import worker
from rlzoo.bench.jobs import execute, make
from rlzoo.bench.suite import load

SUITE = """
name = "tiny"
summary = "two algorithms <on> the toy"
seeds = [0, 1]
plugins = ["rlzoo.testing.specs"]

[[rewards]]
label = "toy"
terms = ["toy"]
optimum = 0.0

[run.policy]
name = "toy-gaussian"
[run.prompts]
name = "toy"
[run.rollout]
prompts_per_step = 2
samples_per_prompt = 2
[run.train]
steps = 100
learning_rate = 0.02
device = "cpu"
eval_every = 2
save_every = 2
keep_checkpoints = 9
[run.train.budget]
samples = 16
[run.eval]
prompts = 3

[[algorithms]]
name = "ddpo"
[[algorithms]]
name = "sft"
label = "control"
options = { updates = 1 }
"""


def suite_file(folder: Path, text: str = SUITE) -> Path:
    path = folder / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


def here(job):
    """An attempt in this process: the command itself, without the seconds a fresh interpreter takes."""
    return worker.main(job)


def run_grid(folder: Path, text: str = SUITE):
    """The finished grid: (suite, its folder)."""
    suite = load(str(suite_file(folder, text)))
    for cell in suite.cells():
        outcome = execute(make(suite, cell, folder / "grid"), here)
        assert outcome.state == "done", outcome
    return suite, folder / "grid"


def edit(path: Path, change) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def document(systems, judge=None, *, seeds=(0, 1, 2, 3), optimum=None, trials=None):
    """A document with one cell per system and seed. `systems`: {label: gain of the reward per prompt};
    `judge`: {label: gain of the judge per prompt}, 8 prompts each."""
    prompts = [f"p{index}" for index in range(8)]
    cells = []
    for label, gain in systems.items():
        for seed in seeds:
            base = [0.1 * index + 0.01 * seed for index in range(8)]
            before, after = {"total": base, "r": base}, {}
            after["total"] = after["r"] = [b + gain + 0.001 * seed * index for index, b in enumerate(base)]
            if judge is not None:
                before["j"] = [3.0 + 0.05 * index for index in range(8)]
                after["j"] = [b + judge[label] + 0.001 * index for index, b in enumerate(before["j"])]
            cells.append(_cell(label, seed, prompts, before, after))
    return {
        "format": "rlzoo-bench/1",
        "rlzoo": "0.1.0",
        "suite": {
            "name": "made-up",
            "summary": "made up",
            "seeds": list(seeds),
            "headline": "total",
            "budget": {"samples": 100},
            "threads": 1,
            "algorithms": [
                {"label": label, "name": label, "search_trials": (trials or {}).get(label, 0)} for label in systems
            ],
            "rewards": [{"label": "r", "terms": [{"name": "r", "weight": 1.0}], "optimum": optimum}],
        },
        "origin": {"commits": ["abc"], "machines": ["m"], "python": ["3.11"], "packages": {"torch": ["2"]}},
        "configs": {
            f"{label}--r": {"algorithm": {"name": label}, "rewards": [{"name": "r"}], "train": {"steps": 10}}
            for label in systems
        },
        "cells": cells,
        "missing": [],
        "left_out": [],
        "audio": {},
    }


def _cell(label, seed, prompts, before, after):
    def point(step, scores, kl):
        used = {"samples": 10.0 * step, "network_evaluations": 50.0 * step, "reward_calls": 10.0 * step}
        used |= {"updates": 1.0 * step, "seconds": 0.5 * step}
        return {"step": step, "scores": scores, "used": used, "kl": kl}

    first = {name: sum(values) / 8 for name, values in before.items()}
    last = {name: sum(values) / 8 for name, values in after.items()}
    middle = {name: (first[name] + last[name]) / 2 for name in first}
    curve = [point(0, first, 0.0), point(5, middle, 0.1), point(10, last, 0.3)]
    return {
        "algorithm": label,
        "reward": "r",
        "seed": seed,
        "state": "done",
        "steps": 10,
        "curve": curve,
        "counted": 2,
        "prompts": {"names": prompts, "base": before, "tuned": after},
        "used": curve[-1]["used"],
        "wall_seconds": 7.0,
        "memory_mb": 300.0,
        "gpu_memory_mb": None,
        "spread": dict.fromkeys(first, 0.25),
    }
