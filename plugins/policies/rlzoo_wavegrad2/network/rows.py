"""The denoiser for one row on the CPU, float32 or float64: the same function as `Denoiser.forward`, in tiles of time.

Rows are (L, C), time first. What makes it fast: convolutions by Winograd, channels mixed before interpolation and not
after, modulations computed where they are used and never stored, and tiles small enough for the caches. A tile is
computed with a halo as wide as its convolutions reach and cut out of it, which is exact. Blocks and layers are those of
`denoiser.py`; what PyTorch knows of their attributes says nothing to a type checker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo_wavegrad2.network.layers import Conv, downsample, lrelu, polyphase_table
from rlzoo_wavegrad2.network.winograd import Convolution, Filter, Prepared, worthwhile

TILE = 4096
"""Rows of a tile: 2 MB of 128 channels. Below it the calls cost more than the caches save (measured)."""

FEWEST_CHANNELS = 64
"""A network that is narrower somewhere is left to `Denoiser.forward`: its products are too small (measured)."""

Film = Callable[[int, int], tuple[Tensor, Tensor]]
"""(first, last) -> scale and shift of these rows."""


def on_cpu(x: Tensor) -> bool:
    """Whether rows gain from being computed one by one, in the caches: on a CPU, unless under a compiler."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def suits(x: Tensor, channels: int) -> bool:
    """Whether a row of a network with so many channels at the least is to be computed here."""
    floats = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return floats and channels >= FEWEST_CHANNELS and on_cpu(x)


def tiles(rows: int, halo: int, align: int = 1) -> Iterator[tuple[int, int, int, int]]:
    """(begin, end, first, last): rows begin:end come out of computing first:last. One tile where gradients are kept."""
    count = 1 if torch.is_grad_enabled() else max(1, round(rows / TILE))
    step = align * -(-rows // (count * align))
    reach = align * -(-halo // align)
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        yield begin, end, max(0, begin - reach), min(rows, end + reach)


def joined(pieces: list[Tensor]) -> Tensor:
    """Pieces of a row, one behind the other."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def convolve_row(
    layer: Conv, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, activate: bool = False
) -> Tensor:
    """(L, I) -> (L, O): the layer of lrelu(scale x + shift), of lrelu(x), or of x."""
    weight, bias = layer.conv1d.weight, layer.conv1d.bias
    known: Filter | None = layer.__dict__.get("filter")
    if known is None or not known.fits(weight):
        known = layer.__dict__["filter"] = Filter(weight)
    quick = worthwhile(weight, x.shape[0], layer.dilation)
    how = Prepared(known, layer.dilation, quick, activate or scale is not None)
    out: Tensor = Convolution.apply(x, scale, shift, weight, bias, how)
    return out


def mix(layer: Any, x: Tensor) -> Tensor:
    """A convolution of one tap: (L, I) -> (L, O)."""
    out: Tensor = F.linear(x, layer.conv1d.weight[:, :, 0], layer.conv1d.bias)
    return out


class _Raise(torch.autograd.Function):
    """Interpolate rows that were mixed at the coarse rate, (n + 2, taps O) -> (factor n, O), and add up the taps.

    The outer two rows are neighbours. `start`, `end`: whether the utterance begins or ends here; there the fine
    convolution is zero padded where interpolation repeats the edge, and the difference is taken off again.
    """

    @staticmethod
    def forward(ctx: Any, mixed: Tensor, factor: int, taps: int, start: bool, end: bool) -> Tensor:
        n, O = mixed.shape[0] - 2, mixed.shape[1] // taps
        table = polyphase_table(factor, taps).transpose(1, 2).reshape(factor, 3 * taps).to(mixed)
        ctx.table, ctx.about = table, (factor, taps, start, end)
        windows = mixed.as_strided((n, 3 * taps, O), (taps * O, O, 1), mixed.storage_offset())
        fine = torch.bmm(table.expand(n, factor, 3 * taps), windows).view(n * factor, O)
        if taps == 3 and start:
            fine[0] -= mixed[1, :O]
        if taps == 3 and end:
            fine[-1] -= mixed[-2, 2 * O :]
        return fine

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        factor, taps, start, end = ctx.about
        O = grads[0].shape[1]
        grad = grads[0].contiguous().view(-1, factor, O)
        n = len(grad)
        parts = torch.bmm(ctx.table.t().expand(n, 3 * taps, factor), grad).view(n, 3, taps * O)
        out = grad.new_zeros(n + 2, taps * O)
        for neighbour in range(3):
            out[neighbour : neighbour + n] += parts[:, neighbour]
        if taps == 3 and start:
            out[1, :O] -= grad[0, 0]
        if taps == 3 and end:
            out[-2, 2 * O :] -= grad[-1, -1]
        return out, None, None, None, None


def raised(layer: Any, x: Tensor, factor: int, start: bool, end: bool) -> Tensor:
    """conv(upsample(x)), (n + 2, I) -> (factor n, O): channels are mixed at the coarse rate, `factor` times cheaper."""
    weight, bias = layer.conv1d.weight, layer.conv1d.bias
    O, I, taps = weight.shape
    # The bias belongs to the middle tap, whose interpolation weights sum to one.
    padding = (taps // 2) * O
    bias = F.pad(bias, (padding, padding))
    mixed = torch.addmm(bias, x, weight.permute(1, 2, 0).reshape(I, taps * O))
    out: Tensor = _Raise.apply(mixed, factor, taps, start, end)
    return out


def film_of(module: Any, x: Tensor, level: Tensor) -> Film:
    """The statistic's modulation, for any stretch of rows."""
    position = module.embedding(level)

    def film(first: int, last: int) -> tuple[Tensor, Tensor]:
        signal = lrelu(convolve_row(module.signal_conv[0], x[first:last])) + position
        return convolve_row(module.scale_conv, signal), convolve_row(module.shift_conv, signal)

    return film


def convolutions_down(convs: list[Any], residual: Any, x: Tensor) -> Tensor:
    """(L, I) -> (L, O)."""
    pieces = []
    for begin, end, first, last in tiles(len(x), sum(c.convolution.dilation for c in convs)):
        main = x[first:last]
        for conv in convs:
            main = convolve_row(conv.convolution, main, activate=True)
        pieces.append(main[begin - first : end - first] + mix(residual, x[begin:end]))
    return joined(pieces)


def down_basic(block: Any, x: Tensor) -> Tensor:
    """(L, I) -> (L // factor, O)."""
    low = downsample(x.t(), block.factor).t()
    return convolutions_down(list(block.main_branch)[1:], block.residual_branch[0], low)


def up_basic(block: Any, x: Tensor, film: Film, project: Tensor | None = None) -> Tensor:
    """(L, I) -> (factor L, O), or (factor L, P) through `project` (O, P)."""
    factor, rows = block.factor, len(x) * block.factor
    first_half, second_half = block.first_block_main_branch, block.second_block_main_branch
    inner = first_half["modulation"].convolution, *(second_half[f"modulation_{i}"].convolution for i in (0, 1))
    # Two more for the modulation's own two convolutions; without upsampling one more for the first convolution.
    halo = sum(conv.dilation for conv in inner) + (2 if factor > 1 else 2 + block.entry.dilation)
    pieces = []
    for begin, end, first, last in tiles(rows, halo, factor):
        scale, shift = film(first, last)
        if factor == 1:
            part = x[first:last]
            main, residual = convolve_row(block.entry, part, activate=True), mix(block.residual, part)
        else:
            a, b = first // factor, last // factor
            start, finish = a == 0, b == len(x)
            around = x[max(0, a - 1) : b + 1]
            around = torch.cat([x[:1]] * start + [around] + [x[-1:]] * finish) if start or finish else around
            main = raised(block.entry, lrelu(around), factor, start, finish)
            residual = raised(block.residual, around, factor, start, finish)
        h = convolve_row(inner[0], main, scale, shift) + residual
        out = convolve_row(inner[2], convolve_row(inner[1], h, scale, shift), scale, shift) + h
        out = out[begin - first : end - first]
        pieces.append(out if project is None else out @ project)
    return joined(pieces)


def denoise_row(decoder: Any, noisy: Tensor, hidden: Tensor, level: Tensor) -> Tensor:
    """(L,), (H, T), (1,) -> (L,)."""
    taps = F.pad(noisy, (2, 2)).unfold(0, 5, 1)
    x = F.linear(taps, decoder.dblock_preconv.conv1d.weight[:, 0], decoder.dblock_preconv.conv1d.bias)
    films = [film_of(decoder.films[0], x, level)]
    for down, module in zip(decoder.dblocks, list(decoder.films)[1:], strict=True):
        x = decoder.run(down.row, x)
        films.append(film_of(module, x, level))
    x = convolve_row(decoder.ublock_preconv, hidden.t().contiguous())
    last, blocks = decoder.ublock_postconv.conv1d, list(decoder.ublocks)
    for block in blocks[:-1]:
        x = decoder.run(block.row, x, films.pop())
    # The last convolution has one output: each row's three products here, their sum over time below.
    three = decoder.run(blocks[-1].row, x, films.pop(), last.weight[0])
    three = F.pad(three, (0, 0, 1, 1))
    out: Tensor = three[:-2, 0] + three[1:-1, 1] + three[2:, 2] + last.bias
    return out
