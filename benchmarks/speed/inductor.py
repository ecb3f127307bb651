"""Lower the compiled denoisers for an H200 (sm_90), without one: `python benchmarks/speed/inductor.py`.

Forward and backward pass of each denoiser, in fp32 and bf16, go through Inductor on tensors without memory that say
that they are on a GPU. Every Triton kernel that comes out is compiled to PTX and by ptxas to machine code. This shows
that nothing in the networks stops the compiler, and counts its kernels. It does not show that they are fast or right.

The internal functions of torch that this needs are those of torch 2.14.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._dynamo.device_interface import CudaInterface
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.codecache import PyCodeCache
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.runtime import triton_helpers
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

DEVICE = torch.device("cuda", 0)
H200 = SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, warp_size=32, total_memory=150 * 2**30,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, regs_per_multiprocessor=65_536,
    shared_memory_per_block=49_152, shared_memory_per_block_optin=232_448, shared_memory_per_multiprocessor=233_472,
    gcnArchName="", L2_cache_size=50 * 2**20,
)  # fmt: skip


def wavegrad2() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """WaveGrad 2's, of the size `base`: waveforms (B, L), conditioning (B, H, T), levels (B,), frames (B,)."""
    from rlzoo_wavegrad2.network import PRESETS
    from rlzoo_wavegrad2.network.denoiser import Denoiser

    config = PRESETS["base"]
    hidden = torch.randn(4, config.hidden_channels, 64)
    return Denoiser(config), (torch.randn(4, 64 * config.hop), hidden, torch.rand(4), torch.full((4,), 60))


def gradtts() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """That of the voice that ships: residuals (B, M, T), levels (B,), features (B, C, T), styles (B, Z), mask."""
    from rlzoo_gradtts.policy import SHIPPED, VOICES

    _, voice = VOICES.load(SHIPPED)
    config = VOICES.config.model_validate(voice["network"])
    network = VOICES.network(config).denoiser
    features = torch.randn(4, config.channels, 256)
    styles = torch.randn(4, config.style)
    return network, (torch.randn(4, config.bands, 256), torch.rand(4), features, styles, torch.ones(4, 1, 256))


@contextlib.contextmanager
def pretended() -> Iterator[list[Any]]:
    """Inductor believes in a GPU; its kernels are compiled but never loaded. Gives their autotuners."""
    made: list[Any] = []

    def compiled(self: Any, name: str, source: str, **_: Any) -> Any:
        kernel = getattr(PyCodeCache.load(source), name)
        kernel.precompile(warm_cache_only=True)
        made.append(kernel)
        return mock.Mock()

    driver.set_active(mock.Mock(get_current_target=lambda: GPUTarget("cuda", 90, 32), get_current_device=lambda: 0))
    gpu: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: H200,
        "synchronize": lambda *_: None,
        "get_rng_state": torch.get_rng_state,
        "set_rng_state": torch.set_rng_state,
        "_exchange_device": lambda _: 0,
        "_maybe_exchange_device": lambda _: 0,
    }
    known = {
        "get_device_properties": staticmethod(lambda *_: H200),
        "get_compute_capability": staticmethod(lambda *_: 90),
    }
    with (
        mock.patch.multiple(torch.cuda, **gpu),
        mock.patch.multiple(CudaInterface, **known),
        mock.patch.multiple(CudaInterface.Worker, get_device_properties=lambda *_: H200, current_device=lambda: 0),
        mock.patch.multiple(triton_helpers, set_driver_to_gpu=lambda: None),
        mock.patch.multiple(AsyncCompile, triton=compiled),
        torch._inductor.config.patch(compile_threads=1, force_disable_caches=True, use_static_cuda_launcher=False),
    ):
        yield made


def to_inputs(graph: torch.fx.GraphModule) -> list[Tensor]:
    """Make the constants of a graph its last inputs, and have what it makes itself made on the GPU."""
    constants = []
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    for node in list(graph.graph.nodes):
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": DEVICE}
        if node.target is torch.ops.aten.view.default:  # a convolution may order its result otherwise on a GPU
            node.target = torch.ops.aten.reshape.default
        if node.op == "get_attr":
            constants.append(getattr(graph, node.target))
            with graph.graph.inserting_after(last):
                last = graph.graph.placeholder(f"constant_{len(constants)}")
            node.replace_all_uses_with(last)
            graph.graph.erase_node(node)
    graph.graph.set_codegen(CodeGen())  # flat lists in and out
    graph.recompile()
    return constants


def lower(network: nn.Module, inputs: tuple[Tensor, ...], bf16: bool, backward: bool) -> dict[str, int]:
    """Trace, lower and compile one graph: its kernels, lines of PTX, and kilobytes of machine code."""
    states = dict(network.named_parameters()) | dict(network.named_buffers())

    def run(states: dict[str, Tensor], *inputs: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = torch.func.functional_call(network, states, inputs)
        if not backward:
            return [out]
        weights = [states[name] for name, _ in network.named_parameters()]
        grads = torch.autograd.grad(out.float().square().mean(), weights, allow_unused=True)
        return [out.detach(), *(grad for grad in grads if grad is not None)]

    # Traced as a compiler traces it, on the CPU; then every tensor of the graph is said to be on the GPU.
    with mock.patch.object(torch.compiler, "is_compiling", return_value=True), torch.set_grad_enabled(backward):
        graph = make_fx(run, select_decomp_table(), tracing_mode="fake")(states, *inputs)
    constants = to_inputs(graph)
    empty = [torch.empty_like(x, device="meta", requires_grad=False) for x in [*states.values(), *inputs, *constants]]
    with pretended() as kernels, FakeTensorMode() as mode:
        flat = [FakeTensor(mode, x, DEVICE) for x in empty]
        FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*flat)
        compile_fx_inner(graph, flat)
    binaries = [result.kernel.asm for kernel in kernels for result in kernel.compile_results]
    for binary in binaries:
        assert ".target sm_90" in binary["ptx"]
    return {
        "kernels": len(kernels),
        "binaries": len(binaries),
        "lines of PTX": sum(binary["ptx"].count("\n") for binary in binaries),
        "KB of machine code": sum(len(binary["cubin"]) for binary in binaries) // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="DENOISER", help="of gradtts and wavegrad2; both unless named")
    for name in parser.parse_args().names or ["gradtts", "wavegrad2"]:
        network, inputs = {"gradtts": gradtts, "wavegrad2": wavegrad2}[name]()
        for bf16 in (False, True):
            for backward in (False, True):
                begin = time.monotonic()
                counts = lower(network, inputs, bf16, backward)
                shown = ", ".join(f"{value:,} {what}" for what, value in counts.items())
                label = f"{name}, {'bf16' if bf16 else 'fp32'}, {'forward and backward' if backward else 'forward'}"
                print(f"{label}: {shown}, {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
