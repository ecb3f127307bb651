"""Every algorithm on the device: it trains, stops, and goes on from a checkpoint that the other device wrote."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rlzoo.registry import discover
from rlzoo.rundir import RunDirectory
from torch import nn

from rlzoo.api import TrainContext
from rlzoo.config import ResolvedRun
from rlzoo.engine import loop
from rlzoo.engine.loop import train
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import build
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.toy_runs import PolicyGradient, start

ALGORITHMS = sorted(discover().names("algorithm"))
SUMS = {"logprob_reduction": "sum"}
ROOT = Path(__file__).resolve().parents[2]


def same(ours: RunDirectory, theirs: RunDirectory) -> None:
    """Both devices compute alike here, so that whatever differs is a branch for one of them."""
    assert len(ours.metrics()) == len(theirs.metrics())
    for one, other in zip(ours.metrics(), theirs.metrics(), strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "budget/seconds"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5) or math.isnan(one[name]), name


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: they take longer than a toy's run, and hold no tensors."""
    for name in ("write_plot", "write_report"):
        monkeypatch.setattr(loop, name, lambda rundir: rundir.path)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_moves_between_devices(name: str, toy: Callable[..., ResolvedRun], tmp_path: Path) -> None:
    policy = ("toy-gaussian", "toy-flow")[ALGORITHMS.index(name) % 2]

    def run(device: str, steps: int) -> ResolvedRun:
        return toy(name, device, policy, train={"steps": steps})

    here, moved = start(run("cpu", 3), tmp_path / "here"), start(run("cuda", 3), tmp_path / "moved")
    train(run("cpu", 3), here)
    with FakeCuda():
        train(run("cuda", 1), moved)
    train(run("cpu", 2), moved, resume=True)
    with FakeCuda():
        train(run("cuda", 3), moved, resume=True)
    same(moved, here)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("policy", "more"), [("toy-gaussian", {"window_frames": 2}), ("toy-flow", SUMS)])
def test_windows_averages_bfloat16_sums_and_scores_in_a_thread(
    gpu: FakeCuda, toy: Callable[..., ResolvedRun], tmp_path: Path, policy: str, more: dict[str, Any]
) -> None:
    table = {"ema_decay": 0.9, "precision": "bf16-mixed", "kl_every": 1, "micro_batch": 0, **more}
    run = toy("ddpo", policy=policy, train=table, rollout={"score_ahead": True, "micro_batch": 4})
    done = train(run, start(run, tmp_path / "run"))
    assert done.steps == 2
    assert gpu.kernels.total() > 1000


WORKER = """
import sys
from pathlib import Path
from unittest import mock
from lightning_fabric.strategies import ddp
from rlzoo.config import ResolvedRun
from rlzoo.engine.loop import train
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import build
from rlzoo.rundir import RunDirectory
from rlzoo.testing.fakecuda import FakeCuda
rundir = RunDirectory.open(Path(sys.argv[1]))
# NCCL needs the real thing.
with FakeCuda(devices=2), mock.patch.object(ddp, "_get_default_process_group_backend_for_device", return_value="gloo"):
    train(ResolvedRun.from_dict(rundir.config()), rundir)
"""


@pytest.mark.usefixtures("quick")
def test_two_ranks_equal_one(toy: Callable[..., ResolvedRun], tmp_path: Path) -> None:
    run = toy("ddpo", train={"steps": 1, "eval_every": 0})
    one, two = start(run, tmp_path / "one"), start(run, tmp_path / "two")
    with FakeCuda():
        train(run, one)
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(tmp_path / "worker.py"), str(two.path)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    same(two, one)


class Planted(PolicyGradient):
    """The plain policy gradient, with a mistake."""

    mistake = ""

    def setup(self, ctx: TrainContext) -> None:
        super().setup(ctx)
        self.baseline = nn.Parameter(torch.zeros(1))
        if self.mistake != "a value network that does not move":
            self.baseline = nn.Parameter(self.baseline.data.to(ctx.device))

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        trajectory = ctx.rollout()
        scores = ctx.score(trajectory).values
        if self.mistake == "scores of the CPU":
            scores = torch.tensor(scores.tolist())
        if self.mistake == "noise of the CPU":
            trajectory.final + torch.randn(trajectory.final.shape)
        if self.mistake == "groups of the CPU":
            scores.new_zeros(9).index_add(0, torch.tensor(trajectory.group.tolist()), scores)
        if self.mistake == "a curve for numpy":
            scores.detach().numpy().mean()
        for minibatch in ctx.minibatches(trajectory):
            for m in minibatch:
                step = ctx.policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                advantage = scores[m.row] - self.baseline
                minibatch.mean(-step.log_prob(m.after) * advantage).backward()
            ctx.apply_gradients()
        return {}


@pytest.mark.parametrize(
    "mistake",
    [
        "a value network that does not move",
        "scores of the CPU",
        "noise of the CPU",
        "groups of the CPU",
        "a curve for numpy",
    ],
)
def test_planted_bugs_of_algorithms_are_caught(
    mistake: str, toy: Callable[..., ResolvedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(device: str, mistake: str) -> None:
        run = toy("toy-gradient", device)
        fabric = make_fabric(device, "fp32")
        live = build(run, start(run, tmp_path / f"{device}-{len(mistake)}"), fabric, lambda event: None)
        algorithm = Planted(live.algorithm.options)
        monkeypatch.setattr(algorithm, "mistake", mistake)
        algorithm.setup(live.ctx)
        algorithm.step(live.ctx)

    work("cpu", mistake)
    with FakeCuda():
        work("cuda", "")
        with pytest.raises((RuntimeError, TypeError), match=r"device|numpy"):
            work("cuda", mistake)
