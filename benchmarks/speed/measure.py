"""Timing that is fair on a shared machine: what is compared takes turns, and medians are reported."""

from __future__ import annotations

import json
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]


def synchronise(device: torch.device) -> None:
    """Wait until everything that was started has ended."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Call, device: torch.device) -> float:
    """Seconds of one call: CUDA events on a GPU, the clock on a CPU."""
    if device.type != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    synchronise(device)
    begin.record()
    call()
    end.record()
    synchronise(device)
    return float(begin.elapsed_time(end)) / 1000


def interleaved(calls: Mapping[str, Call], repeats: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each call; one untimed turn, then `repeats` turns of all."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            spent = seconds(call, device)
            if turn:
                taken[name].append(spent)
    return {name: statistics.median(values) for name, values in taken.items()}


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product: what the arithmetic could reach."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / interleaved({"mm": lambda: torch.mm(a, b)}, 5, device)["mm"]


def flops(call: Call) -> int:
    """Floating-point operations of the convolutions and products in a call, as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def peak_memory(device: torch.device) -> float:
    """GB: the process's most so far on a CPU, the allocator's most since its reset on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9


def difference(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def machine(device: torch.device) -> dict[str, Any]:
    """Machine and versions of the figures."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "processor": name,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or None,
    }


def store(stem: Path, title: str, table: str, device: torch.device, **found: Any) -> None:
    """Write STEM.json with what was found, and STEM.md with the table; both say on what machine and by what command."""
    about = machine(device) | {"command": shlex.join(["python", *sys.argv])} | found.pop("about", {})
    stem.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"about": about, **found}, indent=1)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    notes = "\n".join(f"* {key}: {value}" for key, value in about.items())
    stem.with_suffix(".md").write_text(f"# {title}\n\n{notes}\n\n{table}\n", encoding="utf-8")
