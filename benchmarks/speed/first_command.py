"""Time split of the first command, rlzoo run --algo dlpo --reward distillmos.

    python benchmarks/speed/first_command.py [--algo draft] [--steps 20] [--device cuda]

The run says when it sampled, scored, evaluated and saved; what lies between is counted to the part that ends it. Start:
from the interpreter to the first evaluation, with imports and weights. Sampling: with decoding, but that of the last
rows of a step is counted to scoring. Training: losses, gradients, updates.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()

import argparse  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from measure import store  # noqa: E402

from rlzoo.engine import start as engine  # noqa: E402
from rlzoo.engine.events import Evaluated, Event, Finished, Note, Observer, Progress, Saved, Started  # noqa: E402

PARTS = {Started: "start", Note: "start", Evaluated: "evaluation", Saved: "checkpoints", Finished: "report"}


class Clock(engine.Silent):
    """Adds up seconds between events."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.last = STARTED

    def heard(self, event: Event) -> None:
        """Count the time since the last event."""
        part = PARTS.get(type(event), "training")
        if isinstance(event, Progress):
            part = {"sampling": "sampling", "scoring": "scoring"}.get(event.phase, "evaluation")
        now = time.monotonic()
        self.spent[part] += now - self.last
        self.last = now

    @contextmanager
    def watch(self, run: Any, directory: Any) -> Iterator[Observer]:
        """The observer of a run."""
        yield self.heard


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", default="dlpo")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    clock, before = Clock(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        prepared = engine.prepare(
            None, algo=options.algo, rewards=["distillmos"], steps=options.steps, device=options.device
        )
        result = engine.start(prepared, Path(folder) / "run", reporter=clock)
    total, cores = sum(clock.spent.values()), time.process_time() - before
    lines = ["| part | s | share |", "|---|---|---|"]
    lines += [f"| {part} | {spent:.1f} | {spent / total:.0%} |" for part, spent in clock.spent.most_common()]
    lines.append(f"| all, {result.steps} steps | {total:.1f} ({cores:.0f} core-seconds) | 100% |")
    table = "\n".join(lines)
    print(table)
    device = torch.device(options.device)
    stem = options.out / f"{device.type}-first-command-{options.algo}"
    store(stem, f"Time split of {options.algo}", table, device, seconds=dict(clock.spent), core_seconds=cores)


if __name__ == "__main__":
    main()
