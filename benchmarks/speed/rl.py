"""An RL step against the loop people copy: gradient variance times seconds, from the same noise.

    python benchmarks/speed/rl.py [--voice base|shipped|...] [--algorithm ddpo|dlpo] [--windows 16,32] [--device cuda]
    python benchmarks/speed/rl.py --policy gradtts [--prompts 6 --samples 6]       # the voice that ships, plain DDPO

`plain_loop.py` is the copied loop, ours is the engine's own step of the algorithm. Each has its own process, so that
the plain one has the allocator that a program has by default, and memory is each loop's own. In a turn all draw the
same noise for the same rows: gradients of rows without padding must agree, or the benchmark ends, and variances are
compared in pairs. An estimator's quality is 1 / (trace of the covariance of its gradient x median seconds): being
twice as fast and having half the variance count alike. The reward is the level, which costs next to nothing: a dearer
one adds the same seconds to all.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks" / "speed")]

import engine_runs  # noqa: E402
from measure import difference, peak_memory, seconds, store  # noqa: E402
from plain_loop import BETA, PlainGradTTS, PlainWaveGrad2  # noqa: E402
from rlzoo_gradtts import GradTTSOptions  # noqa: E402
from rlzoo_gradtts.policy import GradTTSPolicy  # noqa: E402
from rlzoo_prompts import TextOptions  # noqa: E402
from rlzoo_prompts.prompts import TextPrompts  # noqa: E402
from rlzoo_wavegrad2 import WaveGrad2Options  # noqa: E402
from rlzoo_wavegrad2.policy import WaveGrad2Policy  # noqa: E402

from rlzoo.core.precision import use_real_float32  # noqa: E402
from rlzoo.engine.allocator import keep_freed_memory  # noqa: E402
from rlzoo.engine.prompts import Cursor  # noqa: E402
from rlzoo.engine.rollout import rows_of  # noqa: E402

AGREEMENT = 1e-3
"""By how much of its norm our float32 gradient may differ from the literal network's on rows without padding."""

DLPO = {"estimator": "additive", "beta": BETA}
"""The estimator that the plain loop has."""

Loop = Callable[[int], Tensor]


@dataclass(frozen=True)
class Kind:
    """Work of one process."""

    name: str
    ours: bool = False
    keeps_memory: bool = False
    row_by_row: bool = False
    precision: Literal["fp32", "bf16-mixed"] = "fp32"
    window_frames: int = 0


PLAIN = Kind("plain")
APART = Kind("plain, our allocator, row by row", keeps_memory=True, row_by_row=True)
OURS = Kind("ours", ours=True)


def kinds(windows: str) -> list[Kind]:
    """All loops, the windows' lengths in frames with commas between."""
    frames = [int(size) for size in windows.split(",") if size]
    return [
        PLAIN,
        Kind("plain, bf16", precision="bf16-mixed"),
        Kind("plain, our allocator", keeps_memory=True),
        APART,
        OURS,
        *(Kind(f"ours, windows of {n} frames", ours=True, window_frames=n) for n in frames),
        Kind("ours, bf16", ours=True, precision="bf16-mixed"),
        *(Kind(f"ours, bf16, windows of {n} frames", True, precision="bf16-mixed", window_frames=n) for n in frames),
    ]


class _Caught(Exception):
    """Ends a step at its first gradient."""


def ours(kind: Kind, options: argparse.Namespace, folder: Path) -> Loop:
    """The algorithm's step up to its gradient, on the noise of step `n`."""
    algorithm = {"name": options.algorithm} | (DLPO if options.algorithm == "dlpo" else {})
    tables = {
        "policy": {"name": options.policy, **engine_runs.policy_options(options, folder)},
        "algorithm": algorithm,
        "rollout": {
            "prompts_per_step": options.prompts,
            "samples_per_prompt": options.samples,
            "num_steps": options.steps,
        },
        "train": {"window_frames": kind.window_frames, "micro_batch": options.micro_batch},
    }
    made = engine_runs.live(folder, tables, options.device, kind.precision)
    ctx = made.ctx

    def caught() -> float:
        raise _Caught

    def gradient(n: int) -> Tensor:
        ctx.step, ctx.cursor.position, ctx.metrics = n, 0, {}
        ctx.generator.manual_seed(n)
        ctx.apply_gradients = caught  # type: ignore[method-assign]
        with suppress(_Caught):
            made.algorithm.step(ctx)
        found = ctx.optimisation.gradient(ctx.fabric)
        ctx.optimizer.zero_grad(set_to_none=True)
        return found

    return gradient


def plain(kind: Kind, options: argparse.Namespace, folder: Path) -> Loop:
    """The copied loop on the same rows and noise."""
    prompts = Cursor(
        TextPrompts(TextOptions(path=folder / "lines.txt", heldout_path=folder / "heldout.txt")).train(), 0
    )
    everyone = prompts.take(options.prompts)
    rows = rows_of(everyone, range(options.prompts), options.samples, 0, 0).prompts
    batch, half = 1 if kind.row_by_row else len(rows), kind.precision == "bf16-mixed"
    chosen = engine_runs.policy_options(options, folder)
    loop: PlainGradTTS | PlainWaveGrad2
    if options.policy == "gradtts":
        policy = GradTTSPolicy(GradTTSOptions(**chosen)).to(options.device)
        loop = PlainGradTTS(policy, rows, options.algorithm, options.steps, batch, half)
    else:
        wavegrad2 = WaveGrad2Policy(WaveGrad2Options(**chosen)).to(options.device)
        loop = PlainWaveGrad2(wavegrad2, rows, options.algorithm, options.steps, batch, half)
    return lambda n: loop.gradient(rows_of(everyone, range(options.prompts), options.samples, 0, n).seeds)


def work(kind: Kind, options: argparse.Namespace, folder: Path, turns: Path, numbers: range) -> None:
    """One loop's process: leaves the gradient, the seconds and the peak memory of each turn in files."""
    if kind.keeps_memory:
        keep_freed_memory()
    use_real_float32()
    device = torch.device(options.device)
    loop = (ours if kind.ours else plain)(kind, options, folder)
    if device.type == "cuda":
        loop(numbers.start)  # compiles
    for n in numbers:
        found: list[Tensor] = []
        spent = seconds(lambda n=n, found=found: found.append(loop(n)), device)
        torch.save(found[0], turns / f"{n:03d} {kind.name}.pt")
        text = json.dumps({"seconds": spent, "peak_gb": peak_memory(device)})
        (turns / f"{n:03d} {kind.name}.json").write_text(text)
        print(f"turn {n}, {kind.name}: {text}", flush=True)


def take_turns(loops: Sequence[Kind], options: argparse.Namespace, folder: Path, turns: Path) -> None:
    """`--repeats` turns of each loop, behind those that are in `turns`. One process after the other.

    Two at once would wait for one another's threads, and each would have half of the memory.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit threads and the allocator's state
    first = len(list(turns.glob(f"* {loops[-1].name}.json")))
    for kind in loops:
        process = context.Process(
            target=work, args=(kind, options, folder, turns, range(first, first + options.repeats))
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"the loop '{kind.name}' failed")


def summary(loops: Sequence[Kind], turns: Path) -> dict[str, dict[str, Any]]:
    """Seconds, variance with its standard error, both against the plain loop's, and distance from `APART`."""
    numbers = range(len(list(turns.glob(f"* {loops[-1].name}.json"))))

    def gradients(kind: Kind) -> Tensor:
        return torch.stack([torch.load(turns / f"{n:03d} {kind.name}.pt") for n in numbers])

    found: dict[str, dict[str, Any]] = {}
    apart = gradients(APART)
    for kind in loops:
        mine = gradients(kind)
        variance, error = spread(mine)
        timed = [json.loads((turns / f"{n:03d} {kind.name}.json").read_text()) for n in numbers]
        taken = torch.tensor([turn["seconds"] for turn in timed])
        found[kind.name] = {
            "seconds": float(taken.median()),
            "seconds_range": [float(taken.min()), float(taken.max())],
            "variance": variance,
            "variance_error": error,
            "difference": max(map(difference, mine, apart)),
            "peak_gb": max(turn["peak_gb"] for turn in timed),
            "turns": len(numbers),
        }
    base = found[PLAIN.name]
    for values in found.values():
        values["faster"] = base["seconds"] / values["seconds"]
        values["relative_variance"] = values["variance"] / base["variance"]
        values["quality"] = values["faster"] / values["relative_variance"]
    return found


def spread(gradients: Tensor) -> tuple[float, float]:
    """(R, P) gradients -> trace of their covariance, and its standard error by leaving one out."""
    R = len(gradients)
    if R < 2:
        return math.nan, math.nan
    squares = (gradients - gradients.mean(0)).square().sum(1).double()
    if R < 3:
        return float(squares.sum()) / (R - 1), math.nan
    # The k-th left out: the sum of squares falls by R / (R - 1) times its own.
    jack = (squares.sum() - squares * R / (R - 1)) / (R - 2)
    return float(squares.sum()) / (R - 1), math.sqrt((R - 1) / R * float((jack - jack.mean()).square().sum()))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    head = [
        "loop",
        "s",
        "times as fast",
        "variance of plain's",
        "variance x time, times as good",
        "peak GB",
        "difference",
    ]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, r in results.items():
        rows.append(
            f"| {name} | {r['seconds']:.4g} | {r['faster']:.2f} | {r['relative_variance']:.3g} | {r['quality']:.2f} "
            f"| {r['peak_gb']:.2f} | {r['difference']:.1e} |"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="wavegrad2", choices=("wavegrad2", "gradtts"))
    parser.add_argument("--voice", default="base", help="shipped, or a preset with random weights")
    parser.add_argument("--algorithm", default="ddpo", choices=("ddpo", "dlpo"))
    parser.add_argument("--trainable", default="denoiser", choices=("biases", "denoiser"))
    parser.add_argument("--windows", default="32", help="window lengths in frames, comma between; empty: none")
    parser.add_argument("--prompts", type=int, default=4, choices=range(1, 9))
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--micro-batch", type=int, help="our rows at once in a gradient; default: the policy's, 0 is all"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns; fewer than 3 give no median")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="names of loops, `;` between; three are always there")
    parser.add_argument("--turns", type=Path, default=None, help="keep all gradients here; another call goes on")
    parser.add_argument("--out", type=Path, default=None, help="stem of the .json and .md to write")
    options = parser.parse_args()
    if options.micro_batch is None:
        options.micro_batch = 0 if options.policy == "gradtts" else 1
    if options.policy == "gradtts":
        options.windows = ""
        if options.algorithm != "ddpo":
            parser.error("--policy gradtts has a plain loop for ddpo only")
    chosen = {PLAIN.name, APART.name, OURS.name, *options.only.split(";")}
    loops = [kind for kind in kinds(options.windows) if not options.only or kind.name in chosen]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        engine_runs.policy_options(options, folder)  # makes the voice before the processes look for it
        engine_runs.lines(folder, options.prompts)
        turns = options.turns or folder / "turns"
        turns.mkdir(parents=True, exist_ok=True)
        take_turns(loops, options, folder, turns)
        results = summary(loops, turns)
    print(table(results))
    off = results[OURS.name]["difference"]
    if off > AGREEMENT:
        raise SystemExit(f"our gradient and the literal network's are {off:.1e} of their norm apart")
    if options.out is not None:
        store(options.out, "RL step", table(results), torch.device(options.device), results=results)


if __name__ == "__main__":
    main()
