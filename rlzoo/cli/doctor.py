"""`rlzoo doctor`: what is installed, which weights are there, what the main command would do here."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlzoo.engine.console import columns, out
from rlzoo.errors import RlzooError
from rlzoo.files import assets
from rlzoo.version import __version__

if TYPE_CHECKING:
    from rlzoo.config.registry import Registry
    from rlzoo.core.specs import RewardSpec

PACKAGES = ("torch", "torchaudio", "lightning-fabric", "numpy", "soundfile", "pydantic", "onnx", "speechmos")


def doctor(
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu",
            help="Try policies and rewards on the GPU against the CPU, in under three minutes: one page to paste into "
            "an issue. Without a GPU it runs on a stand-in, which finds tensors on the wrong device.",
        ),
    ] = False,
) -> None:
    """Report versions, devices, plugins, weights, and what `rlzoo run --algo dlpo --reward utmos` would use."""
    from rlzoo.config.registry import discover

    registry = discover()
    if gpu:
        _try_gpu(registry)
        return
    problems: list[str] = []
    rows = [("rlzoo", __version__), ("python", f"{platform.python_version()} on {platform.platform()}")]
    rows += [(name, _version(name)) for name in PACKAGES]
    rows += _devices(problems)
    rows += _plugins(registry, problems)
    rows += _weights(registry)
    rows += _run(registry, problems)
    out.print(columns(rows))
    for problem in problems:
        out.print(f"problem: {problem}")
    out.print(f"{len(problems)} problems" if problems else "No problems found.")
    if problems:
        raise typer.Exit(1)


def _try_gpu(registry: Registry) -> None:
    """The page of `--gpu`; exit code 1 where something is not as it should be."""
    import torch

    started = time.monotonic()
    out.print("rlzoo doctor --gpu")
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES[:3])
    out.print(f"rlzoo {__version__}, python {platform.python_version()} on {platform.platform()}, {versions}")
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        capability = f"compute capability {device.major}.{device.minor}"
        out.print(f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {capability}, CUDA {torch.version.cuda}")
        failed = _checked(registry, timed=True)
    else:
        from rlzoo.testing.fakecuda import FakeCuda

        out.print("no GPU here: on a stand-in that computes on the CPU. Devices and agreement are checked, not speed.")
        with FakeCuda() as stand_in:
            failed = _checked(registry, timed=False)
            launches, waits = stand_in.kernels.total(), stand_in.waits.total()
        out.print(f"{launches:,} kernels would have been launched; {waits:,} times the host would have waited")
    out.print(f"{failed or 'nothing'} failed, {time.monotonic() - started:.0f} s; paste this page into an issue")
    if failed:
        raise typer.Exit(1)


def _checked(registry: Registry, timed: bool) -> int:
    import torch

    from rlzoo.engine.gpu_check import check
    from rlzoo.engine.processes import make_fabric

    failed = 0
    for line in check(registry, make_fabric("cuda", "fp32").device, timed):
        failed += line.ok is False
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[line.ok]
        out.print(f"{mark} {line.what}: {line.found}")
    conv = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    out.print(f"-    float32: matrix products {torch.backends.cuda.matmul.fp32_precision}, convolutions {conv}")
    return failed


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _devices(problems: list[str]) -> list[tuple[str, str]]:
    rows = [("cpu", f"{os.cpu_count()} cores")]
    for name in ("torch", "torchaudio"):
        # Broken installations fail here in many ways (missing libraries, another CUDA version); all are reported.
        try:
            importlib.import_module(name)
        except Exception as error:
            problems.append(f"{name} cannot be imported: {type(error).__name__}: {error}")
            return rows
    import torch

    if not torch.cuda.is_available():
        return [*rows, ("gpu", f"none that torch (CUDA {torch.version.cuda or 'none'}) can use")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        rows.append((f"gpu {index}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB"))
    return rows


def _plugins(registry: Registry, problems: list[str]) -> list[tuple[str, str]]:
    for provider in registry.providers:
        if provider.error:
            problems.append(f"plugin {provider.name} of {provider} failed to load: {provider.error}")
    return [(kind, ", ".join(sorted(found)) or "none") for kind, found in registry.specs.items()]


def _weights(registry: Registry) -> list[tuple[str, str]]:
    from rlzoo.core.specs import RewardSpec

    rows = [("cache", f"{assets.cache_dir()}{' (offline)' if assets.is_offline() else ''}")]
    folder = next(parent for parent in (assets.cache_dir(), *assets.cache_dir().parents) if parent.exists())
    rows.append(("free disk", f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB for weights"))
    seen: set[assets.Asset] = set()
    for found in registry.specs.values():
        for spec in found.values():
            for asset in {*spec.assets} - seen:
                seen.add(asset)
                there = "there" if assets.cached(asset) else f"not there, {asset.size / 1e6:,.1f} MB to download"
                rows.append((f"weights {asset.name}", f"{there}; {asset.terms()}"))
            if isinstance(spec, RewardSpec) and not spec.assets:
                rows.append((f"reward {spec.name}", _availability(spec)))
    return rows


def _availability(spec: RewardSpec) -> str:
    from rlzoo.config.registry import weights_at_hand

    if not spec.available:
        return "needs no weights"
    try:
        there = weights_at_hand(spec, spec.options())
    except RlzooError as error:
        return f"cannot be used: {error.message}"
    return "weights are there" if there else "weights are not there"


def _run(registry: Registry, problems: list[str]) -> list[tuple[str, str]]:
    from rlzoo.config.fallback import resolve_missing_rewards
    from rlzoo.config.layers import user_layer
    from rlzoo.config.resolve import resolve

    command = "rlzoo run --algo dlpo --reward utmos"
    try:
        run = resolve(user_layer(algorithm="dlpo", rewards=["utmos"]), registry)
        run, replaced = resolve_missing_rewards(run, registry, fetch=None)
    except RlzooError as error:
        problems.append(f"`{command}` would stop: {error.message}")
        return []
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [(command, f"{run.train.steps} steps on {device}, policy {run.policy.spec.name}, in {Path.cwd() / 'runs'}")]
    for one in replaced:
        how = (
            "unless a download succeeds, " if registry.reward(one.requested).assets and not assets.is_offline() else ""
        )
        rows.append(("", f"reward '{one.requested}': {how}'{one.used}' would be used instead ({one.reason})"))
    return rows
