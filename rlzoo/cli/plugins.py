"""`rlzoo plugins`: which there are, what one takes, whether it keeps its contract, a skeleton for a new one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlzoo.cli._shared import PluginFiles
from rlzoo.core.kinds import KINDS, NOUN, Kind
from rlzoo.engine.console import columns, err, out
from rlzoo.errors import ConfigError, ContractError, PluginError

if TYPE_CHECKING:
    from rlzoo.config.registry import Provider, Registry
    from rlzoo.core.specs import Spec

app = typer.Typer(no_args_is_help=True, help="List, inspect and test plugins.")

FAMILIES = ("diffusion", "flow")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_plugins(
    kind: Annotated[str, typer.Option(help=f"Only one kind: {', '.join(KINDS)}.")] = "",
    as_json: AsJson = False,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """List every plugin of this environment, and those that failed to load."""
    from rlzoo.config.registry import discover

    registry = discover(files=plugin)
    kinds = [k for k in KINDS if kind in ("", k)]
    if not kinds:
        raise ConfigError(f"unknown kind '{kind}'", f"available: {', '.join(KINDS)}")
    if as_json:
        found = [describe(registry, k, name) for k in kinds for name in registry.names(k)]
        out.print(json.dumps({"plugins": found, "providers": [_provider(p) for p in registry.providers]}, indent=2))
        return
    rows = [("KIND", "NAME", "TIER", "FROM", "PAPER", "SUMMARY")]
    for k in kinds:
        for name in registry.names(k):
            spec, provider = registry.specs[k][name], registry.provider(k, name)
            source = f"{provider.distribution} {provider.version}".strip()
            rows.append((k, name, spec.tier, source, spec.reference or "-", spec.summary))
    out.print(columns(rows))
    for provider in registry.providers:
        if provider.disabled:
            err.print(f"switched off: {provider.name}, {provider}")
        elif provider.error:
            err.print(f"failed to load: {provider.name}, {provider}: {provider.error}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A plugin's name.")],
    kind: Annotated[str, typer.Option(help="Its kind, if two kinds share the name.")] = "",
    as_json: AsJson = False,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Show one plugin: what it is, what it needs or offers, its options and presets."""
    from rlzoo.config.registry import discover

    registry = discover(files=plugin)
    found, _ = find(registry, name, kind)
    facts = describe(registry, found, name)
    if as_json:
        out.print(json.dumps(facts, indent=2))
        return
    options = facts.pop("options")
    out.print(columns([(key, str(", ".join(v) if isinstance(v, list) else v)) for key, v in facts.items() if v]))
    out.print("\noptions:" if options else "\nno options")
    for option in options:
        out.print(f"  {option['name']} = {json.dumps(option['default'])}  ({option['type']})\n      {option['help']}")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A plugin's name, or the name of one that failed to load.")],
    kind: Annotated[str, typer.Option(help="Its kind, if two kinds share the name.")] = "",
    only: Annotated[str, typer.Option("-k", help="Only the checks whose name contains this text.")] = "",
    stop: Annotated[bool, typer.Option("-x", help="Stop at the first check that fails.")] = False,
    as_json: AsJson = False,
    plugin: PluginFiles = [],  # noqa: B006
) -> None:
    """Check one plugin against the contract of its kind; exit 3 if it violates it."""
    from rlzoo.config.registry import did_you_mean, discover, import_target

    registry = discover(files=plugin)
    for provider in registry.providers:
        if provider.name == name and provider.error:
            err.print(provider.traceback.rstrip())
            raise PluginError(f"{provider} failed to load: {provider.error}")
    found, spec = find(registry, name, kind)
    if spec.extra:  # what is not installed breaks no contract
        import_target(spec.target, f"{NOUN[found]} '{name}'", spec.extra)
    from rlzoo import testing

    results = testing.check_plugin(spec, only, stop=stop)
    if not results:
        names = [check for check, _ in testing.checks_of(spec)]
        raise ConfigError(
            f"no check's name contains '{only}'", did_you_mean(only, names) or f"available: {', '.join(names)}"
        )
    if as_json:
        out.print(json.dumps([{"check": r.check, "outcome": r.outcome, "detail": r.detail} for r in results], indent=2))
    else:
        for result in results:
            lines = result.detail.splitlines()
            out.print(f"{result.outcome:8}  {result.check}", *(f"\n            {line}" for line in lines), sep="")
    failed = [r.check for r in results if r.outcome == "failed"]
    if failed:
        raise ContractError(f"{NOUN[found]} '{name}' breaks its contract: {', '.join(failed)}", "see the lines above")


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="The plugin's name, such as my-reward.")],
    out_dir: Annotated[Path, typer.Option("--out", help="Folder to make the package in.")] = Path("."),
    family: Annotated[str, typer.Option(help="Family of a policy: diffusion (the default) or flow.")] = "",
) -> None:
    """Write an installable package for a new plugin, with a test of its contract."""
    from rlzoo.config.registry import did_you_mean

    if kind not in KINDS:
        raise ConfigError(f"unknown kind '{kind}'", did_you_mean(kind, KINDS) or f"available: {', '.join(KINDS)}")
    if family and (kind != "policy" or family not in FAMILIES):
        raise ConfigError(f"{kind} has no family '{family}'", f"a policy has one of: {', '.join(FAMILIES)}")
    from rlzoo.cli._scaffold import write

    folder = write(kind, name, out_dir, family)
    out.print(f"written: {folder}\ninstall it: pip install -e {folder}\ncheck it:   rlzoo plugins check {name}")


def find(registry: Registry, name: str, kind: str = "") -> tuple[Kind, Spec]:
    """The one plugin of this name. ConfigError if there is none or more than one."""
    from rlzoo.config.registry import did_you_mean

    found = [(k, spec) for k, spec in registry.find(name) if kind in ("", k)]
    if len(found) > 1:
        raise ConfigError(f"'{name}' is {' and '.join(NOUN[k] for k, _ in found)}", "say which with --kind")
    if found:
        return found[0]
    if kind:
        return next(k for k in KINDS if k == kind), registry.get(next(k for k in KINDS if k == kind), name)
    for provider in registry.providers:
        if provider.name == name and provider.error:
            raise PluginError(f"{provider} failed to load: {provider.error}", f"rlzoo plugins check {name}")
    names = [n for k in KINDS for n in registry.names(k)]
    raise ConfigError(f"unknown plugin '{name}'", did_you_mean(name, names) or "see `rlzoo plugins list`")


def describe(registry: Registry, kind: Kind, name: str) -> dict[str, Any]:
    """Everything a plugin's record says, as JSON values."""
    from rlzoo.config.layers import presets
    from rlzoo.core.specs import AlgorithmSpec, PolicySpec, RewardSpec

    spec, provider = registry.specs[kind][name], registry.provider(kind, name)
    facts: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "tier": spec.tier,
        "summary": spec.summary,
        "reference": spec.reference,
        "from": str(provider),
        "target": spec.target,
    }
    if isinstance(spec, AlgorithmSpec):
        facts["needs"] = sorted(spec.needs)
        scale = spec.learning_rate_scale
        facts["learning rate"] = "" if scale == 1 else f"{scale:g} of the policy's"
    if isinstance(spec, PolicySpec):
        facts |= {"offers": sorted(spec.offers), "emits": spec.emits, "pretrain": spec.pretrain, "tune": spec.tune}
    if isinstance(spec, RewardSpec):
        facts |= {"offers": sorted(spec.offers), "accepts": sorted(spec.accepts), "fallback": spec.fallback}
    facts["assets"] = [f"{a.name} ({a.size / 1e6:,.1f} MB, {a.terms()})" for a in spec.assets]
    facts["presets"] = presets(spec)
    facts["expected failures"] = [f"{check}: {why}" for check, why in spec.expected_failures.items()]
    schema = spec.options.model_json_schema().get("properties", {})
    facts["options"] = [
        {"name": key, "type": option_type(value), "default": value.get("default"), "help": value.get("description", "")}
        for key, value in schema.items()
    ]
    return facts


def option_type(schema: dict[str, Any]) -> str:
    """A JSON schema's property in words: `number, > 0, < 1`."""
    if "anyOf" in schema:
        return " or ".join(option_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if schema.get("type") == "null":
        return "unset"
    kind = str(schema.get("const", schema.get("format", schema.get("type", "table"))))
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    return ", ".join([kind, *(f"{sign} {_number(schema[key])}" for key, sign in bounds.items() if key in schema)])


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e9 else f"2^{value.bit_length() - 1}" if isinstance(value, int) else f"{value}"


def _provider(provider: Provider) -> dict[str, Any]:
    return {
        "name": provider.name,
        "module": provider.module,
        "distribution": provider.distribution,
        "version": provider.version,
        "milliseconds": round(provider.milliseconds, 2),
        "error": provider.error,
        "disabled": provider.disabled,
    }
