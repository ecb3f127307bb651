"""A run directory back to the run it describes, without running what somebody else wrote into it. Light."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rlzoo.config.registry import Registry, discover
from rlzoo.config.resolve import Choice, ResolvedRun
from rlzoo.core.kinds import NOUN
from rlzoo.errors import DataError
from rlzoo.files.rundir import RunDirectory

Use = Literal["policy", "rewards", "algorithm", "prompts", "observers"]
EVERYTHING: tuple[Use, ...] = ("policy", "rewards", "algorithm", "prompts", "observers")


def open_run(rundir: RunDirectory, *, uses: Sequence[Use] = EVERYTHING, trust: bool = False) -> ResolvedRun:
    """The run of a directory, its one-file plugins loaded. `uses`: what of it will be built.

    DataError if the directory was not written by this user on this machine and using it would run or contact what it
    names; with `trust` it does. ConfigError, PluginError as `ResolvedRun.from_dict`.
    """
    config = rundir.config()
    files = [Path(name) for name in config.get("plugin_files", ())]
    trusted = trust or rundir.is_own()
    if files and not trusted:
        # Those that are installed, too: who trusts the run trusts all that it names.
        installed = discover()
        named = [text for table in _tables(config, uses) for text in _named_acts(table, installed)]
        raise _foreign(rundir, [*(f"load the plugin '{file}'" for file in files), *named])
    registry = discover(files=files)
    run = ResolvedRun.from_dict(config, registry)
    if not trusted:
        acts = [text for choice in _choices(run, uses) for text in _acts(choice, registry)]
        if acts:
            raise _foreign(rundir, acts)
    return run


def _choices(run: ResolvedRun, uses: Sequence[Use]) -> Iterator[Choice[Any]]:
    for use in uses:
        found = getattr(run, use)
        yield from found if isinstance(found, tuple) else (found,)


def _acts(choice: Choice[Any], registry: Registry) -> Iterator[str]:
    """Side effects of a plugin, and of plugins that its options name, such as parts of a composite reward."""
    options = choice.options.model_dump(mode="json")
    if choice.spec.acts:
        yield f"{choice.spec.acts} ('{choice.spec.name}', {_shown(options)})"
    yield from _named_acts(options, registry, choice.spec.name)


def _tables(config: Mapping[str, Any], uses: Sequence[Use]) -> Iterator[Mapping[str, Any]]:
    """The plugins' tables of an unresolved config."""
    for use in uses:
        found = config.get(use)
        yield from (table for table in (found if isinstance(found, list) else [found]) if isinstance(table, Mapping))


def _named_acts(options: Mapping[str, Any], registry: Registry, inside: str = "") -> Iterator[str]:
    """Side effects of the plugins that a table names."""
    for name in dict.fromkeys(_texts(options)):
        for kind, spec in registry.find(name):
            if spec.acts:
                who = f"{NOUN[kind]} '{name}' in '{inside}'" if inside else f"'{name}'"
                yield f"{spec.acts} ({who}, {_shown(options)})"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _shown(options: Mapping[str, Any]) -> str:
    text = ", ".join(
        f"{key} = {value!r}" for key, value in options.items() if key in ("command", "url", "parts", "function")
    )
    text = text or repr(dict(options))
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _foreign(rundir: RunDirectory, acts: Sequence[str]) -> DataError:
    return DataError(
        f"'{rundir.path}' was not made by you on this machine, and this would {'; '.join(acts)}; nothing was run",
        "look at what it names, and add --trust if you would run it yourself",
    )


__all__ = ["EVERYTHING", "Use", "open_run"]
