"""Rewards with unavailable weights: fetch them, use the announced fallback, or refuse. Light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rlzoo.config.registry import Registry, weights_at_hand
from rlzoo.config.resolve import ResolvedRun, RewardChoice, check_capabilities
from rlzoo.core.specs import Options, RewardSpec
from rlzoo.errors import ConfigError, DataError


@dataclass(frozen=True)
class Replacement:
    """A reward whose weights are unavailable, what is used instead, and why."""

    requested: str
    used: str
    reason: str


Fetch = Callable[[RewardSpec], None]
"""Brings a reward's weight files into the cache; DataError if it cannot."""


def fetch_assets(spec: RewardSpec) -> None:
    """Download what the reward announces, with size and checksum shown. DataError if that fails."""
    from rlzoo.files import assets

    for asset in spec.assets:
        assets.obtain(asset)


def resolve_missing_rewards(
    run: ResolvedRun, registry: Registry, *, strict: bool = False, fetch: Fetch | None = fetch_assets
) -> tuple[ResolvedRun, tuple[Replacement, ...]]:
    """Replace every reward whose weights are unavailable by its fallback.

    Weights are fetched first, unless `fetch` is None. DataError (exit 4) if `strict` or `on_missing = "error"` forbids
    it, or if the reward has no fallback. The caller shows the replacements; `requested` stays in the run.
    """
    rewards: list[RewardChoice] = []
    replaced: list[Replacement] = []
    for choice in run.rewards:
        reason = _unavailable(choice.spec, choice.options, fetch)
        if not reason:
            rewards.append(choice)
            continue
        fallback = choice.spec.fallback
        if strict or choice.on_missing == "error" or not fallback:
            allow = (
                f"allow the fallback with on_missing = \"fallback\" ('{fallback}')" if fallback and not strict else ""
            )
            raise _lacks(choice.spec, reason, allow)
        stand_in = registry.reward(fallback)
        options = stand_in.options()
        reason_too = _unavailable(stand_in, options, fetch)
        if reason_too:
            raise DataError(
                f"neither '{choice.spec.name}' ({reason}) nor its fallback '{fallback}' ({reason_too}) is available"
            )
        if fallback in [other.used for other in run.rewards]:
            raise ConfigError(
                f"the weights of reward '{choice.spec.name}' are unavailable ({reason}), "
                f"and its fallback '{fallback}' is one of the rewards already",
                f"leave out '{choice.spec.name}'",
            )
        rewards.append(replace(choice, spec=stand_in, options=options))
        replaced.append(Replacement(choice.requested, fallback, reason))
    out = replace(run, rewards=tuple(rewards))
    check_capabilities(out)
    return out, tuple(replaced)


def require_weights(spec: RewardSpec, options: Options) -> None:
    """DataError if the weights of a reward are unavailable and cannot be fetched."""
    reason = _unavailable(spec, options, fetch_assets)
    if reason:
        raise _lacks(spec, reason)


def _lacks(spec: RewardSpec, reason: str, otherwise: str = "") -> DataError:
    hint = "; or ".join(filter(None, (_how_to_get(spec), otherwise)))
    return DataError(f"the weights of reward '{spec.name}' are unavailable: {reason}", hint)


def _how_to_get(spec: RewardSpec) -> str:
    if spec.train:
        return "train it: `rlzoo reward train-preference`, then name the file with the option `checkpoint`"
    return f"get them with `rlzoo assets pull {spec.assets[0].name}`" if spec.assets else ""


def _unavailable(spec: RewardSpec, options: Options, fetch: Fetch | None) -> str:
    """Why a reward cannot be used, empty if it can."""
    if weights_at_hand(spec, options):
        return ""
    if fetch is None or not spec.assets:
        return "they are neither named by an option nor in the cache"
    try:
        fetch(spec)
    except DataError as error:
        return error.message
    return "" if weights_at_hand(spec, options) else "they were fetched, but are still not found"
