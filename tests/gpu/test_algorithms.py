"""Every algorithm on the device: it trains, stops, and goes on from a checkpoint that the other device wrote."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rlzoo.api import TrainContext
from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine.loop import train
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import build
from rlzoo.files.rundir import RunDirectory
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.ranks import Exchange
from rlzoo.testing.toy_runs import PolicyGradient, start

ALGORITHMS = sorted(discover().names("algorithm"))
SUMS = {"logprob_reduction": "sum"}


def same(ours: RunDirectory, theirs: RunDirectory) -> None:
    """Both devices compute alike here, so that whatever differs is a branch for one of them."""
    assert len(ours.metrics()) == len(theirs.metrics())
    for one, other in zip(ours.metrics(), theirs.metrics(), strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "budget/seconds"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5) or math.isnan(one[name]), name


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


@pytest.mark.slow
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


class Rank(Fabric):
    """One of two processes that are threads: it exchanges through memory what NCCL would send."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        super().__init__(accelerator="cuda", devices=1)
        self.rank, self.exchange = rank, exchange

    world_size = property(lambda self: self.exchange.ranks)
    global_rank = property(lambda self: self.rank)

    def all_gather(self, data: Tensor, group: object = None, sync_grads: bool = False) -> Tensor:
        return torch.stack(self.exchange.swap(self.rank, data))

    def all_reduce(self, data: Tensor, group: object = None, reduce_op: object = "sum") -> Tensor:
        return torch.stack(self.exchange.swap(self.rank, data)).sum(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpo", "nft"])
def test_two_ranks_equal_one(name: str, gpu: FakeCuda, toy: Callable[..., ResolvedRun], tmp_path: Path) -> None:
    run = toy(name, rollout={"prompts_per_step": 4})

    def weights(ranks: int) -> list[Tensor]:
        exchange = Exchange(ranks)
        lives = [
            build(run, start(run, tmp_path / f"{ranks}-{rank}"), Rank(rank, exchange), lambda event: None)
            for rank in range(ranks)
        ]
        with ThreadPoolExecutor(ranks) as pool:
            list(pool.map(lambda live: live.algorithm.step(live.ctx), lives))
        return [torch.cat([p.detach().flatten() for p in live.ctx.policy.parameters()]) for live in lives]

    (one,), two = weights(1), weights(2)
    assert one.is_cuda
    assert torch.equal(*two)
    torch.testing.assert_close(two[0], one, rtol=0, atol=1e-5)


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


@pytest.mark.slow
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
