"""A CUDA device for machines that have none, and runs on it; see `rlzoo.testing.fakecuda`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_plugins import small

from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun, resolve
from rlzoo.engine import report
from rlzoo.testing import toy_runs
from rlzoo.testing.fakecuda import FakeCuda

TOYS = ("toy-gaussian", "toy-flow")
PRETRAINED = {"pretrain_steps": 30}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: they take longer than a toy's run, and hold no tensors."""
    for name in ("write_plot", "write_report"):
        monkeypatch.setattr(report, name, lambda rundir: rundir.path)


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
    """AA1 is a note of 120 Hz and IY1 one of 200 Hz, each 100 ms, with silence around."""
    import torch

    from rlzoo.audio import write_audio

    time = torch.arange(round(0.1 * rate)) / rate
    note = {
        name: sum(0.1 * torch.cos(2 * math.pi * h * hertz * time + h * h) / h for h in range(1, 12))
        for name, hertz in (("AA1", 120), ("IY1", 200))
    }
    silence, metadata, phones = torch.zeros(round(0.05 * rate)), [], []
    for i in range(8):
        names = ["AA1" if (i >> bit) & 1 else "IY1" for bit in range(3)]
        wave = torch.cat([silence, *(note[name] for name in names), silence])
        write_audio(folder / "wavs" / f"u{i}.wav", wave, rate)
        said = " ".join({"AA1": "ah", "IY1": "ee"}[name] for name in names)
        metadata.append(f"u{i}|{said}|{said}")
        phones.append({"id": f"u{i}", "phones": ["sil", *names, "sil"], "ends": [0.05, 0.15, 0.25, 0.35, 0.4]})
    (folder / "metadata.csv").write_text("\n".join(metadata) + "\n")
    (folder / "phones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in phones))
    for name, ids in {"train": range(6), "validation": [6], "test": [7]}.items():
        (folder / f"{name}.txt").write_text("".join(f"u{i}\n" for i in ids))
    return folder


@pytest.fixture
def speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ResolvedRun]:
    """`speech(policy, algorithm, train={...})`: a run of one step on a small voice."""

    def make(policy: str, algorithm: str, device: str = "cuda", **tables: dict[str, Any]) -> ResolvedRun:
        defaults: dict[str, dict[str, Any]] = {
            "rollout": {"prompts_per_step": 1, "samples_per_prompt": 2, "num_steps": 2, "micro_batch": 1},
            "train": {"steps": 1, "device": device, "micro_batch": 2, "score_cache": False},
            "eval": {"prompts": 1, "judges": []},
        }
        for name, table in tables.items():
            defaults[name] = {**defaults.get(name, {}), **table}
        options = small(discover().policy(policy), tmp_path, monkeypatch)
        return resolve(
            {
                "policy": {"name": policy, **options.model_dump(mode="json", exclude_unset=True)},
                "algorithm": {"name": algorithm},
                "rewards": [{"name": "guard"}],
                **defaults,
            }
        )

    return make
