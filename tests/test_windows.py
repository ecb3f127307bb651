"""Random windows: drawn without bias, refused where they make no sense, and the whole's gradient on average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rlzoo.config.registry import discover, import_target
from rlzoo.config.resolve import check_capabilities
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.engine.loop import train
from rlzoo.engine.windows import draw_windows
from rlzoo.errors import ConfigError
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toy_runs import start, toy_run
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward

WINDOWED = ("awm", "bon", "ddpo", "dlpo", "dpo", "dpok", "grpo", "klinr", "nft", "onlydl", "rwr", "sft")


def test_each_frame_lies_in_the_window_as_often_as_any_other_in_proportion_to_what_the_window_weighs() -> None:
    rows, frames = 20_000, 11
    first, count = draw_windows(range(rows), "w", torch.full((rows,), frames), 4)
    assert {(int(a), int(b)) for a, b in zip(first, count, strict=True)} == {(0, 3), (3, 4), (7, 4)}
    places = torch.arange(frames)
    inside = (places >= first[:, None]) & (places < (first + count)[:, None])
    weight = (inside / count[:, None]).mean(0)  # the share of a mean over the window that a frame has
    assert (weight - 1 / frames).abs().max() < 4 * (weight.mean() / 4 / rows) ** 0.5 + 1e-3


@pytest.mark.parametrize("size", [1, 3, 10, 50])
def test_windows_stay_inside_and_are_no_longer_than_asked_for(size: int) -> None:
    frames = torch.arange(1, 60)
    first, count = draw_windows([f"row {n}" for n in frames], "w", frames, size)
    assert bool((first >= 0).all() and (count >= 1).all() and (count <= size).all())
    assert bool((first + count <= frames).all())
    again = draw_windows(["row 7"], "w", torch.tensor([7]), size)
    assert (int(again[0]), int(again[1])) == (int(first[6]), int(count[6]))  # blind to batch mates


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"algorithm": {"name": "draft"}, "train": {"window_frames": 2}}, "differentiates through sampling"),
        ({"train": {"window_frames": 2, "logprob_reduction": "sum"}}, "density of a whole state"),
    ],
)
def test_windows_are_refused_where_they_make_no_sense(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_run(**tables)


def test_a_policy_without_windows_is_named() -> None:
    run = toy_run(train={"window_frames": 2})
    whole = replace(run.policy, spec=replace(run.policy.spec, offers=frozenset({"log-prob"})))
    with pytest.raises(ConfigError, match="window_frames = 2, but policy 'toy-gaussian' offers no windows"):
        check_capabilities(replace(run, policy=whole))


def test_a_run_with_windows_is_the_same_in_small_pieces_and_starts_with_a_ratio_of_one(tmp_path: Path) -> None:
    rows = []
    for size in (2, 64):
        table = {"micro_batch": size, "minibatch": 20, "inner_epochs": 2, "window_frames": 2}
        rundir = start(toy_run(rollout={"micro_batch": size}, train=table), tmp_path / str(size))
        train(toy_run(rollout={"micro_batch": size}, train=table), rundir)  # the engine checks the ratio
        rows.append(rundir.metrics()[-1])
    small, large = rows
    for name in ("reward/total", "policy/kl", "optim/grad_norm", "budget/network_evaluations"):
        assert small[name] == pytest.approx(large[name], rel=1e-4), name


def context(kind: Any, frames: int, **train: Any) -> LocalContext:
    policy = kind(ToyPolicyOptions(pretrain_steps=0)).double()
    with torch.no_grad():
        policy.gain.copy_(torch.linspace(0.5, 0.9, len(policy.gain)))
        policy.bias.copy_(torch.linspace(-1, 1, policy.bias.numel()).view_as(policy.bias))
    return LocalContext(
        policy,
        ToyReward(ToyRewardOptions()),
        ToyPrompts(ToyPromptOptions()).train(),
        rollout=RolloutTable(prompts_per_step=4, samples_per_prompt=3),
        train=TrainTable(window_frames=frames, **train),
        update=False,
    )


@pytest.mark.parametrize("kind", [GaussianToy, FlowToy])
def test_transitions_come_cropped_with_the_log_probability_of_their_window(kind: Any) -> None:
    ctx = context(kind, 2)
    trajectory = ctx.rollout()
    assert trajectory.window_log_probs is not None
    seen = 0
    for batch in ctx.minibatches(trajectory):
        for m in batch:
            mask = ctx.policy.mask(m.cond)
            assert m.crop is not None
            assert mask is not None
            assert int(mask.sum(1).max()) <= 2
            step = ctx.policy.transition(m.before, m.k, m.cond, trajectory.schedule)
            torch.testing.assert_close(step.log_prob(m.after), m.log_prob, atol=1e-12, rtol=0)
            whole = ctx.policy.transition(
                trajectory.states[m.k, m.row], m.k, trajectory.cond[m.row], trajectory.schedule
            )
            torch.testing.assert_close(step.mode[mask], m.crop.cut(whole.mode)[mask], atol=1e-12, rtol=0)
            assert torch.equal(m.cut(trajectory.final), m.crop.cut(trajectory.final[m.row]))
            seen += len(m.row)
    assert seen == int(trajectory.schedule.stochastic.sum()) * len(trajectory)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_as_wide_as_the_row_changes_nothing_and_a_narrow_one_the_gradient(name: str) -> None:
    spec = discover().algorithm(name)
    gradients = []
    for frames in (0, 4, 1):
        ctx = context(GaussianToy, frames)
        algorithm = make(spec)
        algorithm.setup(ctx)
        algorithm.step(ctx)
        gradients.append(torch.cat([g.flatten() for g in ctx.gradients.values()]))
    whole, wide, narrow = gradients
    torch.testing.assert_close(wide, whole, atol=1e-10, rtol=1e-6)
    assert not torch.allclose(narrow, whole, atol=1e-6)


def test_the_gradient_of_windows_is_that_of_the_whole_on_average() -> None:
    def gradient(frames: int) -> torch.Tensor:
        ctx = context(GaussianToy, frames)
        ctx.policy.requires_grad_(True)
        trajectory, total = ctx.rollout(keep="final"), []
        t, noise = ctx.draw(trajectory, "x")
        rows = torch.arange(len(trajectory))
        for repeat in range(300 if frames else 1):
            seeds = trajectory.seeds_of(rows)
            cond, (x, drawn) = ctx.crop(f"{repeat}", seeds, trajectory.cond, trajectory.final, noise)
            loss = ctx.policy.denoising_loss(x, cond, t, drawn).mean()
            total.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(ctx.policy.parameters()))]))
        return torch.stack(total)

    whole, windows = gradient(0)[0], gradient(1)
    error = windows.std(0) / len(windows) ** 0.5
    assert bool(((windows.mean(0) - whole).abs() <= 5 * error + 1e-9).all())


def make(spec: Any) -> Any:
    return import_target(spec.target, spec.name, spec.extra)(spec.options())
