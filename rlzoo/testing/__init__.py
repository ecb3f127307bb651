"""Public help for plugin authors: toys, an in-memory context, the conformance kit. Importing this loads no torch.

`check_plugin(spec)` is `rlzoo plugins check NAME`; `@parametrize_with_checks("my-reward")` makes one pytest test of
each check; `check_policy`, `check_reward` and `check_algorithm` take a class or function from a notebook.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rlzoo.core.specs import AlgorithmSpec, ObserverSpec, Options, PolicySpec, PromptSpec, RewardSpec, Spec
from rlzoo.testing import announcement
from rlzoo.testing.results import Broken, Result, Skipped, run_checks

if TYPE_CHECKING:
    from rlzoo.core.algorithm import Algorithm
    from rlzoo.core.policy import Policy
    from rlzoo.core.reward import Reward


def checks_of(spec: Spec) -> list[tuple[str, Callable[[], None]]]:
    """Every check of this plugin as (name, function); it raises `Broken`, or `Skipped` where it cannot be made."""
    found: list[tuple[str, Callable[[], None]]] = [(c.__name__, partial(c, spec)) for c in announcement.CHECKS]
    for check, subject in _live_checks(spec):
        found.append((check.__name__, partial(_checked, check, spec, subject)))
    return found


def _checked(check: Callable[[Any], None], spec: Spec, make_subject: Callable[[], Any]) -> None:
    required = [name for name, field in spec.options.model_fields.items() if field.is_required()]
    if required:
        raise Skipped(f"it has no default for: {', '.join(required)}")
    check(make_subject())


def _live_checks(spec: Spec) -> list[tuple[Callable[[Any], None], Callable[[], Any]]]:
    if isinstance(spec, AlgorithmSpec):
        from rlzoo.testing import algorithms

        return [(check, partial(_algorithm_subject, spec)) for check in algorithms.CHECKS]
    if isinstance(spec, PolicySpec):
        from rlzoo.testing import policies

        return [(check, partial(_policy_subject, spec)) for check in policies.CHECKS]
    if isinstance(spec, RewardSpec):
        from rlzoo.testing import rewards

        return [(check, partial(_reward_subject, spec)) for check in rewards.CHECKS]
    if isinstance(spec, PromptSpec):
        from rlzoo.testing import prompt_sets

        return [(check, partial(_prompt_subject, spec)) for check in prompt_sets.CHECKS]
    if isinstance(spec, ObserverSpec):
        from rlzoo.testing import observers

        return [(check, partial(_observer_subject, spec)) for check in observers.CHECKS]
    return []


def _target(spec: Spec) -> Any:
    from rlzoo.config.registry import import_target

    return import_target(spec.target, f"plugin '{spec.name}'", spec.extra)


def _algorithm_subject(spec: AlgorithmSpec) -> Any:
    from rlzoo.testing.algorithms import AlgorithmSubject

    return AlgorithmSubject(_target(spec), spec.options, spec.needs)


def _policy_subject(spec: PolicySpec) -> Any:
    from rlzoo.config.registry import weights_at_hand
    from rlzoo.testing.policies import PolicySubject

    if not weights_at_hand(spec, spec.options()):
        raise Skipped("its weights are not on this machine")
    return PolicySubject(lambda: _target(spec)(spec.options()), spec.offers)


def _reward_subject(spec: RewardSpec) -> Any:
    from rlzoo.config.registry import weights_at_hand
    from rlzoo.testing.rewards import RewardSubject

    if not weights_at_hand(spec, spec.options()):
        raise Skipped("its weights are not on this machine")
    return RewardSubject(lambda: _target(spec)(spec.options()), spec.offers, spec.accepts)


def _prompt_subject(spec: PromptSpec) -> Any:
    from rlzoo.testing.prompt_sets import PromptSubject

    return PromptSubject(lambda: _target(spec)(spec.options()))


def _observer_subject(spec: ObserverSpec) -> Any:
    from rlzoo.testing.observers import ObserverSubject

    return ObserverSubject(lambda: _target(spec)(spec.options()), spec.acts)


def check_plugin(spec: Spec, only: str = "", *, stop: bool = False) -> list[Result]:
    """Hold one plugin against its contract, as `rlzoo plugins check NAME` does. Raises nothing: look at `outcome`.

    `only` keeps the checks whose name contains this text; `stop` ends after the first that fails.
    """

    def named(name: str, check: Callable[[], None]) -> Callable[[None], None]:
        def run(_: None) -> None:
            check()

        run.__name__ = name
        return run

    chosen = [named(name, check) for name, check in checks_of(spec) if only in name]
    results: list[Result] = []
    for result in run_checks(chosen, None, spec.expected_failures):
        results.append(result)
        if stop and result.outcome == "failed":
            break
    return results


def check_policy(make: Callable[[], Policy]) -> list[Result]:
    """Hold a policy against its contract: `make` gives a fresh one."""
    from rlzoo.testing import policies

    return list(run_checks(policies.CHECKS, policies.PolicySubject(make)))


def check_reward(make: Callable[[], Reward[Any]], *, offers_gradient: bool, accepts: str = "audio") -> list[Result]:
    """Hold a reward against its contract: `make` gives a fresh one."""
    from rlzoo.testing import rewards

    offers = frozenset({"reward-grad"} if offers_gradient else ())
    return list(run_checks(rewards.CHECKS, rewards.RewardSubject(make, offers, frozenset({accepts}))))  # type: ignore[arg-type]


def check_algorithm(
    make: Callable[[Any], Algorithm[Any]], options: type[Options], needs: frozenset[Any]
) -> list[Result]:
    """Hold an algorithm against its contract: `make` gives a fresh one from its options."""
    from rlzoo.testing import algorithms

    return list(run_checks(algorithms.CHECKS, algorithms.AlgorithmSubject(make, options, needs)))


def parametrize_with_checks(plugin: str | Spec, kind: str = "") -> Any:
    """A pytest decorator: `def test_contract(check): check()` becomes one test per check of this plugin.

    `plugin` is a name, looked up among the installed plugins (with `kind`, where two kinds share it), or a record.
    """
    import pytest

    if isinstance(plugin, str):
        from rlzoo.config.registry import discover

        found = [spec for k, spec in discover().find(plugin) if kind in ("", k)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} plugins are named '{plugin}'; give `kind`, or install it")
        plugin = found[0]
    reasons = plugin.expected_failures
    params = [
        pytest.param(
            partial(_for_pytest, check),
            id=name,
            marks=[pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else [],
        )
        for name, check in checks_of(plugin)
    ]
    return pytest.mark.parametrize("check", params)


def _for_pytest(check: Callable[[], None]) -> None:
    import pytest

    try:
        check()
    except Skipped as skipped:
        pytest.skip(str(skipped))


__all__ = [
    "Broken",
    "Result",
    "Skipped",
    "check_algorithm",
    "check_plugin",
    "check_policy",
    "check_reward",
    "checks_of",
    "parametrize_with_checks",
]
