"""Compare algorithms at an equal number of samples, with the same held-out prompts and noise.

    python examples/compare_algorithms.py [--algos dlpo grpo rwr] [--steps 6] [--seeds 1]

One seed shows how to do it; it does not show which algorithm is better. `rlzoo bench` runs whole grids in parallel,
resumes them, and reports intervals over seeds (docs/benchmark.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import rlzoo


def main() -> None:
    """One run per algorithm and seed; a table of gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algos", nargs="+", default=["dlpo", "grpo", "rwr"])
    parser.add_argument("--reward", default="dnsmos")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/compared"))
    options = parser.parse_args()

    for algo in options.algos:
        gains = []
        for seed in range(options.seeds):
            out = options.out / f"{algo}-{seed}"
            if out.exists():
                run = rlzoo.resume(out, steps=options.steps)
            else:
                run = rlzoo.run(algo=algo, reward=options.reward, steps=options.steps, seed=seed, out=out)
            gains.append(run.gain)
        print(f"{algo:8} gain {fmean(gains):+.3f}  ({', '.join(f'{gain:+.3f}' for gain in gains)})")


if __name__ == "__main__":
    main()
