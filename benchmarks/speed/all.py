"""Every speed benchmark, one after the other, in one table of contents: what a new machine runs.

    python benchmarks/speed/all.py [--device cpu|cuda] [--quick] [--only denoiser,rl,...] [--out DIR]

Each part is a script of its own (README.md) in a process of its own; what it prints is kept in `DIR/<device>-all.md`. A
part that fails is named at the end, and the others are run all the same.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measure import machine

HERE = Path(__file__).resolve().parent
REWARDS = "dnsmos,dnsmos-bfloat16,dnsmos-p835,dnsmos-p835-bfloat16,guard,utmos,utmos-bfloat16,similarity"
"""Those whose weights are here, or whose speed random weights have too."""


def clips(folder: Path, count: int) -> Path:
    """Noise of 1 to 8 s, for rewards whose time does not depend on what they hear."""
    from rlzoo.audio import write_audio

    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        wave = 0.1 * torch.randn(16_000 * (1 + number), generator=generator).clamp(-9, 9)
        write_audio(folder / f"{number}.wav", wave, 16_000)
    return folder


def parts(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """Name of each part -> its command, without the interpreter."""
    device, quick = ["--device", options.device], ["--quick"] if options.quick else []
    out = ["--out", str(options.out)]
    small = ["--voice", "shipped", "--prompts", "2", "--steps", "2", "--repeats", "2", "--windows", "25"]
    rl = small if options.quick else ["--micro-batch", "0"] if options.device != "cpu" else []
    rewards = ["--speed", "--random-weights", "--rewards", "dnsmos,guard" if options.quick else REWARDS]
    long = ["--seconds", "2"] if options.quick else []
    found = {"denoiser": ["run.py", *device, *quick, *out]}
    for algorithm in ("ddpo", "dlpo"):
        stem = options.out / f"{torch.device(options.device).type}-rl-{algorithm}{'-quick' if options.quick else ''}"
        found[f"rl-{algorithm}"] = ["rl.py", "--algorithm", algorithm, *rl, *device, "--out", str(stem)]
    found["algorithms"] = ["algorithms.py", "--precisions", "fp32,bf16-mixed", *device, *quick, *out]
    found["growth"] = ["algorithms.py", "--grow", *device, *quick, *out]
    found["rewards"] = ["../rewards.py", str(clips(folder, 2 if options.quick else 8)), *rewards, *device]
    if options.device == "cpu":
        found["long"] = ["long.py", *long, *out]
        found["long-gradient"] = ["long.py", "--gradient", *(long or ["--seconds", "10"]), *out]
    return found


def main() -> None:
    """Run, print, collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="small inputs, to see that everything works")
    parser.add_argument("--only", default="", help="parts, comma between; empty: all")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    failed, text = [], ["# Speed, all parts", ""]
    text += [f"* {key}: {value}" for key, value in machine(torch.device(options.device)).items()]
    with tempfile.TemporaryDirectory() as folder:
        for name, (script, *rest) in parts(options, Path(folder)).items():
            if options.only and name not in options.only.split(","):
                continue
            print(f"\n== {name}", flush=True)
            started = time.monotonic()
            command = [sys.executable, str(HERE / script), *rest]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ, check=False)
            print(done.stdout, flush=True)
            text += ["", f"## {name}, {time.monotonic() - started:.0f} s", "", *_tables(done.stdout)]
            if done.returncode:
                failed.append(name)
                text.append(f"failed with exit code {done.returncode}")
            report = options.out / f"{torch.device(options.device).type}-all{'-quick' if options.quick else ''}.md"
            report.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"\n{report}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _tables(printed: str) -> list[str]:
    """The rows of tables in what a part printed, and nothing else it said."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return lines or printed.splitlines()


if __name__ == "__main__":
    main()
