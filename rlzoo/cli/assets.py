"""`rlzoo assets`: the weight files that plugins announce, and the cache they are kept in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from rlzoo.engine.console import columns, out
from rlzoo.errors import ConfigError, DataError, PluginError
from rlzoo.files import assets
from rlzoo.files.assets import Asset

if TYPE_CHECKING:
    from rlzoo.config.registry import Registry

app = typer.Typer(help="Weight files: what there is, fetch, verify, locate.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(help="Names as in `rlzoo assets list`.", show_default=False)]


def announced(registry: Registry) -> dict[str, tuple[Asset, list[str]]]:
    """Every asset and the plugins that use it. PluginError when two files go by one name."""
    found: dict[str, tuple[Asset, list[str]]] = {}
    for specs in registry.specs.values():
        for spec in specs.values():
            for asset in spec.assets:
                known, users = found.setdefault(asset.name, (asset, []))
                if known != asset:
                    raise PluginError(
                        f"'{users[0]}' and '{spec.name}' announce different files under the name '{asset.name}'",
                        "one of the two plugins has to rename its asset",
                    )
                users.append(spec.name)
    return dict(sorted(found.items()))


def _chosen(names: list[str]) -> list[Asset]:
    from rlzoo.config.registry import did_you_mean, discover

    known = announced(discover())
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown asset '{name}'", did_you_mean(name, known) or "see `rlzoo assets list`")
    return [known[name][0] for name in names]


def _state(asset: Asset) -> str:
    if assets.cached(asset):
        return "here"
    part = asset.path.with_name(asset.path.name + ".part")
    return f"{part.stat().st_size / asset.size:.0%} fetched" if part.exists() else "not fetched"


@app.command("list")
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable, with addresses and checksums.")] = False,
) -> None:
    """List name, size, state, users, licence and source of every weight file."""
    from rlzoo.config.registry import discover

    known = announced(discover())
    if as_json:
        rows = [
            {
                "name": asset.name,
                "used_by": users,
                "url": asset.url,
                "sha256": asset.sha256,
                "size": asset.size,
                "licence": asset.licence,
                "commercial_use": asset.commercial_use,
                "source": asset.source,
                "path": str(asset.path),
                "cached": assets.cached(asset) is not None,
            }
            for asset, users in known.values()
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    if not known:
        out.print("No plugin announces a weight file.")
        return
    table = [("name", "size", "state", "used by", "licence", "source")]
    for asset, users in known.values():
        size = f"{asset.size / 1e6:,.1f} MB"
        table.append((asset.name, size, _state(asset), ", ".join(users), asset.terms(), asset.source))
    out.print(columns(table))
    out.print(f"\nKept in {assets.cache_dir()} (RLZOO_CACHE sets another place)")


@app.command()
def pull(
    names: Names,
    force: Annotated[bool, typer.Option("--force", help="Fetch again even if it is there.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not use the network; fail if one is missing.")] = False,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds to wait for the server.")] = 30.0,
) -> None:
    """Fetch weight files into the cache. A broken download is continued."""
    for asset in _chosen(names):
        if (there := assets.cached(asset)) is not None and not force:
            out.print(f"{asset.name} is here: {there}")
            continue
        without_network = offline or assets.is_offline()
        if not without_network:
            assets.announce(asset)
        with assets.bar(asset) as progress:
            path = assets.fetch(asset, offline=without_network, force=force, progress=progress, timeout_seconds=timeout)
        out.print(f"{asset.name}: {path}")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names; default: all files in the cache.")] = None,
) -> None:
    """Compare size and SHA-256 of cached files with the published values; exit 4 if one differs."""
    from rlzoo.config.registry import discover

    chosen = _chosen(names) if names else [a for a, _ in announced(discover()).values() if a.path.exists()]
    failures: list[DataError] = []
    for asset in chosen:
        try:
            out.print(f"{asset.name}: good, {assets.verify(asset)}")
        except DataError as error:
            failures.append(error)
            out.print(f"{asset.name}: BAD, {error.message}")
    if not chosen:
        out.print(f"Nothing is cached in {assets.cache_dir()}.")
    if failures:
        raise DataError(f"{len(failures)} of {len(chosen)} files are not as published", failures[0].hint)


@app.command()
def path(name: Annotated[str, typer.Argument(help="Name as in `rlzoo assets list`.")]) -> None:
    """Print the path of a weight file; exit 4 if it is missing."""
    (asset,) = _chosen([name])
    if assets.cached(asset) is None:
        raise DataError(f"'{name}' is not at '{asset.path}'", f"run `rlzoo assets pull {name}`")
    typer.echo(asset.path)
