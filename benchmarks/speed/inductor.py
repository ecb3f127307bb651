"""Lower the denoisers for a GPU of compute capability 9.0 without one: `python benchmarks/speed/inductor.py`.

`torch.compile` traces on the CPU. Before Inductor gets a graph, the graph's tensors are declared to be on a GPU, and
the properties of a GPU are given by hand. Inductor then writes Triton kernels. Triton compiles them to PTX and, with
its own ptxas, to machine code. Neither needs a driver. Nothing is run: speed and cuDNN's convolutions are not covered.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from functorch.compile import make_boxed_func
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.policy import GradTTSPolicy
from rlzoo_wavegrad2 import WaveGrad2Options, compiled
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import detect_fake_mode
from torch._inductor import async_compile, config
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.runtime import hints, triton_helpers

from rlzoo.api import Policy, Prompt

GPU = torch.device("cuda", 0)
H100 = SimpleNamespace(
    name="H100", major=9, minor=0, multi_processor_count=132, total_memory=80 << 30, regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2_048, max_threads_per_block=1_024, warp_size=32, L2_cache_size=50 << 20,
    shared_memory_per_block=49_152, shared_memory_per_block_optin=232_448, shared_memory_per_multiprocessor=233_472,
)  # fmt: skip


@contextlib.contextmanager
def declared_gpu() -> Iterator[None]:
    """The answers that Inductor asks a driver for."""
    answers = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: H100,
        "is_bf16_supported": lambda *a, **k: True,
    }
    properties = hints.DeviceProperties(
        "cuda", 0, H100.multi_processor_count, 90, 9, H100.regs_per_multiprocessor,
        H100.max_threads_per_multi_processor, H100.max_threads_per_block, H100.warp_size,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        stack.enter_context(mock.patch.object(hints.DeviceProperties, "create", return_value=properties))
        stack.enter_context(mock.patch.object(triton_helpers, "set_driver_to_gpu"))
        stack.enter_context(
            config.patch(force_disable_caches=True, compile_threads=1, use_static_triton_launcher=False)
        )
        yield


def on_gpu(graph: fx.GraphModule, inputs: Sequence[Any]) -> tuple[fx.GraphModule, list[Any]]:
    """A copy of a graph that was traced on the CPU, and its inputs, as if they were on the GPU."""
    moved = copy.deepcopy(graph)
    for node in moved.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.kwargs = {**node.kwargs, "device": GPU}
    moved.recompile()
    fake = detect_fake_mode(inputs)
    with fake:
        there = [
            torch.empty_strided(x.size(), x.stride(), dtype=x.dtype, device=GPU) if isinstance(x, Tensor) else x
            for x in inputs
        ]
    return moved, there


class Lowering:
    """A backend of `torch.compile` that lowers every graph for the GPU and goes on with it on the CPU."""

    def __init__(self) -> None:
        self.kernels: dict[str, dict[str, str]] = {"forward": {}, "backward": {}}
        """Source of every Triton kernel, by name."""

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        whole = aot_autograd(
            fw_compiler=functools.partial(self._lowered, "forward"),
            bw_compiler=functools.partial(self._lowered, "backward"),
            partition_fn=functools.partial(min_cut_rematerialization_partition, compiler="inductor"),
            decompositions=select_decomp_table(),
        )
        run: Callable[..., Any] = whole(graph, inputs)
        return run

    def _lowered(self, part: str, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        def kept(_: Any, name: str, source: str, device_str: str = "cuda") -> None:
            self.kernels[part][f"{len(self.kernels[part])}_{name}"] = source

        with declared_gpu(), mock.patch.object(async_compile.AsyncCompile, "triton", kept):
            moved, there = on_gpu(graph, inputs)
            compile_fx_inner(moved, there, is_backward=part == "backward")
        return make_boxed_func(graph.forward)


def assembled(name: str, source: str) -> dict[str, Any]:
    """Source of one kernel -> what Triton makes of it, by stage: `ptx`, `cubin`, ..."""
    with declared_gpu():
        tuner = async_compile._load_triton_kernel_from_source(name.partition("_")[2], source)
        found: dict[str, Any] = tuner._precompile_config(tuner.configs[0]).kernel.asm
        return found


def work(policy: Policy, half: bool) -> None:
    """One transition without and one with a gradient, of two rows."""
    cond = policy.condition([Prompt("a", "Yes."), Prompt("b", "Go on.")])
    x, k = torch.zeros(2, *policy.state_shape(cond)), torch.zeros(2, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        policy.transition(x, k, cond, policy.schedule(4)).mode.sum().backward()


def gradtts(lowering: Lowering) -> Policy:
    """With its denoiser compiled, as no option does yet."""
    policy = GradTTSPolicy(GradTTSOptions(trainable="denoiser"))
    inner = torch.compile(policy.network.clean, backend=lowering, dynamic=True, fullgraph=True)
    policy.network.clean = inner  # type: ignore[method-assign]
    return policy


def wavegrad2(lowering: Lowering) -> Policy:
    """As `policy.compile` does."""
    compiled.BACKEND = lowering
    return WaveGrad2Policy(WaveGrad2Options(trainable="denoiser", compile=True))


POLICIES = {"gradtts": gradtts, "wavegrad2": wavegrad2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", nargs="*", default=list(POLICIES), choices=POLICIES)
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--kernels", type=int, default=0, help="compile so many of each graph; 0: all")
    arguments = parser.parse_args()
    print("| Denoiser | precision | graph | Triton kernels | compiled to PTX | to machine code | seconds |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name in arguments.policies:
        for precision in arguments.precisions:
            torch._dynamo.reset()
            lowering, started = Lowering(), time.perf_counter()
            work(POLICIES[name](lowering), precision == "bf16")
            for part, kernels in lowering.kernels.items():
                chosen = list(kernels.items())[: arguments.kernels or None]
                made = [assembled(*item) for item in chosen]
                targets = sum(".target sm_90" in stages["ptx"] for stages in made)
                code = sum(bool(stages.get("cubin")) for stages in made)
                spent, started = time.perf_counter() - started, time.perf_counter()
                cells = (name, precision, part, len(kernels), f"{targets} of {len(chosen)}", code, f"{spent:.0f}")
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
