"""Contract of every plugin of any kind: a light announcement, sound options, a target of the right class."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import PathFinder
from typing import Any

from pydantic import ValidationError

from rlzoo.core.specs import AlgorithmSpec, ObserverSpec, PolicySpec, PromptSpec, RewardSpec, Spec
from rlzoo.testing.results import Broken, Skipped

Check = Callable[[Spec], None]


def announces_lightly(spec: Spec) -> None:
    """Importing the package loads neither torch nor numpy, so that the command line answers at once."""
    package = spec.target.split(":")[0].split(".")[0]
    if package in sys.modules and PathFinder.find_spec(package, sys.path) is None:
        raise Skipped("a one-file plugin is imported only by commands that name it")
    found = "sorted({'torch', 'torchaudio', 'numpy', 'soundfile'} & set(sys.modules))"
    code = f"import sys; sys.path[:] = {sys.path!r}; import {package}; print(*{found})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Broken(f"importing '{package}' fails: {done.stderr.strip().splitlines()[-1]}")
    if done.stdout.strip():
        raise Broken(f"importing '{package}' loads {done.stdout.strip()}; import them in the target's module instead")


def describes_itself(spec: Spec) -> None:
    """A one-line summary; a stable plugin also names where its method is published."""
    if not spec.summary or "\n" in spec.summary:
        raise Broken("`summary` must be one line of text")
    if spec.tier == "stable" and not spec.reference:
        raise Broken("a stable plugin must name its `reference`")


def documents_its_options(spec: Spec) -> None:
    """Every option has a docstring below it."""
    silent = [name for name, field in spec.options.model_fields.items() if not field.description]
    if silent:
        raise Broken(f"no docstring below: {', '.join(silent)}")


def closes_its_options(spec: Spec) -> None:
    """Unknown options are refused, and options cannot be changed once made."""
    config = spec.options.model_config
    if config.get("extra") != "forbid" or not config.get("frozen"):
        raise Broken('options must keep extra="forbid" and frozen=True of rlzoo.plugin.Options')


def has_immutable_defaults(spec: Spec) -> None:
    """No default is a list, a set or a dictionary, which one run could change for the next."""
    mutable = [n for n, field in spec.options.model_fields.items() if isinstance(field.default, list | set | dict)]
    if mutable:
        raise Broken(
            f"mutable default of: {', '.join(mutable)}; use a tuple, a frozenset or Field(default_factory=dict)"
        )


def has_valid_defaults(spec: Spec) -> None:
    """Default values pass the options' own checks."""
    required = [name for name, field in spec.options.model_fields.items() if field.is_required()]
    defaults = spec.options.model_construct().model_dump(exclude=set(required), warnings=False)
    try:
        spec.options.model_validate(defaults)
    except ValidationError as error:
        wrong = [e for e in error.errors() if e["type"] != "missing"]
        if wrong:
            raise Broken(f"default of '{wrong[0]['loc'][0]}': {wrong[0]['msg']}") from error


def points_at_its_class(spec: Spec) -> None:
    """`target` can be imported, is a class of the plugin's kind and leaves nothing abstract."""
    from rlzoo.config.registry import import_target
    from rlzoo.core.algorithm import Algorithm
    from rlzoo.core.observer import RunObserver
    from rlzoo.core.policy import Policy
    from rlzoo.core.prompts import PromptSet
    from rlzoo.core.reward import Reward

    target = import_target(spec.target, f"plugin '{spec.name}'", spec.extra)
    kinds: dict[type[Spec], type[Any]] = {
        AlgorithmSpec: Algorithm,
        PolicySpec: Policy,
        RewardSpec: Reward,
        PromptSpec: PromptSet,
        ObserverSpec: RunObserver,
    }
    expected = kinds.get(type(spec))
    if expected is not None and not (inspect.isclass(target) and issubclass(target, expected)):
        raise Broken(f"'{spec.target}' is not a subclass of rlzoo.api.{expected.__name__}")
    missing = sorted(getattr(target, "__abstractmethods__", ()))
    if missing:
        raise Broken(f"'{spec.target}' does not implement {', '.join(missing)}")


def has_valid_presets(spec: Spec) -> None:
    """Every file under the package's `presets/` is a run file that this plugin's options accept."""
    from rlzoo.config.layers import preset_tables, presets
    from rlzoo.config.schema import CORE_TABLES

    for name in presets(spec):
        tables = preset_tables(spec, name)
        try:
            spec.options.model_validate(tables.get("algorithm", {}))
            for table, model in CORE_TABLES.items():
                model.model_validate(tables.get(table, {}))
        except ValidationError as error:
            wrong = error.errors()[0]
            raise Broken(f"preset '{name}', {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from error


CHECKS: Sequence[Check] = (
    announces_lightly,
    describes_itself,
    documents_its_options,
    closes_its_options,
    has_immutable_defaults,
    has_valid_defaults,
    has_valid_presets,
    points_at_its_class,
)
