"""The conformance kit: every announced plugin keeps its contract, and every check finds the bug it was written for."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from broken import algorithms as broken_algorithms
from broken import policies as broken_policies
from broken import prompt_sets as broken_prompts
from broken import rewards as broken_rewards
from pydantic import ConfigDict
from toy_contexts import gradient, local

from rlzoo.config.registry import discover
from rlzoo.plugin import AlgorithmSpec, Options, Spec
from rlzoo.testing import (
    Broken,
    Skipped,
    algorithms,
    announcement,
    check_algorithm,
    check_plugin,
    check_policy,
    check_reward,
    checks_of,
    parametrize_with_checks,
    policies,
    prompt_sets,
    rewards,
)
from rlzoo.testing.specs import TOY_FLOW, TOY_GAUSSIAN, TOY_PROMPTS, TOY_REWARD

REGISTRY = discover()
# Speech models: seconds per check. `cer` is `wer` with other units.
SLOW = {"gradtts", "wavegrad2", "distillmos", "dnsmos", "utmos", "nisqa", "cer"}


def plugins() -> list[Any]:
    found = [(kind, spec) for kind, specs in REGISTRY.specs.items() for spec in specs.values()]
    found += [("toy", spec) for spec in (TOY_GAUSSIAN, TOY_FLOW, TOY_REWARD, TOY_PROMPTS)]
    return [
        pytest.param(spec, check, id=f"{kind}-{spec.name}-{name}", marks=marks(spec, name))
        for kind, spec in found
        for name, check in checks_of(spec)
    ]


def marks(spec: Spec, name: str) -> list[Any]:
    slow = spec.name in SLOW and name not in {check.__name__ for check in announcement.CHECKS}
    expected = spec.expected_failures.get(name)
    if missing := missing_module(spec):
        return [pytest.mark.skip(reason=f"'{missing}' is not installed: pip install 'rlzoo-speech[{spec.extra}]'")]
    return [pytest.mark.slow] * slow + ([pytest.mark.xfail(reason=expected, strict=True)] if expected else [])


def missing_module(spec: Spec) -> str | None:
    """The package of the plugin's extra that is not here; any other failed import is the plugin's own fault."""
    try:
        if spec.extra:
            importlib.import_module(spec.target.split(":")[0])
    except ModuleNotFoundError as error:
        return error.name
    return None


@pytest.mark.parametrize(("spec", "check"), plugins())
def test_every_plugin_keeps_its_contract(spec: Spec, check: Any) -> None:
    try:
        check()
    except Skipped as skipped:
        pytest.skip(str(skipped))


def test_expected_failures_name_checks_that_exist() -> None:
    for specs in REGISTRY.specs.values():
        for spec in specs.values():
            assert set(spec.expected_failures) <= {name for name, _ in checks_of(spec)}, spec.name


# --- what the kit cannot see ------------------------------------------------------------------------------------------

NO_RESULT = {
    "dpo": {"preferences", "pairs_per_step"},  # a file
    "draft": {"checkpointing"},  # memory
    "onlydl": {"monitor"},  # a figure in the log
    "grpo": {"window_range", "at_end"},  # a pair of numbers; of a late step: tests/plugins/test_grpo.py
    "nft": {"decay_max"},  # of a late step: tests/plugins/test_nft.py
}
"""Options that change no weight of a toy."""


def alternatives(options: type[Options], name: str) -> list[Any]:
    """Other values of an option that its type allows."""
    field = options.model_fields[name]
    default = field.default
    candidates = [value for value in (True, False, *get_args(field.annotation)) if value != default]
    if isinstance(default, int | float) and not isinstance(default, bool):
        candidates = [0.9 if default < 0.5 else 0.1, default * 2, default + 1]
    elif default is None:
        candidates += [1, 0.5]
    allowed = []
    for value in candidates:
        if isinstance(value, str | int | float):
            try:
                options.model_validate({name: value}, strict=True)
            except ValueError:
                continue
            allowed.append(value)
    return allowed


def settings_of(spec: Spec) -> list[dict[str, Any]]:
    """The defaults; every weight on and several updates; and with each of these every choice of every other option."""
    weights = {n: 1.0 for n, f in spec.options.model_fields.items() if (f.description or "").startswith("Weight of")}
    several = {name: 2 for name in ("updates", "draws") if name in spec.options.model_fields}
    choices = [
        {name: value}
        for name, field in spec.options.model_fields.items()
        for value in alternatives(spec.options, name)
        if isinstance(field.default, str | bool | None) and not isinstance(value, int | float) | isinstance(value, bool)
    ]
    return [base | choice for base in ({}, weights | several) for choice in ({}, *choices)]


def end_of(spec: Spec, settings: dict[str, Any]) -> torch.Tensor:
    """The weights after three steps of two updates each."""
    module, _, kind = spec.target.partition(":")
    ctx = local(
        update=True, recordings=True, samples=3, learning_rate=0.02, minibatch=12, inner_epochs=2, advantage="batch"
    )
    algorithm = getattr(importlib.import_module(module), kind)(spec.options(**settings))
    algorithm.setup(ctx)
    for step in (4, 5, 6):
        ctx.step = step
        algorithm.step(ctx)
    return torch.cat([p.detach().flatten() for p in ctx.policy.parameters()])


@pytest.mark.parametrize("name", [pytest.param(name, id=f"algorithm-{name}") for name in REGISTRY.names("algorithm")])
def test_every_option_changes_what_is_learnt(name: str) -> None:
    """In some setting of the others. An option that is read past, or overwritten, changes nothing anywhere."""
    spec = REGISTRY.get("algorithm", name)
    ends: dict[str, torch.Tensor] = {}

    def end(settings: dict[str, Any]) -> torch.Tensor:
        key = repr(sorted(settings.items()))
        if key not in ends:
            ends[key] = end_of(spec, settings)
        return ends[key]

    for option in spec.options.model_fields.keys() - NO_RESULT.get(name, set()):
        assert any(
            not torch.equal(end(settings), end(settings | {option: value}))
            for settings in settings_of(spec)
            for value in alternatives(spec.options, option)
        ), option


def dlpo_has_fresh_noise_and_its_reference() -> None:
    """Recordings are noised afresh at every step; the released estimator compares with the starting weights."""
    from rlzoo_dlpo import DLPOOptions
    from rlzoo_dlpo.algorithm import DLPO

    ctx = local(recordings=True)
    traj, dlpo, heard, noisy = ctx.rollout(), DLPO(DLPOOptions(target="data")), [], ctx.policy.noisy
    ctx.policy.noisy = lambda x, noise, t: heard.append(noise) or noisy(x, noise, t)  # type: ignore[method-assign]
    dlpo.penalty(ctx, traj, dlpo.denoising_target(ctx, traj))
    assert len({float(noise.flatten()[0]) for noise in heard}) == len(heard) > 1
    ends = []
    for shift in (0.0, 5.0):
        ctx = local()
        with torch.no_grad():
            ctx.reference.bias.add_(shift)  # type: ignore[operator, union-attr]
        ends.append(gradient(ctx, DLPO(DLPOOptions(estimator="released"))))
    assert not torch.equal(*ends)


def dpok_keeps_the_scales_of_its_value() -> None:
    """Targets whose scale moved with every step would undo what the network has learnt."""
    from rlzoo_dpok import DPOKOptions
    from rlzoo_dpok.algorithm import DPOK

    ctx, dpok, scales = local(update=True), DPOK(DPOKOptions()), []
    dpok.setup(ctx)
    for _ in range(2):
        dpok.step(ctx)
        scales.append({name: tensor.clone() for name, tensor in dpok.state_dict()["scale"].items()})
    assert all(torch.equal(value, scales[1][name]) for name, value in scales[0].items())


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(dlpo_has_fresh_noise_and_its_reference, id="algorithm-dlpo"),
        pytest.param(dpok_keeps_the_scales_of_its_value, id="algorithm-dpok"),
    ],
)
def test_a_property_of_one_algorithm_alone(look: Any) -> None:
    look()


# --- planted bugs ----------------------------------------------------------------------------------------------------


def checks(module: Any) -> dict[str, Any]:
    return {check.__name__: check for check in module.CHECKS}


@pytest.mark.parametrize(("name", "bug"), broken_policies.BROKEN.items())
def test_a_planted_policy_bug_is_found(name: str, bug: type) -> None:
    checks(policies)[name](policies.PolicySubject(broken_policies.Toy))
    with pytest.raises(Broken):
        checks(policies)[name](policies.PolicySubject(bug))


def test_a_decoder_may_change_lengths() -> None:
    assert {r.outcome for r in check_policy(broken_policies.Doubling)} == {"passed"}


@pytest.mark.parametrize(("bug", "complaint"), broken_policies.LENGTHS.items())
def test_wrong_lengths_are_found(bug: type, complaint: str) -> None:
    with pytest.raises(Broken, match=complaint):
        policies.samples_are_valid(policies.PolicySubject(bug))


@pytest.mark.parametrize(("name", "bug"), broken_rewards.BROKEN)
def test_a_planted_reward_bug_is_found(name: str, bug: type) -> None:
    facts = frozenset({"reward-grad"}), frozenset({"vector"})
    checks(rewards)[name](rewards.RewardSubject(broken_rewards.Sound, *facts))
    with pytest.raises(Broken):
        checks(rewards)[name](rewards.RewardSubject(bug, *facts))


@pytest.mark.parametrize(("name", "bug"), broken_algorithms.BROKEN)
def test_a_planted_algorithm_bug_is_found(name: str, bug: Any) -> None:
    options = broken_algorithms.GradientOptions
    checks(algorithms)[name](algorithms.AlgorithmSubject(broken_algorithms.Gradient, options))
    with pytest.raises(Broken):
        checks(algorithms)[name](algorithms.AlgorithmSubject(bug, options))


@pytest.mark.parametrize(("name", "bug"), broken_prompts.BROKEN.items())
def test_a_planted_prompt_bug_is_found(name: str, bug: type) -> None:
    checks(prompt_sets)[name](prompt_sets.PromptSubject(broken_prompts.Sound))
    with pytest.raises(Broken):
        checks(prompt_sets)[name](prompt_sets.PromptSubject(bug))


@pytest.mark.parametrize("module", [policies, rewards, algorithms, prompt_sets])
def test_every_check_has_its_planted_bug(module: Any) -> None:
    planted = {
        policies: set(broken_policies.BROKEN),
        rewards: {name for name, _ in broken_rewards.BROKEN},
        algorithms: {name for name, _ in broken_algorithms.BROKEN},
        prompt_sets: set(broken_prompts.BROKEN),
    }
    assert planted[module] == set(checks(module))


class Shared(Options):
    """A default that one run could change for the next."""

    names: list[str] = []  # noqa: RUF012
    """Its names."""


class Silent(Options):
    """An option without documentation."""

    clip: float = 0.1


class Open(Options):
    """Takes unknown keys."""

    model_config = ConfigDict(extra="allow")


class WrongDefault(Options):
    """A default that its own type refuses."""

    clip: float = "wide"  # type: ignore[assignment]
    """A number."""


def record(**changes: Any) -> AlgorithmSpec:
    facts: dict[str, Any] = {"name": "x", "summary": "a plugin", "target": "rlzoo.testing.toy_runs:PolicyGradient"}
    return AlgorithmSpec(**facts | {"options": Options} | changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("announces_lightly", {"target": "heavy_plugin.algorithm:X"}),
        ("describes_itself", {"summary": "two\nlines"}),
        ("documents_its_options", {"options": Silent}),
        ("closes_its_options", {"options": Open}),
        ("has_immutable_defaults", {"options": Shared}),
        ("has_valid_defaults", {"options": WrongDefault}),
        ("has_valid_presets", {"target": "heavy_plugin:X"}),
        ("points_at_its_class", {"target": "rlzoo.testing.toys:ToyReward"}),
    ],
)
def test_a_planted_announcement_bug_is_found(name: str, changes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "broken")
    checks(announcement)[name](record())
    with pytest.raises(Broken):
        checks(announcement)[name](record(**changes))


def test_every_announcement_check_has_its_planted_bug() -> None:
    planted = {mark.args[1][i][0] for mark in test_a_planted_announcement_bug_is_found.pytestmark for i in range(8)}
    assert planted == set(checks(announcement))


# --- ways to use it --------------------------------------------------------------------------------------------------


def test_a_class_can_be_checked_without_a_plugin() -> None:
    assert {r.outcome for r in check_policy(broken_policies.Toy)} == {"passed"}
    failed = [r for r in check_policy(broken_policies.UnmaskedPadding) if r.outcome == "failed"]
    assert "ignores_padding" in {r.check for r in failed}
    assert all(r.detail for r in failed)
    sound = check_reward(broken_rewards.Sound, offers_gradient=True, accepts="vector")
    assert {r.outcome for r in sound} == {"passed"}
    turned = check_algorithm(broken_algorithms.TurnedSign, broken_algorithms.GradientOptions, frozenset({"log-prob"}))
    assert "follows_the_reward" in {r.check for r in turned if r.outcome == "failed"}


def test_expected_failures_are_shown_and_must_fail() -> None:
    known = record(summary="", expected_failures={"describes_itself": "a test", "documents_its_options": "no reason"})
    results = {r.check: r for r in check_plugin(known)}
    assert results["describes_itself"].outcome == "expected"
    assert "a test" in results["describes_itself"].detail
    assert results["documents_its_options"].outcome == "failed"


def test_the_decorator_makes_one_test_per_check(tmp_path: Path) -> None:
    code = """
        from rlzoo.testing import parametrize_with_checks

        @parametrize_with_checks("short")
        def test_contract(check):
            check()
    """
    (tmp_path / "test_contract.py").write_text(textwrap.dedent(code))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f"{len(checks_of(REGISTRY.prompts('short')))} passed" in done.stdout, done.stdout


def test_the_decorator_needs_a_plugin_that_exists() -> None:
    with pytest.raises(LookupError, match="0 plugins are named 'nothing'"):
        parametrize_with_checks("nothing")
