"""Runs as the engine builds them, for what is timed here: a reward that costs nothing, lines of mixed lengths."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.config.registry import discover
from rlzoo.config.resolve import resolve
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import RunState, build
from rlzoo.files.rundir import RunDirectory
from rlzoo.plugin import Options, RewardSpec, hookimpl

LINES = (
    "Thank you.",
    "The trains run on time.",
    "She read the letter twice.",
    "Most of the garden lies in the shade.",
    "Who was that?",
    "We walked along the river.",
    "He opened every window of the house.",
    "Nobody had seen the cat.",
)
"""The longest of the first four is 1.4 times as long as their mean, as it is of four clips of LJSpeech."""


class Level(Reward[Options]):
    """Root mean square in dB: depends on every sample, and takes no time."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) -> (N,), attached to the graph."""
        power = samples.data.square().sum(1) / samples.lengths
        return Scores(10 * power.clamp(min=1e-9).log10())


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    """The reward of these benchmarks."""
    spec = {"accepts": frozenset({"audio"}), "offers": frozenset({"reward-grad"})}
    yield RewardSpec(name="level", summary="level", target=f"{__name__}:Level", options=Options, **spec)


def voice(folder: Path, name: str) -> Path | None:
    """None: the voice that ships. Else one of that size with random weights: no speech, and no quicker or slower."""
    if name == "shipped":
        return None
    torch.manual_seed(0)
    network = WaveGrad2Network(PRESETS[name], init=False)
    with torch.no_grad():  # 80 ms a phone
        for suffix in ("l1", "l1_reverse"):
            getattr(network.resampling.duration_predictor.lstm, f"bias_ih_{suffix}").fill_(3.0)
        network.resampling.duration_predictor.fc[0].weight.fill_(0.04 / PRESETS[name].predictor_channels)
    path = folder / f"{name}.safetensors"
    if not path.exists():
        VOICES.save(path, network.state_dict(), {"network": PRESETS[name].model_dump(), "text": "flite"})
    return path


def policy_options(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Options of `[policy]` for a benchmark's `--policy`, `--voice` and `--trainable`; `gradtts` as it ships."""
    if options.policy == "gradtts":
        return {}
    checkpoint = voice(folder, options.voice)
    return {"trainable": options.trainable} | ({"checkpoint": str(checkpoint)} if checkpoint else {})


def lines(folder: Path, count: int, times_as_long: int = 1) -> Path:
    """A file of the first `count` lines, each said so many times, and of one that is held out."""
    path = folder / "lines.txt"
    path.write_text("\n".join(" ".join([line] * times_as_long) for line in LINES[:count]) + "\n", encoding="utf-8")
    (folder / "heldout.txt").write_text("Good morning.\n", encoding="utf-8")
    return path


def live(folder: Path, tables: dict[str, Any], device: str, precision: str = "fp32") -> RunState:
    """The run that `rlzoo run` would build; prompts are `lines`, the reward `Level` if the tables have none."""
    prompts = {"name": "text", "path": str(folder / "lines.txt"), "heldout_path": str(folder / "heldout.txt")}
    train = {"device": device, "precision": precision, "kl_every": 0, "advantage": "batch", "score_cache": False}
    tables = tables | {"train": train | tables.get("train", {})}
    registry = discover()
    registry.add_module(sys.modules[__name__])
    run = resolve({"prompts": prompts, "rewards": [{"name": "level"}], "eval": {"judges": []}, **tables}, registry)
    rundir = RunDirectory.create(folder / f"run-{len(list(folder.iterdir()))}", toml="", config=run.to_dict(), env={})
    return build(run, rundir, make_fabric(device, precision), lambda event: None)
