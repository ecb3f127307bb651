"""The training loop on toys: budgets, self-checks, failures, signals, and what the context promises to algorithms."""

import dataclasses
import inspect
import itertools
import json
import math
import os
import signal
import sys
import time
from itertools import chain

import pytest
import torch
from safetensors.torch import load_file
from toy_contexts import local

from rlzoo.api import Algorithm, Gaussian, Reward, Scores
from rlzoo.config.resolve import Choice, RewardChoice
from rlzoo.engine import checkpoint, divergence, scoring
from rlzoo.engine.budget import Counters
from rlzoo.engine.context import Context
from rlzoo.engine.evaluate import evaluate
from rlzoo.engine.events import Finished, Note, Saved, Started, StepDone
from rlzoo.engine.loop import train
from rlzoo.engine.minibatches import select_steps
from rlzoo.engine.prefetch import ScorePrefetcher
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import build
from rlzoo.errors import ConfigError, ContractError, DataError, Diverged, Interrupted, PluginError
from rlzoo.files.rundir import RunDirectory
from rlzoo.plugin import AlgorithmSpec, Options, RewardSpec
from rlzoo.signals import stop_requests
from rlzoo.testing.toy_runs import PolicyGradient, start, toy_run
from rlzoo.testing.toys import FlowToy


def with_algorithm(run, kind):
    target = f"{__name__}:{kind.__name__}"
    spec = AlgorithmSpec(name="broken", summary="for a test", target=target, options=run.algorithm.spec.options)
    return dataclasses.replace(run, algorithm=Choice(spec, run.algorithm.options))


def with_reward(run, kind):
    target = f"{__name__}:{kind.__name__}"
    spec = RewardSpec(
        name="planted", summary="for a test", target=target, options=Options, accepts=frozenset({"vector"})
    )
    return dataclasses.replace(run, rewards=(RewardChoice(spec, Options(), "planted"),))


def context(tmp_path, **tables) -> Context:
    run = toy_run(**tables)
    fabric = make_fabric("cpu", run.train.precision)
    return build(run, start(run, tmp_path / "run"), fabric, lambda event: None).ctx


# --- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_improves_the_held_out_reward_and_leaves_what_it_promises(tmp_path):
    run, events = toy_run(train={"steps": 12, "eval_every": 6, "save_every": 6}), []
    rundir = start(run, tmp_path / "run")
    result = train(run, rundir, observer=events.append)
    assert result.scores["total"]["gain"] > 0.1
    assert result.base["total"]["mean"] + result.scores["total"]["gain"] == pytest.approx(
        result.scores["total"]["mean"]
    )
    assert [row["step"] for row in rundir.metrics()] == list(range(1, 13))
    assert sorted(path.name for path in (rundir / "eval").iterdir()) == ["000000.json", "000006.json", "000012.json"]
    assert sorted(path.name for path in (rundir / "checkpoints").iterdir()) == ["000006", "000012", "LATEST"]
    assert rundir.status()["state"] == "done"
    tight = toy_run(train={"steps": 2, "eval_every": 0, "grad_clip": 1e-12, "adam_eps": 1.0, "weight_decay": 0.5})
    tight = dataclasses.replace(tight, train=tight.train.model_copy(update={"learning_rate": 0.1}))
    bare = start(tight, tmp_path / "tight")
    train(tight, bare)
    was, became = (checkpoint.load_policy(bare.path, start=first).bias for first in (True, False))
    # A gradient of norm 1e-12 beside an epsilon of 1 moves nothing; what is left is decay, (1 - 0.1 * 0.5) each step.
    torch.testing.assert_close(became, was * 0.95**2, rtol=1e-5, atol=1e-9)
    kinds = [type(event) for event in events]
    assert kinds[0] is Started
    assert kinds[-1] is Finished
    assert kinds.count(StepDone) == 12
    assert kinds.count(Saved) == 2


def test_the_negative_reward_goes_the_other_way(tmp_path):
    run = toy_run(rewards=[{"name": "toy", "weight": -1.0}], train={"steps": 12})
    result = train(run, start(run, tmp_path / "run"))
    assert result.scores["toy"]["gain"] < -0.1
    assert result.scores["total"]["gain"] > 0.1


def test_metrics_are_named_after_what_was_used_and_start_with_no_divergence(tmp_path):
    run = toy_run()
    run = dataclasses.replace(run, rewards=(dataclasses.replace(run.rewards[0], requested="utmos"),))
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    first, *_, last = rundir.metrics()
    assert "reward/toy" in first
    assert "reward/utmos" not in first
    assert first["policy/kl"] == 0.0
    assert 0.0 < last["policy/kl"] < last["policy/kl_nats"]


def test_micro_batches_change_no_result(tmp_path):
    rows = []
    for size, frames in ((2, 0), (64, 0), (64, 9)):
        pieces = {"micro_batch": size, "micro_batch_frames": frames}
        run = toy_run(rollout=pieces, train={**pieces, "minibatch": 20, "inner_epochs": 2})
        rundir = start(run, tmp_path / f"{size}-{frames}")
        train(run, rundir)
        rows.append(rundir.metrics()[-1])
    small, large, bounded = rows
    for name in ("reward/total", "policy/kl", "optim/grad_norm", "budget/network_evaluations", "budget/updates"):
        assert small[name] == pytest.approx(large[name], rel=1e-4), name
        assert bounded[name] == pytest.approx(large[name], rel=1e-4), name


@pytest.mark.parametrize("name", ["ddpo", "dpo", "bon", "draft", "sft"])
def test_scoring_ahead_changes_no_bit(name, tmp_path, monkeypatch):
    """The same calls, begun earlier; algorithms that want a gradient, or no score, are left alone."""
    taken, kept = [], []
    result = ScorePrefetcher.result
    monkeypatch.setattr(ScorePrefetcher, "result", lambda self: taken.append(True) or result(self))
    for ahead in (False, True):
        run = toy_run(algorithm={"name": name}, rollout={"micro_batch": 4, "score_ahead": ahead})
        rundir = start(run, tmp_path / str(ahead))
        train(run, rundir)
        rows = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rundir.metrics()]
        kept.append((rows, (rundir / "checkpoints/000004/policy.safetensors").read_bytes()))
        assert bool(taken) == (ahead and name not in ("draft", "sft"))
    assert kept[0] == kept[1]


@pytest.mark.parametrize("ahead", [False, True])
def test_scoring_starts_while_the_rest_is_sampled(ahead, tmp_path, monkeypatch):
    order, score_call = [], scoring.score_call
    ctx = context(tmp_path, rollout={"micro_batch": 2, "score_ahead": ahead})
    monkeypatch.setattr(scoring, "score_call", lambda *given: order.append("score") or score_call(*given))
    sampled = ctx.policy.decode

    def decode(x, cond):
        if ahead and order.count("sample") == 2:
            deadline = time.monotonic() + 60
            while "score" not in order and time.monotonic() < deadline:
                time.sleep(0.01)
        order.append("sample")
        return sampled(x, cond)

    monkeypatch.setattr(ctx.policy, "decode", decode)
    trajectory = ctx.rollout()
    assert ("score" in order) == ahead
    values = ctx.score(trajectory).values
    assert torch.equal(values, ctx.score(trajectory).values), "the second time nothing is ahead any more"
    ctx.rollout()
    ctx.rollout()  # the one before was never scored


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "value", "steps"), [("samples", 25, 3), ("reward_calls", 24, 2), ("updates", 1, 1), ("seconds", 1e-9, 1)]
)
def test_a_budget_ends_the_run_cleanly(tmp_path, limit, value, steps):
    run = toy_run(train={"steps": 50, "budget": {limit: value}})
    rundir, events = start(run, tmp_path / "run"), []
    result = train(run, rundir, observer=events.append)
    assert (result.stopped_by, result.steps) == (limit, steps)
    assert (rundir / f"eval/{steps:06d}.json").is_file()
    assert rundir.status()["state"] == "done"
    assert any(isinstance(event, Note) and limit in event.message for event in events)


def test_every_network_evaluation_is_counted_and_evaluation_is_not(tmp_path):
    run = toy_run(train={"steps": 2, "self_checks": False})
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    N, K = 12, 5
    sampling, training, kl = N * K, N * (K - 1), 2 * N
    assert [row["budget/network_evaluations"] for row in rundir.metrics()] == [
        sampling + training + kl,
        2 * (sampling + training + kl),
    ]


# --- self-checks -----------------------------------------------------------------------------------------------------


class IgnoresReward(PolicyGradient):
    """The reward is read and left out of the loss."""

    def step(self, ctx):
        trajectory = ctx.rollout()
        ctx.score(trajectory)
        for minibatch in ctx.minibatches(trajectory):
            for m in minibatch:
                step = ctx.policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                minibatch.mean(step.log_prob(m.after)).backward()
            ctx.apply_gradients()
        return {}


class ClampsADifference(PolicyGradient):
    """The published code's ratio: a difference of log-probabilities, clamped around 1, where it never is."""

    def step(self, ctx):
        trajectory = ctx.rollout()
        values = ctx.score(trajectory).values
        for minibatch in ctx.minibatches(trajectory):
            for m in minibatch:
                step = ctx.policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                ratio = (step.log_prob(m.after) - m.log_prob).clamp(1 - 1e-4, 1 + 1e-4)
                minibatch.mean(-ratio * values[m.row]).backward()
            ctx.apply_gradients()
        return {}


class NeedsNoReward(IgnoresReward):
    uses_reward = False


@pytest.mark.parametrize(
    ("kind", "message"), [(IgnoresReward, "does not reach the policy"), (ClampsADifference, "gradient of .* is zero")]
)
def test_an_algorithm_whose_reward_does_not_reach_the_policy_is_stopped_before_the_first_update(
    tmp_path, kind, message
):
    run = with_algorithm(toy_run(), kind)
    rundir = start(run, tmp_path / "run")
    with pytest.raises(ContractError, match=message) as caught:
        train(run, rundir)
    assert "clamp" in caught.value.hint
    assert rundir.metrics() == []
    assert rundir.status()["state"] == "failed"


def test_an_algorithm_that_uses_no_reward_says_so_and_runs(tmp_path):
    run, events = with_algorithm(toy_run(), NeedsNoReward), []
    train(run, start(run, tmp_path / "run"), observer=events.append)
    assert any(isinstance(event, Note) and "not checked" in event.message for event in events)


def test_a_policy_that_trains_as_another_than_it_samples_is_stopped(tmp_path, monkeypatch):
    from rlzoo.testing.toys import GaussianToy

    forward = GaussianToy.forward

    def with_dropout(self, x_t, t, cond):
        return torch.nn.functional.dropout(forward(self, x_t, t, cond), 0.5, training=True)

    monkeypatch.setattr(GaussianToy, "forward", with_dropout)
    run = toy_run()
    with pytest.raises(ContractError, match="ratio is not 1"):
        train(run, start(run, tmp_path / "run"))


@pytest.mark.parametrize("wrong", [math.nan, -0.5, 0.5], ids=["not-a-number", "below", "above"])
def test_any_ratio_but_one_is_stopped(tmp_path, monkeypatch, wrong):
    """Log-probabilities that training makes smaller, larger or undefined; sampling's own are finite."""
    log_prob = Gaussian.log_prob

    def in_training(self, x, reduction="mean"):
        found = log_prob(self, x, reduction)
        checking = any(frame.function == "_check_ratio" for frame in inspect.stack(0))
        return found + wrong if checking else found

    monkeypatch.setattr(Gaussian, "log_prob", in_training)
    run = toy_run()
    with pytest.raises(ContractError, match="ratio is not 1"):
        train(run, start(run, tmp_path / "run"))


def test_a_step_without_noise_that_claims_a_density_is_stopped(tmp_path, monkeypatch):
    from rlzoo.testing.toys import GaussianToy

    schedule = GaussianToy.schedule

    def all_stochastic(self, num_steps=None):
        found = schedule(self, num_steps)
        return dataclasses.replace(found, stochastic=torch.ones_like(found.stochastic))

    run = toy_run(train={"kl_every": 0})
    live = start(run, tmp_path / "run")
    monkeypatch.setattr(GaussianToy, "schedule", all_stochastic)
    with pytest.raises(ContractError, match=r"k = 4 is not finite"):
        train(run, live)


def test_the_checks_change_no_bit_of_the_run(tmp_path):
    lines = []
    for checks in (True, False):
        run = toy_run(
            train={"self_checks": checks, "advantage": "prompt", "minibatch": 16, "step_selection": "fraction"}
        )
        rundir = start(run, tmp_path / str(checks))
        train(run, rundir)
        lines.append([{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rundir.metrics()])
        lines.append((rundir / "checkpoints/000004/policy.safetensors").read_bytes())
    assert lines[:2] == lines[2:]


class AlikeWithinAPrompt(Reward[Options]):
    def score(self, samples, prompts):
        return Scores(torch.tensor([float(len(prompt.id) + ord(prompt.id[-1])) for prompt in prompts]))


def test_scores_that_differ_between_prompts_only_are_no_error(tmp_path):
    run, events = with_reward(toy_run(), AlikeWithinAPrompt), []
    train(run, start(run, tmp_path / "run"), observer=events.append)
    assert any(isinstance(event, Note) and "score alike" in event.message for event in events)


def test_equal_scores_are_no_error_and_are_said(tmp_path):
    run, events = with_reward(toy_run(), ConstantReward), []
    train(run, start(run, tmp_path / "run"), observer=events.append)
    assert any(isinstance(event, Note) and "score alike" in event.message for event in events)


# --- rewards that break their contract -------------------------------------------------------------------------------


class PlantedReward(Reward[Options]):
    def values(self, samples):
        return torch.zeros(len(samples))

    def score(self, samples, prompts):
        return Scores(self.values(samples))


class ConstantReward(PlantedReward):
    pass


class NaNReward(PlantedReward):
    def values(self, samples):
        return torch.full((len(samples),), float("nan"))


class WrongShape(PlantedReward):
    def values(self, samples):
        return torch.zeros(len(samples), 1)


class Raises(PlantedReward):
    def values(self, samples):
        raise ZeroDivisionError("inside the reward")


@pytest.mark.parametrize("ahead", [False, True])
def test_a_reward_of_nan_is_named_and_the_sample_is_kept(ahead, tmp_path):
    run = with_reward(toy_run(rollout={"micro_batch": 2, "score_ahead": ahead}), NaNReward)
    rundir = start(run, tmp_path / "run")
    with pytest.raises(Diverged, match=r"'planted'.*nan"):
        train(run, rundir)
    (kept,) = (rundir / "failures").iterdir()
    assert torch.load(kept, weights_only=True)["data"].ndim == 1
    assert rundir.status()["error"].startswith("reward 'planted'")


class Infinite(Reward[Options]):
    def score(self, samples, prompts):
        return Scores(torch.full((len(samples),), math.inf))


def test_a_reward_that_is_infinite_is_named_as_one_of_nan_is(tmp_path):
    run = with_reward(toy_run(), Infinite)
    with pytest.raises(Diverged, match=r"'planted'.*inf"):
        train(run, start(run, tmp_path / "run"))


def test_a_reward_of_a_wrong_shape_is_named(tmp_path):
    run = with_reward(toy_run(), WrongShape)
    with pytest.raises(ContractError, match=r"'planted'.*shape \(6, 1\)"):
        train(run, start(run, tmp_path / "run"))


def test_what_a_reward_raises_keeps_its_type_and_names_the_reward(tmp_path):
    run = with_reward(toy_run(), Raises)
    with pytest.raises(ZeroDivisionError) as caught:
        train(run, start(run, tmp_path / "run"))
    assert any("planted" in note for note in caught.value.__notes__)


# --- what the context promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_ratio_is_one_through_the_minibatch_path(tmp_path, reduction):
    ctx = context(tmp_path, train={"logprob_reduction": reduction, "minibatch": 7, "micro_batch": 3})
    trajectory = ctx.rollout()
    pairs = []
    for minibatch in ctx.minibatches(trajectory):
        assert sum(len(piece.k) for piece in minibatch) == minibatch.size <= 7
        for m in minibatch:
            logp = ctx.policy.transition(m.before, m.k, m.cond, trajectory.schedule).log_prob(m.after, reduction)
            torch.testing.assert_close(logp, m.log_prob, rtol=0, atol=1e-5)
            pairs += list(zip(m.row.tolist(), m.k.tolist(), strict=True))
    assert sorted(pairs) == [(row, k) for row in range(12) for k in range(4)], "each stochastic transition once"


def test_a_share_of_the_steps_is_drawn_for_each_row_and_a_window_for_all(tmp_path):
    chosen = {}
    for selection in ("fraction", "window"):
        ctx = context(tmp_path / selection, train={"step_selection": selection, "step_fraction": 0.5})
        (minibatch,) = ctx.minibatches(ctx.rollout())
        steps = {row: set() for row in range(12)}
        for m in minibatch:
            for row, k in zip(m.row.tolist(), m.k.tolist(), strict=True):
                steps[row].add(k)
        assert all(len(own) == 2 for own in steps.values())
        chosen[selection] = {tuple(sorted(own)) for own in steps.values()}
    assert len(chosen["fraction"]) > 1
    assert len(chosen["window"]) == 1
    first, second = next(iter(chosen["window"]))
    assert second == first + 1


def test_every_epoch_has_an_order_of_its_own_and_every_place_of_a_window_comes_up(tmp_path):
    ctx = context(tmp_path, train={"minibatch": 6, "inner_epochs": 2})
    batches = [[(r, k) for m in batch for r, k in zip(m.row.tolist(), m.k.tolist(), strict=True)]
               for batch in ctx.minibatches(ctx.rollout())]  # fmt: skip
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    assert sorted(chain.from_iterable(first)) == sorted(chain.from_iterable(second))
    assert [set(batch) for batch in first] != [set(batch) for batch in second]
    in_order = [(row, k) for row in range(12) for k in range(4)]
    assert [set(batch) for batch in first] != [set(in_order[i : i + 6]) for i in range(0, 48, 6)]
    table = ctx.train.model_copy(update={"step_selection": "window", "step_fraction": 0.5})
    stochastic, starts = torch.tensor([True] * 4 + [False]), set()
    for _ in range(60):
        starts.add(int(select_steps(stochastic, 2, table, ctx.generator)[1][0]))
    assert starts == {0, 1, 2}, "the last place counts, too"


def test_the_number_of_updates_in_a_pass_may_be_given_instead_of_their_size(tmp_path):
    ctx = context(tmp_path, train={"num_minibatches": 3, "inner_epochs": 2})
    assert [batch.size for batch in ctx.minibatches(ctx.rollout())] == [16] * 6
    with pytest.raises(ConfigError, match="set one of them"):
        context(tmp_path / "both", train={"num_minibatches": 3, "minibatch": 5})


def test_a_deterministic_rollout_follows_the_mode_and_has_nothing_to_train(tmp_path):
    ctx = context(tmp_path, rollout={"deterministic": True})
    trajectory = ctx.rollout(keep="all")
    assert not trajectory.schedule.stochastic.any()
    assert not trajectory.log_probs.any()
    with pytest.raises(ConfigError, match="no denoising step"):
        list(ctx.minibatches(trajectory))
    run = toy_run(rollout={"deterministic": True})
    with pytest.raises(ConfigError, match="no denoising step"):
        train(run, start(run, tmp_path / "policy-gradient"))


@pytest.mark.parametrize(
    ("table", "factors"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"learning_rate_schedule": "linear", "warmup_steps": 2}, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ({"learning_rate_schedule": "cosine"}, [0.5 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]),
    ],
)
def test_the_learning_rate_rises_and_falls_as_it_says(tmp_path, table, factors):
    ctx = context(tmp_path, train={"steps": 6, "learning_rate": 0.5, **table})
    rates = []
    for step in range(6):
        ctx.step = step
        ctx.policy.bias.sum().backward()
        ctx.apply_gradients()
        rates.append(ctx.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5 * factor for factor in factors])


def test_a_young_average_is_short(tmp_path):
    """The authors' warm-up: update u decays by (1 + u) / (10 + u), the set decay at most."""
    ctx = context(tmp_path, train={"ema_decay": 0.25, "ema_warmup": True})
    expected = ctx.policy.bias.detach().clone()
    for update in range(1, 5):
        ctx.policy.bias.sum().backward()
        ctx.apply_gradients()
        decay = min((1 + update) / (10 + update), 0.25)
        expected = decay * expected + (1 - decay) * ctx.policy.bias.detach()
        with ctx.optimisation.averaged():
            torch.testing.assert_close(ctx.policy.bias.detach(), expected)
    again = context(tmp_path / "again", train={"ema_decay": 0.25, "ema_warmup": True})
    again.optimisation.load_state_dict(ctx.optimisation.state_dict())
    assert again.optimisation.state_dict()["updates"] == 4


def test_advantages_of_each_kind(tmp_path):
    ctx = context(tmp_path)
    trajectory = ctx.rollout()
    values = torch.arange(12.0) ** 2
    group = ctx.advantages(values, trajectory, "group").view(3, 4)
    torch.testing.assert_close(group.mean(1), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(group.std(1, correction=0), torch.ones(3), rtol=0, atol=1e-3)
    batch = ctx.advantages(values, trajectory, "batch")
    torch.testing.assert_close(batch, (values - values.mean()) / values.std(correction=0), rtol=1e-4, atol=1e-5)
    assert torch.equal(ctx.advantages(values, trajectory, "none"), values), "raw scores have no default bound"
    ctx.train = ctx.train.model_copy(update={"advantage_clip": 7.0})
    assert torch.equal(ctx.advantages(values, trajectory, "none"), values.clamp(max=7.0))
    ctx.train = ctx.train.model_copy(update={"advantage_clip": None})
    assert float(ctx.advantages(torch.tensor([1e6] + 11 * [0.0]), trajectory, "batch").max()) <= 5
    assert not ctx.advantages(torch.ones(12), trajectory, "group").any(), "equal scores carry no preference"


def test_the_group_s_mean_over_the_batch_s_deviation_is_that_of_flow_grpo(tmp_path):
    """The authors' `global_std`, restated: less the prompt's mean, over the deviation of all rewards + 1e-4."""
    ctx = context(tmp_path, train={"advantage_std": "batch"})
    trajectory, values = ctx.rollout(), torch.arange(12.0) ** 2
    deviation = (sum((float(v) - float(values.mean())) ** 2 for v in values) / 12) ** 0.5
    for group in range(3):
        rows = range(4 * group, 4 * group + 4)
        mean = sum(float(values[row]) for row in rows) / 4
        for row in rows:
            expected = (float(values[row]) - mean) / (deviation + 1e-4)
            assert float(ctx.advantages(values, trajectory)[row]) == pytest.approx(expected, abs=1e-6)
    ctx.train = ctx.train.model_copy(update={"advantage_std": "none", "advantage_clip": 1e9})
    centred = values - values.view(3, 4).mean(1).repeat_interleave(4)
    torch.testing.assert_close(ctx.advantages(values, trajectory), centred)


def test_rewards_may_be_standardised_one_by_one(tmp_path):
    """MixGRPO's `advantage_aggr`: a reward of large spread does not drown the other."""
    ctx = context(tmp_path, train={"advantage_per_reward": True})
    first = ctx.scorers[0]
    ctx.scorers = [dataclasses.replace(first, weight=2.0), dataclasses.replace(first, name="second", weight=-0.5)]
    trajectory = ctx.rollout()
    draw = torch.Generator().manual_seed(0)
    small, large = torch.randn(12, generator=draw), 1000 * torch.randn(12, generator=draw)
    scores = Scores(2 * small - 0.5 * large, {"toy": small, "second": large})

    def standard(values):
        groups = values.view(3, 4)
        return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True, correction=0) + 1e-4)).flatten()

    torch.testing.assert_close(ctx.advantages(scores, trajectory), 2 * standard(small) - 0.5 * standard(large))
    together = ctx.advantages(scores.values, trajectory)
    torch.testing.assert_close(together, standard(scores.values), rtol=1e-4, atol=1e-4)


def test_statistics_per_prompt_grow_over_steps(tmp_path):
    ctx = context(
        tmp_path, rollout={"prompts_per_step": 2, "samples_per_prompt": 8}, prompts={"name": "toy", "train": 2}
    )
    values = torch.cat([torch.arange(8.0), 100 + torch.arange(8.0)])
    first = ctx.rollout(ctx.prompts.train())
    # 8 scores of a prompt are too few: statistics of the batch tell the two prompts apart ...
    assert ctx.advantages(values, first, "prompt")[8:].min() > 0.5
    # ... with 16 each prompt is compared with its own.
    assert abs(float(ctx.advantages(values, first, "prompt")[8:].mean())) < 1e-3


def test_groups_of_one_are_refused(tmp_path):
    ctx = context(tmp_path, rollout={"samples_per_prompt": 1})
    with pytest.raises(ConfigError, match="one sample per prompt"):
        ctx.advantages(torch.zeros(3), ctx.rollout())


def test_draws_depend_on_the_row_and_the_purpose_only(tmp_path):
    ctx = context(tmp_path)
    prompts = ctx.next_prompts()
    whole, part = ctx.rollout(prompts), ctx.rollout(prompts[1:2])
    times, noise = ctx.draw(whole, "loss")
    own_times, own_noise = ctx.draw(part, "loss")
    assert torch.equal(own_times, times[4:8])
    assert torch.equal(own_noise, noise[4:8, : own_noise.shape[1]])
    assert not torch.equal(ctx.draw(whole, "other")[1], noise)
    mask = ctx.policy.mask(whole.cond)
    assert not noise[~mask].any()


def test_the_parts_of_a_draw_spread_a_rows_times_evenly(tmp_path):
    """Toy flow: times are the uniform draws themselves. One in each fifth, the noise another each time."""
    for ctx in (context(tmp_path, policy={"name": "toy-flow"}), local(FlowToy)):
        trajectory = ctx.rollout(keep="final")
        times, noises = zip(*(ctx.draw(trajectory, "x", part, 5) for part in range(5)), strict=True)
        apart = torch.stack(times).sort(0).values.diff(dim=0)
        torch.testing.assert_close(apart, torch.full_like(apart, 0.2))
        assert len(set(times[0].tolist())) == len(trajectory)
        for one, other in itertools.combinations(noises, 2):
            assert not torch.equal(one, other)
            assert abs(float((one * other).sum() / (one.norm() * other.norm()))) < 0.5


def test_times_of_the_schedule_come_equally_often(tmp_path):
    """K parts of a draw: every row sees each of its K levels once, the clean end never."""
    for ctx in (context(tmp_path, train={"times": "schedule"}), local(times="schedule")):
        K, levels = ctx.num_steps, ctx.policy.schedule().times.float()
        trajectory = ctx.rollout(keep="final")
        times = torch.stack([ctx.draw(trajectory, "x", part, K)[0] for part in range(K)])
        assert len(set(times[0].tolist())) > 1, "rows begin at different levels"
        expected = levels[:-1].flip(0)[:, None].expand(-1, len(trajectory))
        torch.testing.assert_close(times.sort(0).values.float(), expected)
        uniform = torch.tensor([0.0, 1 / K - 1e-4, 1 / K + 1e-4, 1 - 1e-4])
        assert ctx.times(uniform).tolist() == levels[[0, 0, 1, K - 1]].tolist()


def test_the_reference_stays_and_copies_are_counted(tmp_path):
    ctx = context(tmp_path)
    trajectory = ctx.rollout()
    ctx.policy.denoising_loss(trajectory.final, trajectory.cond, *ctx.draw(trajectory, "x")).mean().backward()
    ctx.apply_gradients()
    for name, value in ctx.reference.state_dict().items():
        assert torch.equal(value, ctx.starting[name])
    before = ctx.counters.local_evaluations
    ctx.reference.denoising_loss(trajectory.final, trajectory.cond, *ctx.draw(trajectory, "x"))
    assert ctx.counters.local_evaluations == before + 12
    assert not any(p.requires_grad for p in ctx.reference.parameters())


def test_divergence_is_measured_whoever_samples_and_once_a_step(tmp_path):
    ctx = context(tmp_path, train={"kl_every": 2})
    with torch.no_grad():
        ctx.policy.bias.add_(0.1)
    prompts = ctx.next_prompts()
    trajectory = ctx.rollout(prompts, policy=ctx.reference, keep="final")
    measured = ctx.metrics["policy/kl"]
    # Both are Gaussians of one std, so the KL is half the squared distance of their means in units of it.
    k = torch.tensor(divergence.probe(trajectory.schedule, trajectory.seeds))
    before = ctx.rollout(prompts, policy=ctx.reference).states[k, torch.arange(12)]
    with torch.no_grad():
        ours, theirs = (
            p.transition(before, k, trajectory.cond, trajectory.schedule) for p in (ctx.policy, ctx.reference)
        )
    distance = ((ours.mean - theirs.mean) / theirs.std[:, None]) ** 2 * ours.mask
    assert measured == pytest.approx(float((0.5 * distance.sum(1) / ours.mask.sum(1)).mean()), rel=1e-4)
    ctx.rollout()
    assert ctx.metrics["policy/kl"] == measured
    ctx.step, ctx.metrics = 1, {}
    ctx.rollout()
    assert "policy/kl" not in ctx.metrics


def test_divergence_takes_the_first_rows_of_every_prompt():
    assert divergence.rows(prompts=6, repetitions=4, count=8).tolist() == [0, 1, 4, 5]
    assert divergence.rows(prompts=2, repetitions=4, count=8).tolist() == list(range(8))
    assert divergence.rows(prompts=50, repetitions=2, count=6).tolist() == [0, 2, 4]


def test_prompts_come_in_shuffled_epochs(tmp_path):
    ctx = context(tmp_path)
    ids = [prompt.id for prompt in ctx.next_prompts(24)]
    epochs = [ids[start : start + 8] for start in (0, 8, 16)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_average_lags_behind_and_is_what_evaluation_sees(tmp_path):
    ctx = context(tmp_path, train={"ema_decay": 0.9})
    start_bias = ctx.policy.bias.detach().clone()
    trajectory = ctx.rollout()
    ctx.policy.denoising_loss(trajectory.final, trajectory.cond, *ctx.draw(trajectory, "x")).mean().backward()
    ctx.apply_gradients()
    trained = ctx.policy.bias.detach().clone()
    with ctx.optimisation.averaged():
        torch.testing.assert_close(ctx.policy.bias, 0.9 * start_bias + 0.1 * trained)
    assert torch.equal(ctx.policy.bias, trained)
    averaged = 0.9 * start_bias + 0.1 * trained
    heard = []
    ctx.policy.register_forward_pre_hook(lambda module, args: heard.append(module.bias.detach().clone()))
    rundir, ctx.step = RunDirectory(tmp_path / "run"), 1
    evaluate(ctx, ctx.prompts.heldout()[:2], [], toy_run().eval, rundir)
    assert heard
    for bias in heard:
        torch.testing.assert_close(bias, averaged)
    assert torch.equal(ctx.policy.bias, trained), "evaluation puts the trained weights back"
    folder = checkpoint.save(rundir, ctx, PolicyGradient(toy_run().algorithm.options), keep=1)
    torch.testing.assert_close(checkpoint.load_policy(folder).bias, averaged)
    torch.testing.assert_close(load_file(folder / "policy.safetensors")["bias"], averaged)


def test_the_divergence_is_that_of_the_policy_from_the_reference(tmp_path, monkeypatch):
    """With equal deviations the two directions agree, so nothing but the order tells them apart."""
    ctx, asked = context(tmp_path), []
    measure = divergence.measure
    monkeypatch.setattr(divergence, "measure", lambda *given: asked.append(given[:2]) or measure(*given))
    ctx.rollout()
    assert [(a is ctx.policy, b is ctx.reference) for a, b in asked] == [(True, True)]


def test_half_precision_is_the_networks_business_only(tmp_path):
    ctx = context(tmp_path, train={"precision": "bf16-mixed"})
    seen = []
    ctx.policy.register_forward_pre_hook(lambda module, args: seen.append(torch.is_autocast_enabled("cpu")))
    trajectory = ctx.rollout()
    assert all(seen)
    assert not torch.is_autocast_enabled("cpu")
    assert trajectory.log_probs.dtype == trajectory.states.dtype == torch.float32


def test_counters_pause():
    counters = Counters()
    with counters.paused():
        assert not counters.counting
    assert counters.counting


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_does_harm(tmp_path):
    ctx = context(tmp_path)
    before = ctx.policy.bias.detach().clone()
    (ctx.policy.bias.sum() * float("inf")).backward()
    with pytest.raises(Diverged, match="gradient of step 1"):
        ctx.apply_gradients()
    assert torch.equal(ctx.policy.bias, before)


@pytest.mark.parametrize(("clip", "decay"), [(0.5, 0.0), (1e9, 0.3)])
def test_one_update_is_adamw_on_the_clipped_gradient_with_decay(tmp_path, clip, decay):
    """By hand: the norm is clipped over all weights together, and decay shrinks the weight itself."""
    table = {
        "learning_rate": 0.01,
        "grad_clip": clip,
        "weight_decay": decay,
        "adam_betas": (0.5, 0.75),
        "adam_eps": 0.1,
    }
    ctx = context(tmp_path, train=table)
    before = [p.detach().double().clone() for p in ctx.policy.parameters()]
    for number, p in enumerate(ctx.policy.parameters()):
        (p.double() * (number + 1)).sum().backward()
    norm = sum((number + 1) ** 2 * p.numel() for number, p in enumerate(before)) ** 0.5
    assert ctx.apply_gradients() == pytest.approx(norm)
    for number, (was, p) in enumerate(zip(before, ctx.policy.parameters(), strict=True)):
        g = (number + 1) * min(1.0, clip / norm)
        # After one update the bias corrections undo the decays: m = g, v = g^2.
        expected = was * (1 - 0.01 * decay) - 0.01 * g / (abs(g) + 0.1)
        torch.testing.assert_close(p.detach().double(), expected, rtol=1e-5, atol=1e-7)


def test_the_second_update_remembers_as_the_betas_say(tmp_path):
    """Gradients 1 and 3 by hand: m and v are averages with the two decays, each over its bias correction."""
    ctx = context(
        tmp_path, train={"learning_rate": 0.01, "grad_clip": 1e9, "adam_betas": (0.5, 0.75), "adam_eps": 1e-12}
    )
    before = ctx.policy.bias.detach().double().clone()
    for gradient in (1.0, 3.0):
        (gradient * ctx.policy.bias).sum().backward()
        ctx.apply_gradients()
    m = (0.5 * 0.5 * 1 + 0.5 * 3) / (1 - 0.5**2)
    v = (0.75 * 0.25 * 1 + 0.25 * 9) / (1 - 0.75**2)
    expected = before - 0.01 * 1 - 0.01 * m / v**0.5
    torch.testing.assert_close(ctx.policy.bias.detach().double(), expected, rtol=1e-5, atol=1e-7)


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_the_step_and_saves(tmp_path, number):
    run = toy_run(train={"steps": 50, "save_every": 50})
    rundir = start(run, tmp_path / "run")
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in a shell's background

    def send(event):
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match="after step 3 of 50"):
        train(run, rundir, observer=send)
    status = json.loads((rundir / "status.json").read_text())
    assert (status["state"], status["signal"]) == ("interrupted", signal.Signals(number).name)
    assert (rundir / "checkpoints/000003/DONE").is_file()
    assert signal.getsignal(signal.SIGINT) is before, "handlers are put back"


def test_a_plugin_that_calls_exit_ends_no_run_as_if_it_were_done(tmp_path, monkeypatch):
    monkeypatch.setattr(Context, "rollout", lambda *_: sys.exit(0))
    run = toy_run(train={"steps": 2, "self_checks": False})
    with pytest.raises(PluginError, match=r"ended by sys.exit: SystemExit: 0 \(test_engine.py, line \d+\)"):
        train(run, rundir := start(run, tmp_path / "run"))
    assert rundir.status()["state"] == "failed"


def test_a_signal_while_the_cause_of_a_failure_is_written_does_not_lose_it(tmp_path, monkeypatch):
    """As torchrun sends it to every other process when one has failed."""

    def fail(*_):
        raise DataError("a bad file", "mend it")

    def write(rundir, *arguments, write=RunDirectory.set_status, **options):
        if arguments == ("failed",):
            os.kill(os.getpid(), signal.SIGTERM)
        write(rundir, *arguments, **options)

    monkeypatch.setattr(RunDirectory, "set_status", write)
    monkeypatch.setattr(Context, "rollout", fail)
    lost = []
    before = signal.signal(signal.SIGTERM, lambda *_: lost.append(1))
    try:
        run = toy_run(train={"steps": 2, "self_checks": False})
        with pytest.raises(DataError, match="a bad file"):
            train(run, rundir := start(run, tmp_path / "run"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert lost == []
    assert rundir.status()["state"] == "failed"


def test_the_second_signal_stops_at_once():
    with pytest.raises(KeyboardInterrupt):
        with stop_requests() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signal == "SIGINT"
            os.kill(os.getpid(), signal.SIGINT)
    assert issubclass(PolicyGradient, Algorithm)
