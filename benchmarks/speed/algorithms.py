"""Seconds of one RL step of each algorithm: same prompts, samples and steps, its default options.

    python benchmarks/speed/algorithms.py [--voice shipped|base|...] [--only ddpo,dlpo] [--device cuda] [--quick]

The whole step as a run makes it: sampling, scores, gradients, update; without evaluation, checkpoints and the KL. The
reward is the level, which costs next to nothing. *Evaluations* are rows through the network, a training one counted
once.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import engine_runs
import torch
from measure import interleaved, peak_memory, store

from rlzoo.config.registry import discover

HEAD = ["algorithm", "precision", "s", "of ddpo's", "evaluations", "ms each", "peak GB"]


def measured(name: str, options: argparse.Namespace, folder: Path, precision: str) -> dict[str, Any]:
    """Seconds of a step, after one that warms up."""
    checkpoint = engine_runs.voice(folder, options.voice)
    tables = {
        "policy": {"name": "wavegrad2", "trainable": options.trainable}
        | ({"checkpoint": str(checkpoint)} if checkpoint else {}),
        "algorithm": {"name": name},
        "rollout": {
            "prompts_per_step": options.prompts,
            "samples_per_prompt": options.samples,
            "num_steps": options.steps,
        },
    }
    made = engine_runs.live(folder, tables, options.device, precision)
    ctx = made.ctx

    def step() -> None:
        ctx.metrics = {}
        made.algorithm.step(ctx)
        ctx.step += 1

    taken = interleaved({name: step}, options.repeats, ctx.device)[name]
    ctx.counters.collect(ctx.fabric)
    evaluations = ctx.counters.network_evaluations / ctx.step
    return {
        "algorithm": name,
        "precision": precision,
        "seconds": taken,
        "evaluations": evaluations,
        "peak_gb": peak_memory(ctx.device),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    base = {row["precision"]: row["seconds"] for row in rows if row["algorithm"] == "ddpo"}
    for row in rows:
        share = row["seconds"] / base[row["precision"]] if row["precision"] in base else float("nan")
        each = 1000 * row["seconds"] / row["evaluations"]
        figures = f"{row['seconds']:.3g} | {share:.2f} | {row['evaluations']:.0f} | {each:.3g} | {row['peak_gb']:.2f}"
        lines.append(f"| {row['algorithm']} | {row['precision']} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", default="shipped", help="shipped, or a preset with random weights")
    parser.add_argument("--only", default="", help="algorithms, comma between; empty: all")
    parser.add_argument("--trainable", default="biases", choices=("biases", "denoiser"))
    parser.add_argument("--prompts", type=int, default=4, choices=range(1, 9))
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", default="fp32,bf16-mixed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="one repeat of two prompts and steps")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    if options.quick:
        options.prompts, options.steps, options.repeats = 2, 2, 1
    names = options.only.split(",") if options.only else sorted(discover().specs["algorithm"])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        engine_runs.lines(folder, options.prompts)
        for precision in options.precisions.split(","):
            for name in names:
                rows.append(measured(name, options, folder, precision))
                print(f"{name}, {precision}: {rows[-1]['seconds']:.3g} s", flush=True)
    print(table(rows))
    device = torch.device(options.device)
    stem = options.out / f"{device.type}-algorithms{'-quick' if options.quick else ''}"
    store(stem, "RL step of each algorithm", table(rows), device, rows=rows)


if __name__ == "__main__":
    main()
