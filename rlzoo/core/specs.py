"""Records, options and hooks for a plugin's light `__init__`. Importing this must not import torch."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

import pluggy
from pydantic import BaseModel, ConfigDict, PlainValidator

from rlzoo.core.kinds import KINDS, Kind
from rlzoo.errors import PluginError
from rlzoo.files.assets import Asset

API_VERSION = 1
"""Version of the plugin interface; a record that names another one is refused."""

Capability = Literal["log-prob", "denoising-loss", "sampling-grad", "reward-grad", "window"]
"""Capabilities that an algorithm may need and a policy or reward may offer."""
CAPABILITIES: tuple[str, ...] = get_args(Capability)
MEDIA_KINDS = ("audio", "image", "vector")
"""Kinds of samples that rlzoo knows; a plugin may have its own."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

hookimpl = pluggy.HookimplMarker("rlzoo")
hookspec = pluggy.HookspecMarker("rlzoo")


class Options(BaseModel):
    """Base of every plugin's options: closed, frozen, documented by the docstring under each field."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


def _valid_clip(value: Any) -> float | tuple[float, float]:
    parts = list(value) if isinstance(value, list | tuple) else [value]
    numbers = all(isinstance(part, int | float) and 0 < part < 1 for part in parts)
    if not numbers or len(parts) != (2 if isinstance(value, list | tuple) else 1):
        raise ValueError("should be a number between 0 and 1, or two such numbers, below and above a ratio of 1")
    return (float(parts[0]), float(parts[1])) if len(parts) == 2 else float(parts[0])


Clip = Annotated[float | tuple[float, float], PlainValidator(_valid_clip)]
"""Trust region of a ratio, for log-probabilities averaged over elements: half-width, or below 1 and above 1."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Announcement of a plugin. Everything heavy is behind `target`, which is imported only when used."""

    name: str
    """`dlpo`; lower case, digits and single hyphens; unique within its kind."""
    summary: str
    """One line for `rlzoo plugins list`."""
    target: str
    """`package.module:Class`."""
    options: type[Options]
    api: int = API_VERSION
    tier: Literal["stable", "experimental"] = "experimental"
    reference: str = ""
    """Publication of the method, e.g. `arXiv:2508.03123`."""
    extra: str = ""
    """The extra of the distribution that `target` needs; named in the hint when the import fails."""
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    """Conformance checks that this plugin cannot meet, each with its reason; printed, never hidden."""
    assets: tuple[Asset, ...] = ()
    """Weight files this plugin may fetch."""
    acts: str = ""
    """Side effects that its options cause, such as `start the program that its options name`; if they come
    from somebody else's run directory, `--trust` is asked for. Empty: nothing."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise PluginError(
                f"{type(self).__name__} has the name '{self.name}'",
                "use lower-case letters, digits and single hyphens, starting with a letter",
            )
        if self.target.count(":") != 1:
            raise PluginError(f"'{self.name}' has the target '{self.target}'", "write it as 'package.module:Class'")
        for field_name in ("needs", "offers"):
            for capability in sorted(getattr(self, field_name, ())):
                if capability not in CAPABILITIES:
                    near = difflib.get_close_matches(capability, CAPABILITIES, n=1)
                    raise PluginError(
                        f"'{self.name}' {field_name} '{capability}', which is not a capability",
                        f"did you mean '{near[0]}'?" if near else f"available: {', '.join(CAPABILITIES)}",
                    )
        for field_name in ("emits", "accepts"):
            given = getattr(self, field_name, ())
            for kind in sorted([given] if isinstance(given, str) else given):
                # Another kind may be a plugin author's own; one that is nearly ours is misspelt.
                near = difflib.get_close_matches(kind, MEDIA_KINDS, n=1)
                if kind not in MEDIA_KINDS and near:
                    raise PluginError(f"'{self.name}' {field_name} '{kind}'", f"did you mean '{near[0]}'?")


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec(Spec):
    """An RL algorithm: one `step(ctx)` per iteration."""

    needs: frozenset[Capability] = frozenset()
    """Capabilities that policy and rewards must offer; checked before any weight is read."""
    compares: Literal["", "advantages", "samples"] = ""
    """What it compares within a prompt, so that one sample of each is refused before any weight is read: `samples`
    always, `advantages` where `train.advantage = "group"`. Empty: nothing."""
    learning_rate_scale: float = 1.0
    """Factor on the learning rate that a policy names in its `run`, which is chosen for policy gradients. Losses of the
    forward process that also push away from bad samples need about a tenth of it. A rate in a preset, a run file or
    `--set` is taken as it is. PluginError if it is not a finite number above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.learning_rate_scale < math.inf:
            raise PluginError(
                f"'{self.name}' has the learning_rate_scale {self.learning_rate_scale}", "give a finite number above 0"
            )


@dataclass(frozen=True, kw_only=True)
class PolicySpec(Spec):
    """A generative model seen as a K-step Markov chain."""

    offers: frozenset[Capability] = frozenset()
    emits: str = "audio"
    """Media kind of its samples: `audio`, `image` or `vector`."""
    pretrain: str = ""
    """`package.module:function` behind `rlzoo pretrain`, if the policy can be trained from data."""
    tune: str = ""
    """`package.module:function` behind `rlzoo tune-schedule`: (voice, data, steps, *, out, utterances, textgrids,
    device, on_trial) -> one result per K with `num_steps`, `distance`, `untuned`. Empty: no schedule to tune."""
    run: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values of the run file's tables that suit this policy, such as `{"train": {"learning_rate": 0.01}}`: it knows how
    many numbers it trains, how large they are and what a sample costs. Everything else of a run overrides them."""


@dataclass(frozen=True, kw_only=True)
class RewardSpec(Spec):
    """A score of samples; higher is better."""

    offers: frozenset[Capability] = frozenset()
    accepts: frozenset[str] = frozenset({"audio"})
    """Media kinds it can score."""
    fallback: str = ""
    """Reward to use, with a warning, if this one's weights are unavailable; empty: refuse."""
    available: str = ""
    """`package.module:function(options) -> bool`, torch-free: are its weights available without a download? Empty: they
    are if its option `checkpoint` names a file or the cache has all of `assets`."""
    train: str = ""
    """`package.module:function(pairs, out, options, say) -> dict` behind `rlzoo reward train-preference`, where the
    reward can be trained from people's choices."""


@dataclass(frozen=True, kw_only=True)
class PromptSpec(Spec):
    """A set of prompts with a training and a held-out part."""


@dataclass(frozen=True, kw_only=True)
class ObserverSpec(Spec):
    """Sees a run and cannot change it: a logger, such as TensorBoard."""


class Hooks:
    """The hooks of the entry-point group `rlzoo`. All of them only announce."""

    @hookspec
    def rlzoo_algorithms(self) -> Iterable[AlgorithmSpec]:
        """Yield the algorithms this plugin provides."""
        return ()

    @hookspec
    def rlzoo_policies(self) -> Iterable[PolicySpec]:
        """Yield the policies this plugin provides."""
        return ()

    @hookspec
    def rlzoo_rewards(self) -> Iterable[RewardSpec]:
        """Yield the rewards this plugin provides."""
        return ()

    @hookspec
    def rlzoo_prompts(self) -> Iterable[PromptSpec]:
        """Yield the prompt sets this plugin provides."""
        return ()

    @hookspec
    def rlzoo_observers(self) -> Iterable[ObserverSpec]:
        """Yield the observers this plugin provides."""
        return ()


__all__ = [
    "API_VERSION",
    "KINDS",
    "AlgorithmSpec",
    "Asset",
    "Capability",
    "Clip",
    "Hooks",
    "Kind",
    "ObserverSpec",
    "Options",
    "PolicySpec",
    "PromptSpec",
    "RewardSpec",
    "Spec",
    "hookimpl",
    "hookspec",
]
