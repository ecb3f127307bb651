"""What a step will take: measured on one row, and how many rows are put through the network at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.engine import estimate
from rlzoo.engine.events import Event, Note
from rlzoo.engine.loop import train
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions
from rlzoo.testing.toy_runs import start, toy_run
from rlzoo.testing.toys import GaussianToy, ToyPrompts


def toy() -> GaussianToy:
    return GaussianToy(ToyPolicyOptions(pretrain_steps=0))


def test_what_a_row_takes_is_counted_and_nothing_is_left_behind() -> None:
    policy, prompts = toy(), ToyPrompts(ToyPromptOptions()).train()[:3]
    state = torch.get_rng_state()
    row = estimate.measure(policy, prompts, RolloutTable(), TrainTable())
    assert row.elements == 4, "the longest prompt's"
    assert 100 < row.graph_bytes < 20_000
    assert row.forward_seconds > 0
    assert row.train_seconds > 0
    assert all(p.grad is None for p in policy.parameters())
    assert torch.equal(state, torch.get_rng_state())


class Wide(GaussianToy):
    """Has three tensors of a million floats at once, and keeps two of them for its backward pass."""

    def forward(self, x_t: Any, t: Any, cond: Any) -> Any:
        extra = (self.gain[0] * torch.ones(1_000_000)).square()
        return super().forward(x_t, t, cond) + 0 * extra.mean()


def test_some_megabytes_more_are_seen() -> None:
    prompts = ToyPrompts(ToyPromptOptions()).train()[:3]
    policy = Wide(ToyPolicyOptions(pretrain_steps=0))
    rows = [estimate.measure(p, prompts, RolloutTable(), TrainTable()).graph_bytes for p in (toy(), policy)]
    assert 12e6 <= rows[1] - rows[0] <= 24.1e6, "gradients of them come on top"


class Compiled(Wide):
    """Its network goes through a compiler that must see all of it."""

    def __init__(self) -> None:
        super().__init__(ToyPolicyOptions(pretrain_steps=0))
        self.compiled = torch.compile(super().forward, backend="eager", fullgraph=True)

    def forward(self, x_t: Any, t: Any, cond: Any) -> Any:
        return self.compiled(x_t, t, cond)


def test_a_policy_that_compiles_is_counted_alike() -> None:
    prompts = ToyPrompts(ToyPromptOptions()).train()[:3]
    policies = Wide(ToyPolicyOptions(pretrain_steps=0)), Compiled()
    one, other = (estimate.measure(p, prompts, RolloutTable(), TrainTable()).graph_bytes for p in policies)
    assert one == other


@pytest.mark.parametrize(("graph", "rows"), [(1, 256), (100, 128), (1000, 16), (6000, 4), (10**9, 1)])
def test_as_many_rows_as_fit_the_free_memory_of_a_gpu(graph: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40_000, 50_000))
    measured = estimate.Row(1, 1, 1.0, 1.0, graph)
    assert estimate.automatic(measured, torch.device("cuda")) == rows
    assert estimate.automatic(measured, torch.device("cpu")) == 1


def test_the_arithmetic_of_the_estimate() -> None:
    policy, tables = toy(), (RolloutTable(prompts_per_step=3, samples_per_prompt=4), TrainTable(steps=10))
    row = estimate.Row(1000, 10, 0.5, 2.0, 10**7)
    line = estimate.text(row, policy, *tables, 1, None, 0)
    # 12 rows, 5 denoising steps, 4 of them with noise: 30 s and 96 s.
    assert "2 min a step (sampling 30 s, training 2 min), 21 min in all" in line
    assert "160 MB are for 16 rows at once" in line
    assert "training 24 s" in estimate.text(row, policy, *tables, 1, 1, 0)
    bounded = TrainTable(steps=10, micro_batch_frames=35)
    assert "30 MB are for 3 rows at once" in estimate.text(row, policy, tables[0], bounded, 1, None, 0)


def test_a_peak_has_the_reference_the_optimiser_and_the_larger_of_training_and_saving() -> None:
    policy = toy()
    numbers = sum(p.numel() for p in policy.parameters())
    weights = sum(v.numel() * v.element_size() for v in policy.state_dict().values())
    small = estimate.needed(policy, TrainTable(), 10**6, 0, 0)
    assert small == 10**6 + weights + 8 * numbers + 2 * weights + max(weights, 16 * numbers), "saving"
    large = estimate.needed(policy, TrainTable(), 10**6, 2 * 10**8, 10**9)
    assert large == 10**6 + weights + 8 * numbers + 8 * numbers + 2 * 10**8 + 10**9, "training"
    averaged = estimate.needed(policy, TrainTable(ema_decay=0.9), 10**6, 2 * 10**8, 10**9)
    assert averaged - large == 4 * numbers
    assert 10**7 < estimate.in_use(torch.device("cpu")) < 10**11


def test_a_run_says_its_estimate_and_settles_an_automatic_micro_batch(tmp_path: Path) -> None:
    rows, notes = [], []
    for size in (0, 16):
        events: list[Event] = []
        run = toy_run(rollout={"micro_batch": size}, train={"micro_batch": size, "steps": 2})
        rundir = start(run, tmp_path / str(size))
        train(run, rundir, observer=events.append)
        rows.append({k: v for k, v in rundir.metrics()[-1].items() if not k.endswith("seconds")})
        notes.append([e.message for e in events if isinstance(e, Note) and e.message.startswith("estimate")])
    assert rows[0] == pytest.approx(rows[1], rel=1e-5), "measuring and cutting rows apart change sums by rounding alone"
    assert len(notes[0]) == 1
    assert re.search(r"measured now: .* a step .* in use already and .* are for one row at once$", notes[0][0])
