"""Convolutions and resampling on (B, C, L) tensors that lie channels-last in memory.

Channels-last is what matrix units want (AMX bf16 on the CPU: 2 - 5 times a channels-first convolution; tensor cores
alike), and it makes upsampling by polyphase filters a reshape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


def lrelu(x: Tensor) -> Tensor:
    """Leaky ReLU with the published slope."""
    return F.leaky_relu(x, SLOPE)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1, pad: bool = True) -> Tensor:
    """(B, I, L), (O, I, k) -> (B, O, L), zero padded to the same length unless `pad` is false."""
    padding = dilation * (weight.shape[2] // 2) if pad else 0
    wide = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return F.conv2d(wide, weight.unsqueeze(2), bias, padding=(0, padding), dilation=(1, dilation)).squeeze(2)


class _Modulate(torch.autograd.Function):
    """lrelu(scale x + shift) and its gradient in as few passes over memory as there can be."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        y = F.leaky_relu_(torch.addcmul(shift, scale, x), SLOPE)
        ctx.save_for_backward(x, scale, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, scale, y = ctx.saved_tensors
        # The slope is positive, so the sign of y is the sign of what went in.
        grad = torch.ops.aten.leaky_relu_backward(grads[0], y, SLOPE, True)
        return grad * scale, grad * x, grad


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """lrelu(scale x + shift), all (B, C, L) and of one dtype."""
    out: Tensor = _Modulate.apply(x, scale, shift)
    return out


class Conv(nn.Module):
    """A same-length convolution; the parameters sit under `conv1d`, as in the published state dict."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, L) -> (B, O, L)."""
        return convolve(x, self.conv1d.weight, self.conv1d.bias, self.dilation)


class LReLUConv(nn.Module):
    """Leaky ReLU, then a convolution; parameters under `convolution.conv1d`."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.convolution = Conv(inputs, outputs, 3, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(B, I, L) -> (B, O, L)."""
        out: Tensor = self.convolution(lrelu(x))
        return out


def interpolation_weights(factor: int) -> list[tuple[float, float, float]]:
    """Weights of the left, own and right coarse neighbour for each fine phase (align_corners=False)."""
    positions = [(phase + 0.5) / factor - 0.5 for phase in range(factor)]
    return [(max(0.0, -p), 1 - abs(p), max(0.0, p)) for p in positions]


def replicate_edges(x: Tensor) -> Tensor:
    """(B, C, L) -> (B, C, L+2), first and last column repeated: what interpolation does at its ends."""
    return torch.cat([x[..., :1], x, x[..., -1:]], -1)


def upsample(x: Tensor, factor: int) -> Tensor:
    """Linear interpolation, (B, C, L) -> (B, C, factor L); equals F.interpolate(mode="linear", align_corners=False)."""
    weights = constant(_interpolation_table, factor, like=x)
    wide = replicate_edges(x).transpose(1, 2).unsqueeze(2)  # (B, L+2, 1, C)
    w = weights.view(1, 1, factor, 3, 1).unbind(3)
    fine = wide[:, :-2] * w[0] + wide[:, 1:-1] * w[1] + wide[:, 2:] * w[2]
    return fine.flatten(1, 2).transpose(1, 2)


def polyphase_weight(weight: Tensor, factor: int) -> Tensor:
    """(O, I, k) fine taps, k 1 or 3 -> (factor O, I, 3) coarse taps: interpolation folded into the convolution."""
    table = polyphase_table(factor, weight.shape[2], weight)
    return torch.einsum("ptn,oit->poin", table, weight).flatten(0, 1)


def polyphase_table(factor: int, taps: int, like: Tensor) -> Tensor:
    """(phase, fine tap, coarse neighbour): what each fine tap takes from the coarse samples."""
    return constant(_polyphase_table, factor, taps, like=like)


def constant(make: Callable[..., Tensor], *sizes: int, like: Tensor) -> Tensor:
    """`make(*sizes)` with the dtype and device of `like`; made once, because a GPU is waited for to send it there."""
    # A compiler looks through a cache, and warns of it; on a tensor's value, which is none here, it could not branch.
    known = _made if torch.compiler.is_compiling() else _kept
    return known(make, sizes, like.dtype, like.device)


def _made(make: Callable[..., Tensor], sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return make(*sizes).to(device, dtype)


_kept = cache(_made)


def _interpolation_table(factor: int) -> Tensor:
    return torch.tensor(interpolation_weights(factor), dtype=torch.float64)


def _polyphase_table(factor: int, taps: int) -> Tensor:
    phases = interpolation_weights(factor)
    table = [[[0.0] * 3 for _ in range(taps)] for _ in range(factor)]
    for phase in range(factor):
        for tap in range(taps):
            coarse, rest = divmod(phase + tap - taps // 2, factor)
            for neighbour, weight in enumerate(phases[rest]):
                if weight:
                    table[phase][tap][coarse + neighbour] += weight
    return torch.tensor(table, dtype=torch.float64)


def upsample_convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, factor: int, last: Tensor | None = None
) -> Tensor:
    """conv_k(upsample(x)), (B, I, L) -> (B, O, factor L), k 1 or 3, as one convolution over the coarse samples.

    Each fine tap is a mixture of coarse neighbours, so that the upsampled input never exists. At both ends the fine
    convolution is zero padded where interpolation repeats the edge; the difference is taken off again. `last` (B,):
    index of each row's last valid coarse sample, behind which x must repeat it; None: all rows fill L.
    """
    outputs = weight.shape[0]
    repeated = None if bias is None else bias.repeat(factor)
    coarse = convolve(replicate_edges(x), polyphase_weight(weight, factor), repeated, pad=False)
    fine = coarse.transpose(1, 2).unflatten(2, (factor, outputs)).flatten(1, 2)  # (B, factor L, O)
    if weight.shape[2] == 3:
        rows = torch.arange(x.shape[0], device=x.device)
        end = torch.full_like(rows, x.shape[2] - 1) if last is None else last
        excess = torch.cat([x[..., 0] @ weight[:, :, 0].t(), x[rows, :, end] @ weight[:, :, 2].t()])
        begin = rows * fine.shape[1]
        places = torch.cat([begin, begin + factor * (end + 1) - 1])
        # Out of place: writing into a view would cost autograd two more copies.
        fine = fine.flatten(0, 1).index_add(0, places, -excess.to(fine.dtype)).view_as(fine)
    result: Tensor = fine.transpose(1, 2)
    return result


def downsample(x: Tensor, factor: int) -> Tensor:
    """Linear interpolation down, (B, C, L) -> (B, C, L // factor): the middle of each group of `factor` samples."""
    middle: Tensor = x[..., factor // 2 :: factor]
    mean: Tensor = middle if factor % 2 else 0.5 * (x[..., factor // 2 - 1 :: factor] + middle)
    return mean
