"""Peak memory of a 20-second utterance of the base network on the CPU, in tiles and in one piece.

    python benchmarks/speed/long.py [--seconds 20] [--steps 1] [--out DIR]

Fails where the two differ by more than 1e-5 of their norm. `--steps 50` evaluates the denoiser fifty times.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
from measure import difference, machine, peak_memory
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network, rows

from rlzoo._allocator import keep_freed_memory

CPU = torch.device("cpu")


@torch.no_grad()
def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    keep_freed_memory()
    config, generator = PRESETS["base"], torch.Generator().manual_seed(0)
    decoder = WaveGrad2Network(config, init=False).decoder
    frames = round(arguments.seconds * config.frame_rate)
    noisy = torch.randn(1, frames * config.hop, generator=generator)
    hidden = torch.randn(1, config.hidden_channels, frames, generator=generator)
    before = peak_memory(CPU)
    for level in torch.linspace(0.2, 0.9, arguments.steps):
        tiled = decoder(noisy, hidden, level[None])
    in_tiles = peak_memory(CPU)
    rows.TILE = noisy.shape[1]
    off = difference(tiled, decoder(noisy, hidden, level[None]))
    found = {
        "seconds": arguments.seconds,
        "steps": arguments.steps,
        "peak_gb_before": before,
        "peak_gb_in_tiles": in_tiles,
        "peak_gb_in_one_piece": peak_memory(CPU),
        "difference": off,
    }
    about = machine(CPU) | {"command": shlex.join(["python", *sys.argv])}
    print(json.dumps(found, indent=1))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "long.json").write_text(json.dumps(about | found, indent=1) + "\n", encoding="utf-8")
    if off > 1e-5:
        raise SystemExit(f"tiles differ from one piece by {off:.1e}")


if __name__ == "__main__":
    main()
