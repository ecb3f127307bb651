"""Mistakes that a plugin's author makes: each is named, with what to do, before the run goes on."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pydantic import Field
from test_hostile import command  # noqa: F401  # a fixture
from typer.testing import CliRunner

from rlzoo.api import Prompt, PromptSet, Reward, RewardFunction, Samples, Scores, reward_from
from rlzoo.audio import to_samples
from rlzoo.cli import app
from rlzoo.config.registry import Registry
from rlzoo.config.resolve import Choice, RewardChoice
from rlzoo.core.reward import unsound
from rlzoo.engine.loop import train
from rlzoo.engine.scorecache import CachedReward, ScoreCache
from rlzoo.errors import ConfigError, ContractError, DataError, PluginError
from rlzoo.plugin import AlgorithmSpec, Options, PolicySpec, RewardSpec, hookimpl
from rlzoo.testing import check_plugin, check_reward
from rlzoo.testing.results import run_checks
from rlzoo.testing.toy_runs import PolicyGradient, start, toy_run

UNTRAINED = {"name": "toy-gaussian", "pretrain_steps": 0}


def run_with(tmp_path, *, reward=None, algorithm=None, **tables):
    """A short toy run whose reward or algorithm is a class of this module."""
    run = toy_run(**{"policy": UNTRAINED, "train": {"steps": 1}, **tables})
    if reward is not None:
        spec = RewardSpec(
            name="mine",
            summary="s",
            target=f"{__name__}:{reward.__name__}",
            options=Options,
            accepts=frozenset({"vector"}),
        )
        run = dataclasses.replace(run, rewards=(RewardChoice(spec, Options(), "mine"),))
    if algorithm is not None:
        target = f"{__name__}:{algorithm.__name__}"
        spec = AlgorithmSpec(name="mine", summary="s", target=target, options=run.algorithm.spec.options)
        run = dataclasses.replace(run, algorithm=Choice(spec, run.algorithm.options))
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    return rundir


# --- an algorithm that learns nothing --------------------------------------------------------------------------------


class NeverApplies(PolicyGradient):
    """Goes through the motions and never follows its gradient."""

    def step(self, ctx):
        trajectory = ctx.rollout()
        ctx.score(trajectory)
        return {}


@pytest.mark.parametrize(("steps", "words"), [(1, "first step"), (9, "first 3 steps")])
def test_an_algorithm_that_never_applies_a_gradient_is_an_error(tmp_path, steps, words):
    with pytest.raises(ContractError, match=rf"NeverApplies applied no gradient in its {words}") as caught:
        run_with(tmp_path, algorithm=NeverApplies, train={"steps": steps})
    assert "ctx.apply_gradients()" in caught.value.hint


def test_the_kit_says_so_as_well():
    spec = AlgorithmSpec(
        name="never", summary="s", target=f"{__name__}:NeverApplies", options=toy_run().algorithm.spec.options
    )
    (result,) = check_plugin(spec, "self_checks")
    assert result.outcome == "failed"
    assert "applied no gradient" in result.detail


class OwnLoop(PolicyGradient):
    """Goes over the denoising steps itself, and finds none with a density."""

    def step(self, ctx):
        trajectory = ctx.rollout()
        scores = ctx.score(trajectory).values.sum()
        steps = trajectory.schedule.stochastic.sum()
        sum((p * 0 * scores * steps).sum() for p in ctx.policy.parameters()).backward()
        ctx.apply_gradients()
        return {}


def test_a_run_whose_steps_have_no_density_says_so(tmp_path):
    with pytest.raises(ConfigError, match="no denoising step of this rollout has a density"):
        run_with(tmp_path / "a", rollout={"deterministic": True})
    with pytest.raises(ContractError, match="no denoising step of this run has a density") as caught:
        run_with(tmp_path / "b", algorithm=OwnLoop, rollout={"deterministic": True})
    assert "at least 2 denoising steps" in caught.value.hint


# --- what a reward may return ----------------------------------------------------------------------------------------


class Planted(Reward[Options]):
    def score(self, samples, prompts):
        values = samples.data.flatten(1).mean(1)
        return {
            "list": lambda: values.tolist(),
            "tensor": lambda: values,
            "list in Scores": lambda: Scores(values.tolist()),
            "a column": lambda: Scores(values[:, None]),
            "a number": lambda: Scores(values.mean()),
            "another device": lambda: Scores(values.to("meta")),
            "float64": lambda: Scores(values.double()),
            "a part too short": lambda: Scores(values, {"noise": values[1:]}),
            "a part as list": lambda: Scores(values, {"noise": values.tolist()}),
            "nothing": lambda: None,
        }[self.version]()


WRONG = {
    "list": "returned list instead of Scores",
    "tensor": "returned Tensor instead of Scores",
    "list in Scores": "returned list as its scores",
    "a column": r"returned scores of shape \(2, 1\) for 2 samples",
    "a number": r"returned scores of shape \(\) for 2 samples",
    "another device": "returned scores on meta, but its samples are on cpu",
    "float64": "returned scores as torch.float64, not float32",
    "a part too short": r"returned part 'noise' of shape \(1,\)",
    "a part as list": "returned list as its part 'noise'",
    "nothing": "returned NoneType instead of Scores",
}


def planted(version: str) -> Planted:
    reward = Planted(Options())
    reward.version = version
    return reward


def two() -> Samples:
    return to_samples([torch.full((80,), 0.1), torch.full((40,), 0.2)], 8000)


@pytest.mark.parametrize("version", WRONG)
def test_a_wrong_result_is_named_by_the_run_and_by_the_kit_alike(version, tmp_path):
    from rlzoo.rewards import score_with

    prompts = [Prompt("a", "a"), Prompt("b", "b")]
    cached = CachedReward("mine", planted(version), ScoreCache(tmp_path / "scores.sqlite"))
    for reward in (planted(version), cached):
        with pytest.raises(ContractError, match=rf"reward 'mine' .*{WRONG[version]}"):
            score_with(reward, "mine", two(), prompts)
    results = check_reward(lambda: planted(version), offers_gradient=False)
    assert any(result.outcome == "failed" and "returned" in result.detail for result in results)


class ReturnsAList(Reward[Options]):
    def score(self, samples, prompts):
        return samples.data.mean(1).tolist()


def test_a_run_stops_at_a_wrong_result_without_a_traceback_of_ours(tmp_path):
    with pytest.raises(ContractError, match="returned list instead of Scores"):
        run_with(tmp_path, reward=ReturnsAList)


def test_a_part_of_a_composite_reward_is_held_to_the_same(tmp_path):
    from rlzoo_composite import CompositeOptions
    from rlzoo_composite.reward import CompositeReward

    reward = CompositeReward(CompositeOptions(parts=({"name": "guard"},)))
    reward.rewards = [planted("list")]
    with pytest.raises(ContractError, match=r"reward 'guard' .* returned list"):
        reward.score(two(), [Prompt("a", "a"), Prompt("b", "b")])


class OfTheBatch(Reward[Options]):
    def score(self, samples, prompts):
        values = samples.data.mean(1)
        return Scores((values - values.mean()) / values.std(correction=0))


class OfTheLongest(Reward[Options]):
    """A mean over padding: what lies beside a sample changes its score."""

    def score(self, samples, prompts):
        return Scores(10 + 100 * samples.data.square().sum(1) / samples.data.shape[1])


@pytest.mark.parametrize("reward", [OfTheBatch, OfTheLongest])
def test_a_reward_that_depends_on_batch_mates_stops_the_run(reward, tmp_path):
    with pytest.raises(ContractError, match=r"reward 'mine' scores a sample as .* among others and as .* alone"):
        run_with(tmp_path, reward=reward)


# --- announcements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "hint"),
    [("reward_grad", "did you mean 'reward-grad'?"), ("speed", "available: log-prob, denoising-loss")],
)
def test_a_capability_that_does_not_exist_is_refused(given, hint):
    common = {"name": "x", "summary": "s", "target": "x:X", "options": Options}
    for make in (
        lambda: RewardSpec(offers=frozenset({given}), **common),
        lambda: PolicySpec(offers=frozenset({"log-prob", given}), **common),
        lambda: AlgorithmSpec(needs=frozenset({given}), **common),
    ):
        with pytest.raises(PluginError, match=f"'x' .* '{given}', which is not a capability") as caught:
            make()
        assert caught.value.hint.startswith(hint)


def test_a_misspelt_kind_of_media_is_named_and_another_kind_is_not():
    common = {"name": "x", "summary": "s", "target": "x:X", "options": Options}
    with pytest.raises(PluginError, match="'x' accepts 'audoi'") as caught:
        RewardSpec(accepts=frozenset({"image", "audoi"}), **common)
    assert caught.value.hint == "did you mean 'audio'?"
    with pytest.raises(PluginError, match="'x' emits 'vectors'"):
        PolicySpec(emits="vectors", **common)
    assert PolicySpec(emits="molecule", **common).emits == "molecule"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_learning_rate_scale_is_a_finite_number_above_0(scale):
    with pytest.raises(PluginError, match="'x' has the learning_rate_scale"):
        AlgorithmSpec(name="x", summary="s", target="x:X", options=Options, learning_rate_scale=scale)


def test_an_unknown_hook_is_named_with_the_hooks_that_exist():
    module = ModuleType("toy_plugin")

    def rlzoo_reward():
        return []

    module.rlzoo_reward = hookimpl(rlzoo_reward)
    with pytest.raises(PluginError, match=r"unknown hook 'rlzoo_reward'.*did you mean 'rlzoo_rewards'"):
        Registry().add_module(module)


class Mutable(Options):
    """Options with a default that one run could change for the next."""

    words: list[str] = []  # noqa: RUF012
    """Words."""
    table: dict[str, int] = Field(default_factory=dict)
    """Made anew each time, which is fine."""


def test_a_mutable_default_fails_the_kit():
    spec = RewardSpec(name="x", summary="s", target="rlzoo_guard.reward:GuardReward", options=Mutable)
    (result,) = check_plugin(spec, "immutable")
    assert (result.outcome, result.detail.split(";")[0]) == ("failed", "mutable default of: words")


# --- what the kit says -----------------------------------------------------------------------------------------------

LOUD = """
import torch
from rlzoo.api import Reward, Scores
from rlzoo.plugin import Options, RewardSpec, hookimpl


class Loud(Reward[Options]):
    def score(self, samples, prompts):
        inside = torch.arange(samples.data.shape[1]) < samples.lengths[:, None]
        {extra}
        return Scores((samples.data.square() * inside).sum(1) / samples.lengths)


@hookimpl
def rlzoo_rewards():
    offers = frozenset({{"reward-grad"}})
    yield RewardSpec(name="{name}", summary="power", target="{name}:Loud", options=Options, offers=offers)
"""


def one_file(folder: Path, name: str, extra: str = "") -> Path:
    path = folder / f"{name}.py"
    path.write_text(LOUD.format(name=name, extra=extra), encoding="utf-8")
    return path


def test_a_one_file_plugin_passes_the_kit(command, tmp_path):  # noqa: F811
    """The one of the documentation."""
    page = (Path(__file__).parent.parent / "docs/write-a-plugin.md").read_text(encoding="utf-8")
    path = tmp_path / "loudest.py"
    path.write_text(re.search(r"```python\n(# loudest\.py\n.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    code, out, err = command("plugins", "check", "loudest", "--plugin", path)
    assert code == 0, out + err
    assert "skipped   announces_lightly" in out


def test_one_check_can_be_chosen_and_the_first_failure_stops(command, tmp_path):  # noqa: F811
    path = one_file(tmp_path, "loudtwo", 'prompts[0].attributes["missing"]')
    chosen = ("plugins", "check", "loudtwo", "--plugin", path, "-k", "score")
    code, out, err = command(*chosen)
    assert code == 3
    assert "KeyError: 'missing' (loudtwo.py, line 10)" in out
    assert "as scores_are_sound" in out  # one cause is told once
    assert out.count("KeyError") == 1
    code, out, err = command(*chosen, "-x")
    assert out.count("failed") == 1
    assert "scores_are_sound" in err
    code, out, err = command("plugins", "check", "loudtwo", "--plugin", path, "-k", "nosuch")
    assert code == 2
    assert "no check's name contains 'nosuch'" in err
    assert "scores_are_sound" in err


def test_one_cause_is_told_once_and_a_hint_has_a_line_of_its_own():
    def first(_):
        raise DataError("the file is missing", "pull it")

    def second(_):
        raise DataError("the file is missing", "pull it")

    one, two = run_checks([first, second], None)
    assert one.detail.splitlines() == ["DataError: the file is missing", "hint: pull it"]
    assert two.detail == "as first"


# --- prompt sets -----------------------------------------------------------------------------------------------------


def test_a_prompt_set_without_recordings_says_so():
    class OnlyText(PromptSet):
        def train(self):
            return []

        def heldout(self):
            return []

    with pytest.raises(DataError, match="OnlyText has only text"):
        OnlyText().recordings([], 8000)
    with pytest.raises(TypeError, match="abstract"):
        PromptSet()


# --- functions as rewards --------------------------------------------------------------------------------------------


def test_a_function_is_a_reward_that_passes_the_kit():
    def power(samples, prompts):
        return [float(samples.row(i).square().mean()) for i in range(len(samples))]

    function: RewardFunction = power
    results = check_reward(lambda: reward_from(function), offers_gradient=False)
    assert {result.outcome for result in results} <= {"passed", "skipped"}, results
    scores = reward_from(function).score(two(), [])
    assert scores.values.tolist() == pytest.approx([0.01, 0.04])
    assert (unsound(scores, two()), scores.values.dtype) == ("", torch.float32)


def test_a_function_may_return_a_tensor_or_scores():
    values = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert reward_from(lambda samples, prompts: values).score(two(), []).values.dtype == torch.float32
    parts = Scores(values.float(), {"part": values.float()})
    assert reward_from(lambda samples, prompts: parts).score(two(), []) is parts


def test_the_version_of_a_function_follows_its_file(tmp_path, monkeypatch):
    import importlib
    import sys

    monkeypatch.syspath_prepend(tmp_path)
    versions = []
    for number in (1, 1, 2):
        (tmp_path / "changing.py").write_text(f"def f(samples, prompts):\n    return [{number}.0] * len(samples)\n")
        sys.modules.pop("changing", None)
        importlib.invalidate_caches()
        versions.append(reward_from(importlib.import_module("changing").f).version)
    assert versions[0] == versions[1] != versions[2]


def test_policies_of_both_families_have_a_scaffold(tmp_path):
    runner = CliRunner()
    for family, base in (("", "GaussianDiffusionPolicy"), ("flow", "RectifiedFlowPolicy")):
        arguments = ["plugins", "new", "policy", f"my{family}", "--out", str(tmp_path)]
        done = runner.invoke(app, arguments + (["--family", family] if family else []))
        assert done.exit_code == 0, done.output
        assert f"({base})" in (tmp_path / f"rlzoo-my{family}/rlzoo_my{family}/policy.py").read_text()
    for kind, family in (("policy", "gan"), ("reward", "flow")):
        done = runner.invoke(app, ["plugins", "new", kind, "x", "--family", family, "--out", str(tmp_path)])
        assert isinstance(done.exception, ConfigError)
