"""The denoiser under torch.compile: one graph for all lengths and batches, and one more for a single row.

All sizes inside follow from T, because the waveform comes as (B, T, hop): with L = T·hop given by itself a compiler
would have to prove at every residual that two roundings of L agree, and compiles each length again instead. On a GPU
evaluations without a gradient are CUDA graphs, of which one is recorded per size: hence few sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.errors import ConfigError
from rlzoo_wavegrad2.network.denoiser import Denoiser

BACKEND: Any = "inductor"
GRAPHS = 64
"""Most graphs of one function, where torch gives up after 8: with and without a gradient, in each precision, ..."""


def bucket(frames: int) -> int:
    """The next of four sizes an octave, at least 8 frames apart."""
    step = max(8, 1 << max(0, frames.bit_length() - 3))
    return -(-frames // step) * step


def denoise(decoder: Denoiser, noisy: Tensor, hidden: Tensor, level: Tensor, frames: Tensor) -> Tensor:
    """Apply `decoder`: (B, L), (B, H, T), (B,), (B,) -> (B, L).

    Raises:
        ConfigError: it cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException

    size, extra = noisy.shape[1], bucket(hidden.shape[2]) - hidden.shape[2]
    hop = size // hidden.shape[2]
    # Contiguous, because a graph is made for one order in memory, and a batch that needs no padding keeps its own.
    waves = F.pad(noisy, (0, extra * hop)).contiguous().unflatten(1, (-1, hop))
    wide = F.pad(hidden, (0, extra)).contiguous()
    has_graph = noisy.device.type == "cuda" and not torch.is_grad_enabled()
    if not torch.is_grad_enabled():
        decoder = _frozen(decoder)
    try:
        out = _compiled(BACKEND, has_graph)(decoder, waves, wide, level, frames)
    except TorchDynamoException as error:
        reason = " ".join(str(error).split("\n")[:2])  # what raised, and what it said
        raise ConfigError(
            f"the denoiser cannot be compiled: {reason}",
            "set policy.compile=false, or install a C++ compiler (on a GPU also triton)",
        ) from error
    # A CUDA graph writes its next result where this one is.
    return out[:, :size].clone() if has_graph else out[:, :size]


_FROZEN: WeakKeyDictionary[Denoiser, Denoiser] = WeakKeyDictionary()


def _frozen(decoder: Denoiser) -> Denoiser:
    """The same weights, shared, in a module that takes no gradient.

    A compiled graph depends on whether its weights take one: a policy and its frozen reference would need one each.
    """
    known = _FROZEN.get(decoder)
    weights = list(decoder.parameters())
    if known is None or any(a.data_ptr() != b.data_ptr() for a, b in zip(weights, known.parameters(), strict=True)):
        shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in weights}
        known = _FROZEN[decoder] = copy.deepcopy(decoder, shared | {id(b): b for b in decoder.buffers()})
    return known.train(decoder.training)


@cache
def _compiled(backend: Any, has_graph: bool) -> Callable[..., Tensor]:
    # One for all policies of a process: weights are arguments of a graph, and a copied policy needs none of its own.
    torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
    mode = "reduce-overhead" if has_graph else None
    return torch.compile(_frames_first, backend=backend, mode=mode, dynamic=True, fullgraph=True)


def _frames_first(decoder: Denoiser, waves: Tensor, hidden: Tensor, level: Tensor, frames: Tensor) -> Tensor:
    """As `decoder`, of waveforms (B, T, hop)."""
    out: Tensor = decoder(waves.flatten(1), hidden, level, frames)
    return out
