"""How fast the WaveGrad 2 network and the rewards are, next to a literal implementation in the same run.

    python benchmarks/speed/run.py [--device cpu|cuda] [--quick] [--only denoiser,sampling,...] [--out DIR]

Prints a Markdown table and stores it, with the figures as JSON, in `benchmarks/speed/results/`. Every pair takes turns
and is compared for equal outputs; a difference above the tolerance ends the benchmark.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from measure import difference, flops, interleaved, machine, matmul_ceiling, peak_memory, synchronise
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
from torch import Tensor

from rlzoo._allocator import keep_freed_memory

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from plain.wavegrad2 import denoise

TOLERANCE = {"fp32": 1e-4, "bf16": 5e-2}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """One comparison. `audio` seconds of audio, `gflop` of the literal implementation, `ceiling` GFLOP/s."""

    what: str
    precision: str
    literal: float
    ours: float
    difference: float
    audio: float
    gflop: float
    ceiling: float
    memory: float

    @property
    def utilisation(self) -> float:
        """The literal implementation's operations per second of ours, over the ceiling."""
        return self.gflop / self.ours / self.ceiling

    def cells(self) -> list[str]:
        """As in the table."""
        rate = self.audio / self.ours
        return [
            self.what,
            self.precision,
            f"{self.literal:.4g}",
            f"{self.ours:.4g}",
            f"{self.literal / self.ours:.2f}",
            f"{rate:.3g}",
            f"{100 * self.utilisation:.0f} %",
            f"{self.memory:.2f}",
            f"{self.difference:.1e}",
        ]


HEAD = ["what", "precision", "literal s", "ours s", "ratio", "audio-s per s", "utilisation", "peak GB", "difference"]


class Bench:
    """The device, the networks, and what was measured so far."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats, self.rows = device, repeats, list[Row]()
        self.ceilings: dict[str, float] = {}
        self._networks: dict[str, WaveGrad2Network] = {}

    def network(self, preset: str) -> WaveGrad2Network:
        """Random weights; orthogonal ones take 20 s to draw and are no faster or slower."""
        if preset not in self._networks:
            torch.manual_seed(0)
            self._networks[preset] = WaveGrad2Network(PRESETS[preset], init=False).to(self.device).eval()
        return self._networks[preset]

    def inputs(self, preset: str, frames: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy rows (B, L), hidden (B, H, T), levels (B,) and frames (B,)."""
        config, generator = PRESETS[preset], torch.Generator().manual_seed(1)
        noisy = torch.randn(len(frames), max(frames) * config.hop, generator=generator)
        hidden = torch.randn(len(frames), config.hidden_channels, max(frames), generator=generator)
        level = torch.linspace(0.2, 0.9, len(frames))
        given = (noisy, hidden, level, torch.tensor(frames))
        return tuple(x.to(self.device) for x in given)  # type: ignore[return-value]

    def compare(self, what: str, calls: dict[str, Callable[[], Tensor]], audio: float, precision: str = "fp32") -> None:
        """Time `literal` and `ours` in turns and hold their results against each other."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        expected = calls["literal"]()
        gflop = flops(calls["literal"]) / 1e9
        taken = interleaved(calls, self.repeats, self.device)
        off = difference(calls["ours"](), expected)
        if off > TOLERANCE[precision]:
            raise SystemExit(f"{what}, {precision}: results differ by {off:.1e}, allowed is {TOLERANCE[precision]:.0e}")
        if precision not in self.ceilings:
            self.ceilings[precision] = matmul_ceiling(self.device, DTYPES[precision])
        ceiling = self.ceilings[precision] / 1e9
        memory = peak_memory(self.device)
        self.rows.append(Row(what, precision, taken["literal"], taken["ours"], off, audio, gflop, ceiling, memory))
        print("|", " | ".join(self.rows[-1].cells()), "|", flush=True)


def literal(bench: Bench, preset: str, noisy: Tensor, hidden: Tensor, level: Tensor) -> Tensor:
    """The whole padded batch through the specification, float32, eager: what public code does."""
    return denoise(dict(bench.network(preset).decoder.named_parameters()), PRESETS[preset], noisy, hidden, level)


def masked(x: Tensor, frames: Tensor, hop: int) -> Tensor:
    return x * (torch.arange(x.shape[1], device=x.device) < frames[:, None] * hop)


def rows_apart(bench: Bench, preset: str, noisy: Tensor, hidden: Tensor, level: Tensor, frames: Tensor) -> Tensor:
    """The literal result without what padding does to it: each row by itself."""
    hop, out = PRESETS[preset].hop, torch.zeros_like(noisy)
    for row, n in enumerate(frames.tolist()):
        part = literal(
            bench, preset, noisy[row : row + 1, : n * hop], hidden[row : row + 1, :, :n], level[row : row + 1]
        )
        out[row, : n * hop] = part[0]
    return out


def ours(bench: Bench, preset: str, precision: str) -> Callable[..., Tensor]:
    """Our denoiser; on a GPU compiled with CUDA graphs."""
    network = bench.network(preset).decoder
    run: Callable[..., Tensor] = network
    if bench.device.type == "cuda":
        run = torch.compile(network, mode="reduce-overhead", dynamic=False)

    def call(*args: Tensor) -> Tensor:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=precision == "bf16"):
            # A graph's outputs are overwritten by its next call.
            return run(*args).float().clone()

    return call


def denoiser(bench: Bench, quick: bool) -> None:
    """One forward pass: growth with batch, length and parameters."""
    cases = [("mini", 1, 1.0), ("mini", 4, 1.0), ("base", 1, 1.0)]
    if not quick:
        cases += [("base", 1, 3.0), ("base", 4, 3.0)]
    if bench.device.type == "cuda":
        cases += [("base", 16, 3.0), ("large", 16, 3.0)]
    for preset, batch, length in cases:
        frames = [round(length * PRESETS[preset].frame_rate)] * batch
        noisy, hidden, level, _ = bench.inputs(preset, frames)
        for precision in ("fp32", "bf16") if bench.device.type == "cuda" else ("fp32",):
            call = ours(bench, preset, precision)
            with torch.no_grad():
                what = f"denoiser {preset}, {batch} x {length:g} s"
                calls = {
                    "literal": lambda p=preset, x=(noisy, hidden, level): literal(bench, p, *x),
                    "ours": lambda c=call, x=(noisy, hidden, level): c(*x),
                }
                bench.compare(what, calls, batch * length, precision)


def chain(
    step: Callable[[Tensor, Tensor], Tensor], noisy: Tensor, steps: int, keep: Callable[[Tensor], Tensor]
) -> Tensor:
    """`steps` deterministic steps (DDIM), so that both sides see the same numbers. The host never waits inside."""
    levels = torch.linspace(0.3, 0.99, steps + 1, device=noisy.device)
    x = noisy
    for k in range(steps):
        now, then = levels[k], levels[k + 1]
        eps = keep(step(x, now.expand(len(x)))) * 0.1  # random weights: keep the chain from growing
        clean = ((x - (1 - now**2).sqrt() * eps) / now).clamp(-1, 1)
        x = then * clean + (1 - then**2).sqrt() * eps
    return keep(x)


def sampling(bench: Bench, quick: bool) -> None:
    """The K-step chain: eight rows of mixed lengths, one short one, on a GPU sixteen of 3 s; growth with K."""
    cases: list[tuple[str, str, list[float], int]] = [
        ("mini", "8 mixed lengths", [0.5 + 0.25 * i for i in range(8)], 10)
    ]
    short = ("base", "1 x 0.8 s", [0.8], 4 if quick else 10)
    cases.append(short)
    if not quick:
        cases.append(("base", "8 mixed lengths", [0.5 + 0.15 * i for i in range(8)], 10))
    if bench.device.type == "cuda":
        cases += [("base", "16 x 3 s", [3.0] * 16, steps) for steps in (10, 50)]
    for preset, name, lengths, steps in cases:
        frames = [round(length * PRESETS[preset].frame_rate) for length in lengths]
        noisy, hidden, _, valid = bench.inputs(preset, frames)
        hop = PRESETS[preset].hop
        noisy = masked(noisy, valid, hop)
        for precision in ("fp32", "bf16") if bench.device.type == "cuda" else ("fp32",):
            call = ours(bench, preset, precision)
            args = (preset, noisy, hidden, valid, hop, steps)
            with torch.no_grad():
                calls = {"literal": _literal_chain(bench, *args), "ours": _our_chain(call, *args[1:])}
                _compare_chains(bench, f"{steps} steps {preset}, {name}", calls, args, sum(lengths), precision)


def _literal_chain(
    bench: Bench, preset: str, noisy: Tensor, hidden: Tensor, valid: Tensor, hop: int, steps: int
) -> Any:
    return lambda: chain(
        lambda x, level: literal(bench, preset, x, hidden, level), noisy, steps, lambda x: masked(x, valid, hop)
    )


def _our_chain(call: Callable[..., Tensor], noisy: Tensor, hidden: Tensor, valid: Tensor, hop: int, steps: int) -> Any:
    return lambda: chain(lambda x, level: call(x, hidden, level, valid), noisy, steps, lambda x: masked(x, valid, hop))


def _compare_chains(bench: Bench, what: str, calls: Any, args: Any, audio: float, precision: str) -> None:
    """The literal batch sees its padding, which changes results: it is timed as it is and compared row by row."""
    preset, noisy, hidden, valid, hop, steps = args
    apart = chain(
        lambda x, level: rows_apart(bench, preset, x, hidden, level, valid),
        noisy,
        steps,
        lambda x: masked(x, valid, hop),
    )
    timed = calls["literal"]
    first = iter([lambda: apart])

    def stand_in() -> Tensor:
        # `compare` takes its expectation from the first call; the later ones are what is timed.
        result: Tensor = next(first, timed)()
        return result

    bench.compare(what, {"literal": stand_in, "ours": calls["ours"]}, audio, precision)


def training(bench: Bench, quick: bool) -> None:
    """Forward and backward of the denoiser's L1 loss on windows, and the gradient of every weight."""
    cases = [("mini", 8, 50)] + ([] if quick else [("base", 2, 74)])
    if bench.device.type == "cuda":
        cases.append(("base", 16, 256))
    for preset, batch, frames in cases:
        noisy, hidden, level, _ = bench.inputs(preset, [frames] * batch)
        decoder = bench.network(preset).decoder
        parameters = list(decoder.parameters())

        def gradients(out: Tensor, parameters: list[torch.nn.Parameter] = parameters) -> Tensor:
            grads = torch.autograd.grad((out - 0.3).square().mean(), parameters)
            return torch.cat([grad.flatten() for grad in grads])

        for precision in ("fp32", "bf16") if bench.device.type == "cuda" else ("fp32",):
            call = ours(bench, preset, precision)
            calls = {
                "literal": lambda p=preset, x=(noisy, hidden, level), g=gradients: g(literal(bench, p, *x)),
                "ours": lambda c=call, x=(noisy, hidden, level), g=gradients: g(c(*x)),
            }
            audio = batch * frames / PRESETS[preset].frame_rate
            bench.compare(f"training step {preset}, {batch} x {frames} frames", calls, audio, precision)


PARTS: dict[str, Callable[[Bench, bool], None]] = {"denoiser": denoiser, "sampling": sampling, "training": training}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    arguments = parser.parse_args()
    keep_freed_memory()
    # A literal float32 baseline: no TF32 behind its back.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    bench = Bench(torch.device(arguments.device), arguments.repeats)
    print("|", " | ".join(HEAD), "|\n|", " | ".join("---" for _ in HEAD), "|", flush=True)
    for part in arguments.only.split(","):
        PARTS[part](bench, arguments.quick)
    synchronise(bench.device)
    about = machine(bench.device) | {"command": shlex.join(["python", *sys.argv]), "ceilings": bench.ceilings}
    arguments.out.mkdir(parents=True, exist_ok=True)
    alone = "" if arguments.only == parser.get_default("only") else "-" + arguments.only.replace(",", "-")
    stem = arguments.out / f"{bench.device.type}{alone}{'-quick' if arguments.quick else ''}"
    found = [asdict(row) | {"ratio": row.literal / row.ours, "utilisation": row.utilisation} for row in bench.rows]
    stem.with_suffix(".json").write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n", encoding="utf-8")
    table = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in bench.rows)]
    notes = "\n".join(f"* {key}: {value}" for key, value in about.items())
    text = f"# Speed\n\n{notes}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n"
    stem.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
