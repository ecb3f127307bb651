"""Peak memory of a long utterance of the base network on the CPU.

    python benchmarks/speed/long.py [--seconds 20] [--steps 50] [--out DIR]
    python benchmarks/speed/long.py --gradient [--seconds 10] [--out DIR]

The first samples it in so many steps, in tiles and in one piece, each in a process of its own, and fails where the two
differ by more than 1e-5 of their norm; it takes a while. The second takes a gradient with and without activation
checkpointing, and fails where the two differ at all.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch
from measure import difference, machine, peak_memory
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
from sides import Apart, Case

from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.engine.estimate import Memory

CPU = torch.device("cpu")


def sample(frames: int, steps: int) -> dict[str, float]:
    """The whole chain, in tiles and in one piece."""
    case = Case(f"{steps} steps", "sampling", PRESETS["base"], (frames,), steps)
    found, results = {"steps": float(steps)}, []
    for how in ("in_tiles", "in_one_piece"):
        work = Apart(case, "ours")
        if how == "in_one_piece":
            work.in_one_piece()
        started = time.perf_counter()
        results.append(torch.as_tensor(work.result()))
        found |= {f"seconds_{how}": time.perf_counter() - started, f"peak_gb_{how}": work.peak()}
        work.close()
    return found | {"difference": difference(results[0], results[1])}


def gradient(frames: int) -> dict[str, float]:
    """Forward and backward with activation checkpointing, then without; `live` counts tensors, `peak` all there is."""
    keep_freed_memory()
    config, generator = PRESETS["base"], torch.Generator().manual_seed(0)
    decoder: Any = WaveGrad2Network(config, init=False).decoder
    noisy = torch.randn(1, frames * config.hop, generator=generator)
    hidden = torch.randn(1, config.hidden_channels, frames, generator=generator)
    found, grads = {"peak_gb_before": peak_memory(CPU)}, []
    for how, decoder.recompute in (("checkpointed", True), ("plain", False)):
        started = time.process_time()
        with Memory() as memory:
            loss = decoder(noisy, hidden, torch.tensor([0.5])).square().mean()
            grads.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(decoder.parameters()))]))
            del loss
        found[f"cpu_seconds_{how}"] = time.process_time() - started
        found[f"live_gb_{how}"] = memory.most() / 1e9
        found[f"peak_gb_{how}"] = peak_memory(CPU)
    return found | {"difference": difference(*grads)}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--gradient", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    frames, allowed = round(arguments.seconds * PRESETS["base"].frame_rate), 0.0 if arguments.gradient else 1e-5
    found = gradient(frames) if arguments.gradient else sample(frames, arguments.steps)
    found = {"seconds": arguments.seconds, **found}
    about = machine(CPU) | {"command": shlex.join(["python", *sys.argv])}
    print(json.dumps(found, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "long-gradient.json" if arguments.gradient else "long.json"
    (arguments.out / name).write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
    if found["difference"] > allowed:
        raise SystemExit(f"the two differ by {found['difference']:.1e}")


if __name__ == "__main__":
    main()
