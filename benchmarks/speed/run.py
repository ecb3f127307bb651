"""Speed of the WaveGrad 2 network, next to a literal implementation in the same run.

    python benchmarks/speed/run.py [--device cpu|cuda] [--quick] [--only denoiser,sampling,...] [--out DIR]

Prints a Markdown table and stores it, with the figures as JSON, in `benchmarks/speed/results/`. The sides take turns,
on a CPU each in a process of its own (`sides.py` says why); results that differ by more than the tolerance end the
benchmark.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import difference, store
from rlzoo_wavegrad2.network import PRESETS
from sides import Apart, Case, Side, Work

from rlzoo.core.precision import use_real_float32

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
PATIENCE = 45.0
"""Seconds after which a case has had turns enough, if it has had two."""


@dataclass(frozen=True)
class Row:
    """One case: seconds of each side and what they were compared for."""

    what: str
    precision: str
    literal: float
    configured: float
    ours: float
    turns: int
    difference: float
    audio: float
    """Seconds."""
    gflop: float
    """GFLOP of the literal implementation."""
    own_gflop: float
    """GFLOP of ours, with its transforms; 0 if they were not counted."""
    ceiling: float
    """GFLOP/s of a large matrix product in our process."""
    peaks: dict[str, float]
    """GB of each side."""

    def reached(self, seconds: float, gflop: float) -> str:
        """Operations a second over the ceiling."""
        return f"{100 * gflop / seconds / self.ceiling:.0f} %"

    def cells(self) -> list[str]:
        """As in the table."""
        return [
            self.what,
            self.precision,
            f"{self.literal:.4g}",
            f"{self.configured:.4g}",
            f"{self.ours:.4g}",
            f"{self.literal / self.ours:.2f}",
            f"{self.configured / self.ours:.2f}",
            f"{self.audio / self.ours:.3g}",
            self.reached(self.literal, self.gflop),
            self.reached(self.configured, self.gflop),
            self.reached(self.ours, self.gflop),
            self.reached(self.ours, self.own_gflop),
            " / ".join(f"{self.peaks[side]:.2f}" for side in ("literal", "configured", "ours") if side in self.peaks),
            f"{self.difference:.1e}",
        ]


HEAD = [
    *("what", "precision", "literal s", "configured s", "ours s", "ratio", "to configured", "audio-s per s"),
    *("literal reaches", "configured reaches", "ours reaches", "in own operations", "peak GB", "difference"),
]


def compare(case: Case, device: torch.device, repeats: int) -> Row:
    """Measure a case on every side."""
    groups: list[list[Side]] = [["literal", "configured", "ours"]]
    if device.type == "cuda":
        groups = [["literal", "ours"]]
    elif case.crowded:
        groups = [["literal", "ours"], ["configured", "ours"]]
    found: dict[str, Any] = {}
    peaks: dict[Side, float] = {}
    for group in groups:
        make = Apart if device.type == "cpu" else partial(Work, device=device)
        works: dict[Side, Any] = {side: make(case, side) for side in group}
        taken, facts = in_turns(case, works, repeats, count_ours=device.type == "cpu")
        # A second group has measured ours again: what it adds is brought to the speed that ours had in the first.
        scale = found["ours"] / taken["ours"] if found else 1.0
        found = {side: seconds * scale for side, seconds in taken.items()} | facts | found
        for side, work in works.items():
            peaks[side] = work.peak()
            work.close()
    found.setdefault("configured", found["literal"])  # a GPU's allocator is nobody's to configure here
    return Row(case.what, case.precision, audio=case.audio, peaks=peaks, **found)


def in_turns(
    case: Case, works: Mapping[Side, Any], repeats: int, count_ours: bool
) -> tuple[dict[Side, float], dict[str, Any]]:
    """Median seconds of each side, and what else there is to know."""
    # What a compiler has made does not like its operations to be counted.
    first = {
        side: work.first() if side != "ours" or count_ours else (work.result(), 0.0) for side, work in works.items()
    }
    (expected, gflop), (found, own_gflop) = first[next(iter(works))], first["ours"]
    off = difference(torch.as_tensor(found), torch.as_tensor(expected))
    if off > TOLERANCE[case.precision]:
        allowed = TOLERANCE[case.precision]
        raise SystemExit(f"{case.what}, {case.precision}: results differ by {off:.1e}, allowed is {allowed:.0e}")
    taken: dict[Side, list[float]] = {side: [] for side in works}
    ceilings, started = [works["ours"].ceiling()], time.perf_counter()
    while len(ceilings) <= repeats and not (len(ceilings) > 2 and time.perf_counter() - started > PATIENCE):
        for side, work in works.items():
            taken[side].append(work.seconds())
            time.sleep(0.05)  # the threads of the last one look for work a little longer
        ceilings.append(works["ours"].ceiling())
    medians = {side: statistics.median(seconds) for side, seconds in taken.items()}
    facts = {"difference": off, "gflop": gflop, "own_gflop": own_gflop, "turns": len(ceilings) - 1}
    return medians, facts | {"ceiling": statistics.median(ceilings)}


def cases(device: str, quick: bool) -> list[Case]:
    """Growth with batch, length, steps and parameters."""
    mini, base, large = (PRESETS[name] for name in ("mini", "base", "large"))

    def frames(config: Any, *lengths: float) -> tuple[int, ...]:
        return tuple(round(length * config.frame_rate) for length in lengths)

    mixed = [0.5 + 0.25 * i for i in range(8)], [0.3 + 0.1 * i for i in range(8)]
    made = [
        Case("denoiser mini, 1 x 1 s", "denoiser", mini, frames(mini, 1)),
        Case("denoiser mini, 4 x 1 s", "denoiser", mini, frames(mini, *[1] * 4)),
        Case("denoiser base, 1 x 1 s", "denoiser", base, frames(base, 1)),
        Case("10 steps mini, 8 mixed lengths", "sampling", mini, frames(mini, *mixed[0]), 10),
        Case("training step mini, 8 x 50 frames", "training", mini, (50,) * 8),
    ]
    if not quick:
        made += [
            Case("denoiser base, 1 x 3 s", "denoiser", base, frames(base, 3)),
            Case("denoiser base, 4 x 3 s", "denoiser", base, frames(base, *[3] * 4)),
            Case("4 steps base, 1 x 0.8 s", "sampling", base, frames(base, 0.8), 4),
            Case("10 steps base, 1 x 0.8 s", "sampling", base, frames(base, 0.8), 10),
            Case("10 steps base, 8 mixed lengths", "sampling", base, frames(base, *mixed[1]), 10),
            Case("training step base, 4 x 256 frames", "training", base, (256,) * 4, crowded=True),
        ]
    if device != "cuda":
        return made
    made += [
        Case("denoiser base, 16 x 3 s", "denoiser", base, frames(base, *[3] * 16)),
        Case("denoiser large, 16 x 3 s", "denoiser", large, frames(large, *[3] * 16)),
        *(Case(f"{n} steps base, 16 x 3 s", "sampling", base, frames(base, *[3] * 16), n) for n in (10, 50)),
        Case("training step base, 16 x 256 frames", "training", base, (256,) * 16),
    ]
    return [replace(case, precision=precision) for case in made for precision in ("fp32", "bf16")]


def main() -> None:
    """Measure, print, store."""
    kinds = ("denoiser", "sampling", "training")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--only", default=",".join(kinds), help="kinds of cases")
    parser.add_argument("--match", default="", help="only cases with this in their names")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    # A literal float32 baseline: no TF32 behind its back.
    use_real_float32()
    print("|", " | ".join(HEAD), "|\n|", " | ".join("---" for _ in HEAD), "|", flush=True)
    rows = []
    for case in sorted(cases(device.type, arguments.quick), key=lambda case: kinds.index(case.kind)):
        if case.kind in arguments.only.split(",") and arguments.match in case.what:
            rows.append(compare(case, device, arguments.repeats))
            print("|", " | ".join(rows[-1].cells()), "|", flush=True)
    alone = "" if arguments.only == parser.get_default("only") else "-" + arguments.only.replace(",", "-")
    stem = arguments.out / f"{device.type}{alone}{'-quick' if arguments.quick else ''}"
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    store(stem, "Speed", table, device, rows=[asdict(row) for row in rows])


if __name__ == "__main__":
    main()
