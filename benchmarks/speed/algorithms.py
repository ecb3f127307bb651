"""Cost of one RL step of each algorithm, and how a step grows: same prompts, samples and steps, default options.

    python benchmarks/speed/algorithms.py [--policy gradtts|wavegrad2] [--reward distillmos|level] [--only ddpo,dlpo]
    python benchmarks/speed/algorithms.py --grow                  # ddpo with more samples, denoising steps, words

The whole step as a run makes it: sampling, scores, gradients, update; without evaluation, checkpoints and the KL. Each
has a process of its own, so that memory is its own. *Core-seconds* are the processor's time on all cores, what a step
costs where cores are paid for. *Evaluations* are rows through the network, a training one counted once. The reward
`level` costs next to nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import engine_runs
import torch
from measure import peak_memory, seconds, store

from rlzoo.config.registry import discover


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    algorithm: str
    precision: str
    prompts: int
    samples: int
    steps: int
    times_as_long: int = 1


def measured(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and core-seconds of a step, medians, after one that warms up; network evaluations; peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        engine_runs.lines(folder, setting.prompts, setting.times_as_long)
        rollout = {"prompts_per_step": setting.prompts, "samples_per_prompt": setting.samples}
        tables = {
            "policy": {"name": options.policy, **engine_runs.policy_options(options, folder)},
            "algorithm": {"name": setting.algorithm},
            "rollout": {**rollout, "num_steps": setting.steps, "micro_batch": 16},
            "rewards": [{"name": options.reward}],
        }
        made = engine_runs.live(folder, tables, options.device, setting.precision)
        ctx, walls, cores = made.ctx, [], []

        def step() -> None:
            ctx.metrics = {}
            made.algorithm.step(ctx)
            ctx.step += 1

        for turn in range(options.repeats + 1):
            before = time.process_time()
            wall = seconds(step, ctx.device)
            if turn:
                walls.append(wall)
                cores.append(time.process_time() - before)
        ctx.counters.collect(ctx.fabric)
        return {
            **vars(setting),
            "seconds": statistics.median(walls),
            "core_seconds": statistics.median(cores),
            "evaluations": ctx.counters.network_evaluations / ctx.step,
            "peak_gb": peak_memory(ctx.device),
        }


def alone(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """`measured` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (setting, options))


def growth(first: Setting) -> list[Setting]:
    """The first, and with 2 and 4 times as many samples, denoising steps and words."""
    more = [replace(first, samples=first.samples * n) for n in (2, 4)]
    more += [replace(first, steps=first.steps * n) for n in (2, 4)]
    return [first, *more, *(replace(first, times_as_long=n) for n in (2, 4))]


def table(rows: list[dict[str, Any]], grown: bool) -> str:
    """Markdown: seconds next to ddpo's of that precision, or to the first row's."""
    about = "samples | steps | length" if grown else "algorithm | precision"
    lines = [f"| {about} | s | times | core-seconds | evaluations | ms each | peak GB |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    base = {row["precision"]: row["seconds"] for row in rows if row["algorithm"] == "ddpo"}
    for row in rows:
        who = f"{row['algorithm']} | {row['precision']}"
        if grown:
            who = f"{row['prompts'] * row['samples']} | {row['steps']} | {row['times_as_long']}"
        times = row["seconds"] / (rows[0]["seconds"] if grown else base.get(row["precision"], float("nan")))
        each = 1000 * row["seconds"] / max(row["evaluations"], 1)
        lines.append(
            f"| {who} | {row['seconds']:.3g} | {times:.2f} | {row['core_seconds']:.3g} | {row['evaluations']:.0f} "
            f"| {each:.3g} | {row['peak_gb']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="gradtts", choices=("gradtts", "wavegrad2"), help="gradtts: as shipped")
    parser.add_argument("--voice", default="shipped", help="of wavegrad2: shipped, or a preset with random weights")
    parser.add_argument("--trainable", default="biases", choices=("biases", "denoiser"), help="of wavegrad2")
    parser.add_argument("--reward", default="distillmos", choices=("distillmos", "level"))
    parser.add_argument("--only", default="", help="algorithms, comma between; empty: all")
    parser.add_argument("--grow", action="store_true", help="ddpo with more samples, denoising steps and words instead")
    parser.add_argument("--prompts", type=int, default=6, choices=range(1, 9))
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="one repeat of two prompts, samples and steps")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    if options.quick:
        options.prompts = options.samples = options.steps = 2
        options.repeats = 1
    if options.grow:
        settings = growth(Setting("ddpo", "fp32", options.prompts, options.samples, options.steps))
    else:
        names = options.only.split(",") if options.only else sorted(discover().specs["algorithm"])
        size = (options.prompts, options.samples, options.steps)
        settings = [Setting(name, precision, *size) for precision in options.precisions.split(",") for name in names]
    rows = []
    for setting in settings:
        rows.append(alone(setting, options))
        print(f"{setting}: {rows[-1]['seconds']:.3g} s", flush=True)
    print(table(rows, options.grow))
    device = torch.device(options.device)
    stem = f"{device.type}-{'growth' if options.grow else 'algorithms'}{'-quick' if options.quick else ''}"
    title = "Growth of an RL step" if options.grow else "RL step of each algorithm"
    store(options.out / stem, title, table(rows, options.grow), device, rows=rows)


if __name__ == "__main__":
    main()
