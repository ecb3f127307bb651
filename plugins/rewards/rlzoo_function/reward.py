"""From `module:function` to a reward."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from rlzoo.api import Prompt, Reward, RewardFunction, Samples, Scores, reward_from
from rlzoo.errors import PluginError
from rlzoo_function import FunctionOptions


class NamedFunction(Reward[FunctionOptions]):
    """The function that the options name. PluginError if it cannot be imported or is not a function."""

    def __init__(self, options: FunctionOptions) -> None:
        super().__init__(options)
        self.reward = reward_from(load(options.function), sample_rate=options.sample_rate)
        self.sample_rate, self.version = options.sample_rate, self.reward.version

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples and prompts -> (N,). Not differentiable."""
        return self.reward.score(samples, prompts)


def load(text: str) -> RewardFunction:
    """`module:function` or `path/to/file.py:function`, imported. PluginError."""
    where, _, name = text.rpartition(":")
    try:
        found: Any = _file(Path(where)) if where.endswith(".py") else _module(where)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module does when it is imported
        raise PluginError(
            f"the function '{text}' cannot be imported: {type(error).__name__}: {error}",
            "name a module that Python finds, or a file: path/to/file.py:function",
        ) from error
    if not callable(found):
        raise PluginError(
            f"'{text}' is a {type(found).__name__}, not a function", "name a function (samples, prompts) -> scores"
        )
    return cast(RewardFunction, found)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # As with `python -m`, a module in the current folder is found too, but after all others.
        here = str(Path.cwd())
        if error.name != name.split(".")[0] or here in sys.path:
            raise
        sys.path.append(here)
        return importlib.import_module(name)


def _file(path: Path) -> ModuleType:
    for loaded in list(sys.modules.values()):
        # A script that started this run is not run a second time.
        if getattr(loaded, "__file__", None) and Path(str(loaded.__file__)).absolute() == path:
            return loaded
    name = f"rlzoo_function_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
