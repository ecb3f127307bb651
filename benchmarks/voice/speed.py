"""Real-time factor of a voice on the CPU: seconds of computing for a second of speech, text front-end included.

    python benchmarks/voice/speed.py [--policy gradtts] [--voice FILE] [--threads 2] [--steps 6 10 50] [--out DIR]

Wall time on an otherwise idle machine; median of --repeats, and the best. Writes speed.md and speed.json, which hold
nothing that is written by hand.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

import torch
from evaluate import HERE, load, speak

from rlzoo.api import Prompt
from rlzoo.engine.allocator import keep_freed_memory

TEXT = "The quick brown fox jumps over the lazy dog while seven patient engineers listen to it."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="wavegrad2")
    parser.add_argument("--voice", type=Path, help="default: the voice that ships")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 6, 10, 50])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()

    keep_freed_memory()  # as every command of rlzoo does
    torch.set_num_threads(args.threads)
    policy = load(args.policy, args.voice)
    prompt, rate = Prompt("speed", TEXT), policy.media.sample_rate or 0
    rows = []
    for num_steps in args.steps:
        factors = []
        for _ in range(args.repeats + 1):  # the first warms up
            started = time.perf_counter()
            wave = speak(policy, prompt, num_steps, 0)
            factors.append((time.perf_counter() - started) * rate / len(wave))
        rows.append({"steps": num_steps, "median": statistics.median(factors[1:]), "best": min(factors[1:])})
        print(rows[-1], flush=True)
    seconds = len(wave) / rate
    lines = [f"{args.threads} CPU threads, {rate} Hz, one sentence of {seconds:.1f} s, {args.repeats} repeats.", ""]
    lines += ["| denoising steps | real-time factor, median | best |", "|---|---|---|"]
    lines += [f"| {row['steps']} | {row['median']:.3f} | {row['best']:.3f} |" for row in rows]
    lines += ["", f"`{shlex.join(['python', 'benchmarks/voice/speed.py', *sys.argv[1:]])}`"]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (args.out / "speed.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
