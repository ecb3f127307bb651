"""A CUDA device for machines that have none, and runs on it; see `rlzoo.testing.fakecuda`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlzoo.config.resolve import ResolvedRun, resolve
from rlzoo.testing import toy_runs
from rlzoo.testing.fakecuda import FakeCuda

TOYS = ("toy-gaussian", "toy-flow")
PRETRAINED = {"pretrain_steps": 30}


@pytest.fixture
def gpu() -> Iterator[FakeCuda]:
    with FakeCuda() as device:
        yield device


@pytest.fixture(scope="session", autouse=True)
def toys() -> None:
    """Toys are trained once in a process, and not on the slow device."""
    for name in TOYS:
        toy_runs.toy_run(policy={"name": name, **PRETRAINED}).policy.build()


@pytest.fixture
def toy() -> Callable[..., ResolvedRun]:
    """`toy(algorithm, device="cuda", train={...})`: a run of two steps on a toy with everything that a run does."""

    def make(algorithm: str, device: str = "cuda", policy: str = TOYS[0], **tables: dict[str, Any]) -> ResolvedRun:
        train = {"steps": 2, "device": device, "eval_every": 1, "micro_batch": 8, **tables.pop("train", {})}
        return toy_runs.toy_run(
            algorithm={"name": algorithm}, policy={"name": policy, **PRETRAINED}, train=train, **tables
        )

    return make


@pytest.fixture(scope="session")
def corpus_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`corpus_of(policy)`: eight utterances of two sounds with phone times, at the rate of the voice that ships."""
    made: dict[str, Path] = {}

    def make(policy: str) -> Path:
        if policy not in made:
            made[policy] = two_sounds(tmp_path_factory.mktemp(policy), 8_000 if policy == "wavegrad2" else 16_000)
        return made[policy]

    return make


def two_sounds(folder: Path, rate: int) -> Path:
    """AA is a note of 120 Hz and IY one of 200 Hz, each 100 ms, with silence around."""
    import torch

    from rlzoo.audio import write_audio

    time = torch.arange(round(0.1 * rate)) / rate
    note = {
        name: sum(0.1 * torch.cos(2 * math.pi * h * hertz * time + h * h) / h for h in range(1, 12))
        for name, hertz in (("AA", 120), ("IY", 200))
    }
    silence, metadata, phones = torch.zeros(round(0.05 * rate)), [], []
    for i in range(8):
        names = ["AA" if (i >> bit) & 1 else "IY" for bit in range(3)]
        wave = torch.cat([silence, *(note[name] for name in names), silence])
        write_audio(folder / "wavs" / f"u{i}.wav", wave, rate)
        metadata.append(f"u{i}|text {i}|text {i}")
        phones.append({"id": f"u{i}", "phones": ["sil", *names, "sil"], "ends": [0.05, 0.15, 0.25, 0.35, 0.4]})
    (folder / "metadata.csv").write_text("\n".join(metadata) + "\n")
    (folder / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in phones))
    for name, ids in {"train": range(6), "validation": [6], "test": [7]}.items():
        (folder / f"{name}.txt").write_text("".join(f"u{i}\n" for i in ids))
    return folder


@pytest.fixture
def speech() -> Callable[..., ResolvedRun]:
    """`speech(policy, algorithm, train={...})`: a run of one step on the voice that ships."""

    def make(policy: str, algorithm: str, device: str = "cuda", **tables: dict[str, Any]) -> ResolvedRun:
        defaults: dict[str, dict[str, Any]] = {
            "rollout": {"prompts_per_step": 1, "samples_per_prompt": 2, "num_steps": 2, "micro_batch": 1},
            "train": {"steps": 1, "device": device, "micro_batch": 2, "score_cache": False},
            "eval": {"prompts": 1, "judges": []},
        }
        options = tables.pop("policy", {})
        for name, table in tables.items():
            defaults[name] = {**defaults.get(name, {}), **table}
        return resolve(
            {
                "policy": {"name": policy, **options},
                "algorithm": {"name": algorithm},
                "rewards": [{"name": "guard"}],
                **defaults,
            }
        )

    return make
