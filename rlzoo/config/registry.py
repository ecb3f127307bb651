"""Registry of plugins: discovery through entry points, isolation of broken ones, look-up by name. Light.

Every entry point of the group `rlzoo` is loaded and validated on its own; only what is valid as a whole is merged. A
broken plugin therefore costs nobody else anything, and its error is kept for the moment somebody asks for it.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import pluggy

from rlzoo.core.fault import describe_fault
from rlzoo.core.kinds import KINDS, NOUN, Kind
from rlzoo.core.specs import (
    API_VERSION,
    AlgorithmSpec,
    Hooks,
    ObserverSpec,
    Options,
    PolicySpec,
    PromptSpec,
    RewardSpec,
    Spec,
)
from rlzoo.errors import ConfigError, PluginError
from rlzoo.files.assets import at_hand

GROUP = "rlzoo"
"""Entry-point group in which distributions announce their plugin packages."""

SPEC_CLASS: Mapping[Kind, type[Spec]] = {
    "algorithm": AlgorithmSpec,
    "policy": PolicySpec,
    "reward": RewardSpec,
    "prompts": PromptSpec,
    "observer": ObserverSpec,
}
HOOK: Mapping[Kind, str] = {
    "algorithm": "rlzoo_algorithms",
    "policy": "rlzoo_policies",
    "reward": "rlzoo_rewards",
    "prompts": "rlzoo_prompts",
    "observer": "rlzoo_observers",
}

# Keys of the run file that are core's; an option of the same name could never be set.
RESERVED: Mapping[Kind, frozenset[str]] = {
    "algorithm": frozenset({"name"}),
    "policy": frozenset({"name"}),
    "reward": frozenset({"name", "weight", "on_missing", "requested"}),
    "prompts": frozenset({"name"}),
    "observer": frozenset({"name"}),
}

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Provider:
    """One entry point or plugin file: where it comes from, what it provides, or why it provides nothing."""

    name: str
    module: str
    distribution: str
    version: str
    milliseconds: float = 0.0
    """Import time."""
    provides: tuple[tuple[Kind, str], ...] = ()
    error: str = ""
    """One line; empty if it loaded."""
    traceback: str = ""
    disabled: bool = False

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip() + f" ({self.module})"


@dataclass
class Registry:
    """Announcements of all plugins in this environment."""

    specs: dict[Kind, dict[str, Spec]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    providers: list[Provider] = field(default_factory=list)
    contested: dict[tuple[Kind, str], tuple[Provider, Provider]] = field(default_factory=dict)
    strict: bool = False
    """Raise the first load error instead of recording it."""

    def names(self, kind: Kind) -> list[str]:
        """Names of a kind, sorted."""
        return sorted(self.specs[kind])

    def provider(self, kind: Kind, name: str) -> Provider:
        """Who provides a registered name."""
        return next(p for p in self.providers if (kind, name) in p.provides and not p.error)

    def find(self, name: str) -> list[tuple[Kind, Spec]]:
        """Every kind that has this name."""
        return [(kind, self.specs[kind][name]) for kind in KINDS if name in self.specs[kind]]

    def get(self, kind: Kind, name: str) -> Spec:
        """The record of a plugin. ConfigError for a name nobody provides, PluginError if its provider is broken."""
        if (kind, name) in self.contested:
            first, second = self.contested[kind, name]
            raise PluginError(
                f"{NOUN[kind]} '{name}' is announced twice: by {first} and by {second}",
                f"uninstall one of them, or leave one out with RLZOO_DISABLE_PLUGINS={second.name}",
            )
        if name in self.specs[kind]:
            return self.specs[kind][name]
        raise self._explain_missing(kind, name)

    def algorithm(self, name: str) -> AlgorithmSpec:
        """The record of an algorithm; errors as `get`."""
        return cast(AlgorithmSpec, self.get("algorithm", name))

    def policy(self, name: str) -> PolicySpec:
        """The record of a policy; errors as `get`."""
        return cast(PolicySpec, self.get("policy", name))

    def reward(self, name: str) -> RewardSpec:
        """The record of a reward; errors as `get`."""
        return cast(RewardSpec, self.get("reward", name))

    def prompts(self, name: str) -> PromptSpec:
        """The record of a prompt set; errors as `get`."""
        return cast(PromptSpec, self.get("prompts", name))

    def _explain_missing(self, kind: Kind, name: str) -> ConfigError | PluginError:
        noun = NOUN[kind]
        wanted = {name, f"rlzoo_{name.replace('-', '_')}"}
        for provider in self.providers:
            if not wanted & {provider.name, provider.module}:
                continue
            if provider.disabled:
                return PluginError(
                    f"{noun} '{name}' is unavailable: {provider} is switched off by RLZOO_DISABLE_PLUGINS",
                    "unset RLZOO_DISABLE_PLUGINS, or take this name out of it",
                )
            if provider.error:
                return PluginError(
                    f"{noun} '{name}' is unavailable: {provider} failed to load: {provider.error}",
                    f"run `rlzoo plugins check {provider.name}` for the traceback",
                )
        elsewhere = [other for other, _ in self.find(name)]
        if elsewhere:
            hint = f"'{name}' is a {' and a '.join(NOUN[other] for other in elsewhere)}"
        else:
            hint = did_you_mean(name, self.names(kind)) or f"available: {', '.join(self.names(kind)) or 'none'}"
        broken = [provider.name for provider in self.providers if provider.error]
        if broken:
            hint += f"; plugins that failed to load: {', '.join(broken)} (see `rlzoo plugins list`)"
        return ConfigError(f"unknown {noun} '{name}'", hint)

    def add_file(self, path: Path) -> Provider:
        """Load a one-file plugin; PluginError for whatever is wrong with it."""
        path = Path(os.path.realpath(path.expanduser()))  # not `Path.resolve`, which fails for a link to itself
        if not path.is_file():
            raise PluginError(f"plugin file '{path}' does not exist", "give the path of a Python file")
        provider = self._add(path.stem, path.stem, str(path), "", lambda: _import_file(path))
        if provider.error:
            raise PluginError(f"plugin file '{path}' failed to load: {provider.error}", "correct the file")
        return provider

    def add_module(self, module: ModuleType) -> Provider:
        """Register an imported module as a plugin, as tests and notebooks do. PluginError if it is invalid."""
        provider = self._add(module.__name__, module.__name__, "module", "", lambda: module)
        if provider.error:
            raise PluginError(f"module '{module.__name__}' is not a valid plugin: {provider.error}")
        return provider

    def add_entry_point(self, entry: EntryPoint, *, disabled: bool = False) -> Provider:
        """Load one entry point; an error is recorded, or raised where `strict`."""
        distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else ("unknown distribution", "")
        if disabled:
            provider = Provider(entry.name, entry.value, distribution, version, disabled=True)
            self.providers.append(provider)
            return provider
        return self._add(entry.name, entry.value, distribution, version, entry.load)

    def _add(self, name: str, module: str, distribution: str, version: str, load: Callable[[], Any]) -> Provider:
        provider = Provider(name, module, distribution, version)
        started = time.perf_counter()
        try:
            found = _announced(load(), name)
            provider = replace(provider, milliseconds=1e3 * (time.perf_counter() - started))
            self._merge(provider, found)
            provider = replace(provider, provides=tuple((kind, spec.name) for kind, spec in found))
        except (Exception, SystemExit) as error:
            # Not swallowed: kept with the provider, shown by `plugins list`, raised when the plugin is asked for.
            if self.strict:
                raise PluginError(f"plugin '{name}' of {provider} failed to load: {_one_line(error)}") from error
            provider = replace(
                provider,
                milliseconds=1e3 * (time.perf_counter() - started),
                error=_one_line(error),
                traceback="".join(traceback.format_exception(error)),
            )
        self.providers.append(provider)
        return provider

    def _merge(self, provider: Provider, found: list[tuple[Kind, Spec]]) -> None:
        clashes = [(kind, spec.name) for kind, spec in found if spec.name in self.specs[kind]]
        for kind, name in clashes:
            self.contested[kind, name] = (self.provider(kind, name), provider)
        if clashes:
            kind, name = clashes[0]
            raise PluginError(f"{NOUN[kind]} '{name}' is already provided by {self.provider(kind, name)}")
        for kind, spec in found:
            self.specs[kind][spec.name] = spec


def discover(environ: Mapping[str, str] | None = None, files: Iterable[Path] = ()) -> Registry:
    """Load every entry point of the group `rlzoo`, then the given plugin files.

    `RLZOO_DISABLE_PLUGINS=a,b` (or `all`) leaves entry points out; `RLZOO_STRICT_PLUGINS=1` raises the first error.
    """
    environ = os.environ if environ is None else environ
    disabled = {name.strip() for name in environ.get("RLZOO_DISABLE_PLUGINS", "").split(",") if name.strip()}
    registry = Registry(strict=environ.get("RLZOO_STRICT_PLUGINS", "") == "1")
    # Our own first: in a conflict the newcomer is then the one that is turned away, whatever the order on disk.
    entries = sorted(entry_points(group=GROUP), key=lambda e: (e.dist is None or e.dist.name != "rlzoo-speech", e.name))
    for entry in entries:
        registry.add_entry_point(entry, disabled="all" in disabled or entry.name in disabled)
    for path in files:
        registry.add_file(path)
    return registry


def import_target(target: str, owner: str, extra: str = "") -> Any:
    """Import `package.module:attribute` on behalf of `owner`; PluginError if that fails, with the cause chained."""
    module_name, attribute = target.split(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        hint = f"pip install 'rlzoo-speech[{extra}]'" if extra else "run with --debug for the traceback"
        raise PluginError(f"{owner} cannot be imported: {_one_line(error)}", hint) from error
    if not hasattr(module, attribute):
        raise PluginError(f"{owner} names '{target}', but {module_name} has no '{attribute}'", "correct its record")
    return getattr(module, attribute)


def weights_at_hand(spec: PolicySpec | RewardSpec, options: Options) -> bool:
    """True if a plugin's weights are available without a download. Imports what it announces, and no torch."""
    if isinstance(spec, RewardSpec) and spec.available:
        return bool(import_target(spec.available, f"reward '{spec.name}'", spec.extra)(options))
    return at_hand(spec.assets, getattr(options, "checkpoint", None))


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`did you mean 'dlpo'?`, or nothing if no choice is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else ""


def _announced(module: Any, name: str) -> list[tuple[Kind, Spec]]:
    """Everything a plugin module announces, validated. Raises PluginError or pluggy's PluginValidationError."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    manager.register(module, name)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        there = list(HOOK.values())
        unknown = [hook for hook in vars(module) if hook.startswith("rlzoo_") and hook not in there]
        near = did_you_mean(unknown[0], there) if unknown else ""
        raise PluginError(
            f"'{name}' implements the unknown hook '{unknown[0]}'" if unknown else str(error),
            near or f"available: {', '.join(there)}",
        ) from error
    if not manager.get_hookcallers(module):
        raise PluginError(f"'{name}' implements no hook", "mark a function such as rlzoo_rewards() with @hookimpl")
    found: list[tuple[Kind, Spec]] = []
    for kind in KINDS:
        for specs in getattr(manager.hook, HOOK[kind])():
            for spec in specs:
                _validate(kind, spec)
                if any(kind == other and spec.name == seen.name for other, seen in found):
                    raise PluginError(f"{NOUN[kind]} '{spec.name}' is announced twice by the same plugin")
                found.append((kind, spec))
    return found


def _validate(kind: Kind, spec: Any) -> None:
    expected = SPEC_CLASS[kind]
    if not isinstance(spec, expected):
        raise PluginError(f"{HOOK[kind]} yields {type(spec).__name__}, not {expected.__name__}")
    who = f"{NOUN[kind]} '{spec.name}'"
    if spec.api != API_VERSION:
        raise PluginError(f"{who} is written for plugin interface {spec.api}; this rlzoo has {API_VERSION}")
    if not (isinstance(spec.options, type) and issubclass(spec.options, Options)):
        raise PluginError(f"{who} has options that are not a subclass of rlzoo.plugin.Options")
    taken = sorted(RESERVED[kind] & set(spec.options.model_fields))
    if taken:
        raise PluginError(f"{who} has an option '{taken[0]}', which is a key of the run file itself")


def _import_file(path: Path) -> ModuleType:
    # A file that is imported already, under whatever name, is not run twice: its classes would be there twice.
    for loaded in list(sys.modules.values()):
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
    if path.stem in sys.modules:
        raise PluginError(f"a module '{path.stem}' is already imported", "rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"'{path}' is not a Python file", "its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    # Under its own name, so that a record's target `my_algo:MyAlgo` and pickling find it.
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _one_line(error: BaseException) -> str:
    return " ".join((str(error) if isinstance(error, PluginError) else describe_fault(error)).split())
