"""Cases of the speed benchmark: one case on one side, the literal network's or ours, in a process of its own.

Public code runs with the allocator that it finds; ours configures it, for the whole process and for good. So the two
cannot share one: each side is measured where nothing of the other is. On a GPU, where this allocator is not used, both
sides are in one process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from measure import flops, matmul_ceiling, peak_memory, seconds
from rlzoo_wavegrad2.network import NetworkConfig, WaveGrad2Network, rows
from torch import Tensor

from rlzoo import parallel
from rlzoo.engine.allocator import keep_freed_memory

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
from plain.wavegrad2 import denoise

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Side = Literal["literal", "configured", "ours"]
"""The literal network as public code runs it, the same with our allocator's settings, and ours."""
Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """`kind` of work on rows of so many `frames`; `steps` of a chain."""

    what: str
    kind: Literal["denoiser", "sampling", "training"]
    config: NetworkConfig
    frames: tuple[int, ...]
    steps: int = 1
    precision: str = "fp32"
    crowded: bool = False
    """True if three sides at once need more than a laptop's memory."""

    @property
    def audio(self) -> float:
        """Seconds of audio, without padding."""
        return sum(self.frames) / self.config.frame_rate


class Work:
    """A case on one side: what there is to ask about it."""

    def __init__(self, case: Case, side: Side, device: torch.device) -> None:
        self.case, self.device = case, device
        torch.manual_seed(0)
        # Random weights; orthogonal ones take 20 s to draw and are no faster or slower.
        self.decoder = WaveGrad2Network(case.config, init=False).to(device).eval().decoder
        generator, count, longest = torch.Generator().manual_seed(1), len(case.frames), max(case.frames)
        noisy = torch.randn(count, longest * case.config.hop, generator=generator)
        hidden = torch.randn(count, case.config.hidden_channels, longest, generator=generator)
        self.valid = torch.tensor(case.frames, device=device)
        self.noisy, self.hidden = self.masked(noisy.to(device)), hidden.to(device)
        self.level = torch.linspace(0.2, 0.9, count, device=device)
        self.step: Step = self._our_step() if side == "ours" else self._literal_step

    def run(self) -> Tensor:
        """The timed work."""
        if self.case.kind == "training":
            return self._gradients()
        with torch.no_grad():
            return self._chain(self.step) if self.case.kind == "sampling" else self.step(self.noisy, self.level)

    def first(self) -> tuple[Any, float]:
        """What it comes to, and the GFLOP of its convolutions and products. Warms up."""
        results: list[Tensor] = []
        if self.case.kind != "sampling":
            gflop = flops(lambda: results.append(self.run())) / 1e9
            return results[0].cpu().numpy(), gflop
        with torch.no_grad():
            gflop = self.case.steps * flops(partial(self.step, self.noisy, self.level)) / 1e9
        return self.result(), gflop

    def result(self) -> Any:
        """What it comes to. The literal batch sees its padding, which changes results: it is compared row by row."""
        if self.case.kind == "sampling" and self.step == self._literal_step:
            with torch.no_grad():
                return self._chain(self._literal_rows).cpu().numpy()
        return self.run().cpu().numpy()

    def seconds(self) -> float:
        """Of one run."""
        return seconds(self.run, self.device)

    def ceiling(self) -> float:
        """GFLOP/s of a large matrix product."""
        return matmul_ceiling(self.device, DTYPES[self.case.precision]) / 1e9

    def peak(self) -> float:
        """GB: the process's most so far."""
        return peak_memory(self.device)

    def in_one_piece(self) -> None:
        """From now on without tiles of time."""
        rows.TILE, parallel.pool = 2**62, nullcontext

    def close(self) -> None:
        """Nothing to end."""

    def masked(self, x: Tensor) -> Tensor:
        """Zeros behind each row's end."""
        samples = self.valid[:, None] * self.case.config.hop
        return x * (torch.arange(x.shape[1], device=x.device) < samples)

    def _literal_step(self, x: Tensor, level: Tensor) -> Tensor:
        """The whole padded batch through the specification, float32, eager: what public code does."""
        return denoise(dict(self.decoder.named_parameters()), self.case.config, x, self.hidden, level)

    def _literal_rows(self, x: Tensor, level: Tensor) -> Tensor:
        weights, hop, out = dict(self.decoder.named_parameters()), self.case.config.hop, torch.zeros_like(x)
        for row, n in enumerate(self.case.frames):
            part = x[row : row + 1, : n * hop], self.hidden[row : row + 1, :, :n], level[row : row + 1]
            out[row, : n * hop] = denoise(weights, self.case.config, *part)[0]
        return out

    def _our_step(self) -> Step:
        """Our denoiser; on a GPU compiled with CUDA graphs, whose outputs their next call overwrites."""
        mixed, on_gpu = len(set(self.case.frames)) > 1, self.device.type == "cuda"
        run: Callable[..., Tensor] = self.decoder
        if on_gpu:
            run = torch.compile(self.decoder, mode="reduce-overhead", dynamic=False)

        def step(x: Tensor, level: Tensor) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.case.precision == "bf16"):
                out = run(x, self.hidden, level, self.valid if mixed else None).float()
                return out.clone() if on_gpu else out

        return step

    def _chain(self, step: Step) -> Tensor:
        """Deterministic steps (DDIM), so that both sides see the same numbers. The host never waits inside."""
        levels = torch.linspace(0.3, 0.99, self.case.steps + 1, device=self.device)
        x = self.noisy
        for now, then in pairwise(levels):
            eps = self.masked(step(x, now.expand(len(x)))) * 0.1  # random weights: keep the chain from growing
            clean = ((x - (1 - now**2).sqrt() * eps) / now).clamp(-1, 1)
            x = then * clean + (1 - then**2).sqrt() * eps
        return self.masked(x)

    def _gradients(self) -> Tensor:
        """Of every weight."""
        loss = (self.step(self.noisy, self.level) - 0.3).square().mean()
        return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(self.decoder.parameters()))])


class Apart:
    """A `Work` on a CPU in a process of its own."""

    def __init__(self, case: Case, side: Side) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, case, side), daemon=True)
        self._process.start()
        theirs.close()

    def __getattr__(self, name: str) -> Callable[[], Any]:
        def ask() -> Any:
            self._pipe.send(name)
            return self._pipe.recv()

        return ask

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, case: Case, side: Side) -> None:
    if side != "literal":
        keep_freed_memory()
    work = Work(case, side, torch.device("cpu"))
    while True:
        try:
            name = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(work, name)())
