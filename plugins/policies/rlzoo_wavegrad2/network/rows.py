"""The denoiser for one row on the CPU, float32 or float64: the same function as `Denoiser.forward`, in tiles of time.

Rows are (L, C), time first. What makes it fast: convolutions by Winograd, channels mixed before interpolation and not
after, the last two convolutions as one, modulations computed where they are used and never stored, and a tile to each
core. A tile is computed with a halo as wide as its convolutions reach and cut out of it, which is exact. Blocks and
layers are those of `denoiser.py`; what PyTorch knows of their attributes says nothing to a type checker.
"""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo import parallel
from rlzoo_wavegrad2.network.layers import Conv, downsample, lrelu, modulate

try:
    from rlzoo_wavegrad2.network.raised import Raised
    from rlzoo_wavegrad2.network.winograd import Convolution, Filter, Prepared, side_by_side, worthwhile

    COMPILED = True
except ModuleNotFoundError as error:
    if error.name not in ("numba", "llvmlite"):
        raise
    warnings.warn("there is no numba here: on the CPU, WaveGrad 2 takes about twice the time", stacklevel=2)
    COMPILED = False

TILE = 2**21
"""Elements of an activation in a tile, 8 MB: in smaller ones the calls cost more than the caches save (measured)."""

LONGEST_ALONE = 8 * TILE
"""Elements of an activation of the longest row that a core has for itself: more is much memory (6 s of `base`)."""

FEWEST_CHANNELS = 32
"""A network that is narrower somewhere is left to `Denoiser.forward`: its products are too small (measured). Where
gradients are kept, and rows do not have a core each, it takes twice as many."""

Film = Callable[[int, int], tuple[Tensor, Tensor]]
"""(first, last) -> scale and shift of these rows."""


def on_cpu(x: Tensor) -> bool:
    """True if rows gain from being computed one by one, in the caches: on a CPU, unless under a compiler."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def suits(x: Tensor, channels: int) -> bool:
    """True if a row of a network with so many channels at the least is to be computed here."""
    floats = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    wide = channels >= FEWEST_CHANNELS * (2 if torch.is_grad_enabled() else 1)
    return COMPILED and wide and floats and on_cpu(x)


def each_row(compute: Callable[[int], None], elements: list[int]) -> None:
    """`compute(row)` of all rows, whose largest activations have so many elements: most of them on a core each.

    Two cores with a row each of `base` need 28 % (0.6 s) to 7 % (3 s) less than both sharing one after the other. But
    a core that waits for another gains nothing: the longest rows are shared until the others come out even.
    """
    rows = sorted(range(len(elements)), key=lambda row: -elements[row])
    with parallel.pool():
        alone = 0 if torch.is_grad_enabled() else len(rows)
        while alone and (elements[rows[-alone]] > LONGEST_ALONE or not even([elements[row] for row in rows[-alone:]])):
            alone -= 1
        for row in sorted(rows[: len(rows) - alone]):  # the order in which gradients will be added up
            compute(row)
        parallel.each(compute, [(row,) for row in rows[len(rows) - alone :]])


def even(sizes: list[int]) -> bool:
    """True if cores that take these pieces one after the other, in this order, have about as much to do each."""
    loads = [0] * parallel.size()
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads) * len(loads) <= 1.1 * sum(sizes)


def tiles(rows: int, channels: int, halo: int, align: int = 1) -> list[tuple[int, int, int, int]]:
    """(begin, end, first, last): rows begin:end come out of computing first:last. One tile where gradients are kept."""
    count = max(1, 2 * round(rows * channels / (2 * TILE)))
    if torch.is_grad_enabled():
        count = 1
    step = align * -(-rows // (count * align))
    reach = align * -(-halo // align)
    ends = [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]
    return [(begin, end, max(0, begin - reach), min(rows, end + reach)) for begin, end in ends]


def in_tiles(compute: Callable[[int, int], Tensor], plan: list[tuple[int, int, int, int]], x: Tensor, O: int) -> Tensor:
    """(rows, O) like `x`: what `compute(first, last)` makes of these rows, tile by tile."""
    rows = plan[-1][1]
    if len(plan) == 1:
        return compute(0, rows)
    out = x.new_empty(rows, O)

    def work(begin: int, end: int, first: int, last: int) -> None:
        out[begin:end] = compute(first, last)[begin - first : end - first]

    if len(plan) < parallel.size():  # then all cores share each tile's operations
        for tile in plan:
            work(*tile)
    else:
        parallel.each(work, plan)
    return out


def convolve_row(
    layer: Conv,
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    activate: bool = False,
) -> Tensor:
    """(L, I) -> (L, O): the layer of lrelu(scale x + shift), of lrelu(x), or of x, and what is to be added to it."""
    weight, bias = layer.conv1d.weight, layer.conv1d.bias
    if worthwhile(weight, x.shape[0], layer.dilation):
        how = Prepared(known_filter(layer, [weight]), layer.dilation, activate)
        out: Tensor = Convolution.apply(x, scale, shift, residual, weight, bias, how)[0]
        return out
    if scale is not None and shift is not None:
        x = modulate(x, scale, shift)
    elif activate:
        x = lrelu(x)
    out = layer(x.t()[None])[0].t()
    return out if residual is None else out + residual


def known_filter(module: Any, weights: list[Tensor]) -> Filter:
    """The module's filter, kept until one of its weights changes."""
    known: Filter | None = module.__dict__.get("filter")
    if known is None or not known.fits(weights):
        known = module.__dict__["filter"] = Filter(weights)
    return known


def mix(layer: Any, x: Tensor) -> Tensor:
    """A convolution of one tap: (L, I) -> (L, O)."""
    out: Tensor = F.linear(x, layer.conv1d.weight[:, :, 0], layer.conv1d.bias)
    return out


def raised(layer: Any, x: Tensor, factor: int, start: bool, end: bool) -> Tensor:
    """conv(upsample(x)), (n + 2, I) -> (factor n, O): channels are mixed at the coarse rate, `factor` times cheaper."""
    weight, bias = layer.conv1d.weight, layer.conv1d.bias
    beside = side_by_side(weight) if torch.is_grad_enabled() else known_filter(layer, [weight]).taps()
    out: Tensor = Raised.apply(x, beside, bias, factor, start, end)
    return out


def film_of(module: Any, x: Tensor, level: Tensor) -> Film:
    """The statistic's modulation, for any stretch of rows."""
    position = module.embedding(level)
    layers = [module.scale_conv, module.shift_conv]

    def film(first: int, last: int) -> tuple[Tensor, Tensor]:
        signal = convolve_row(module.signal_conv[0], x[first:last])
        # Both convolutions at once: they share their input.
        weights = [layer.conv1d.weight for layer in layers]
        if not worthwhile(weights[0], len(signal), 1):
            signal = lrelu(signal) + position
            scale, shift = (convolve_row(layer, signal) for layer in layers)
            return scale, shift
        known = known_filter(module, weights)
        weight = torch.cat(weights) if torch.is_grad_enabled() else known.weight()
        bias = torch.cat([layer.conv1d.bias for layer in layers])
        scale, shift = Convolution.apply(signal, None, position, None, weight, bias, Prepared(known, 1, True, 2))
        return scale, shift

    return film


def convolutions_down(convs: list[Any], residual: Any, x: Tensor, factor: int = 1) -> Tensor:
    """(L, I) -> (L // factor, O): downsampled, then convolved."""

    def compute(first: int, last: int) -> Tensor:
        low = x[first * factor : last * factor]
        low = low if factor == 1 else downsample(low.t(), factor).t()
        main = low
        for conv in convs[:-1]:
            main = convolve_row(conv.convolution, main, activate=True)
        return convolve_row(convs[-1].convolution, main, residual=mix(residual, low), activate=True)

    outputs = residual.conv1d.out_channels
    plan = tiles(len(x) // factor, outputs, sum(conv.convolution.dilation for conv in convs))
    return in_tiles(compute, plan, x, outputs)


def down_basic(block: Any, x: Tensor) -> Tensor:
    """(L, I) -> (L // factor, O)."""
    return convolutions_down(list(block.main_branch)[1:], block.residual_branch[0], x, block.factor)


def up_basic(block: Any, x: Tensor, film: Film, project: Tensor | None = None) -> Tensor:
    """(L, I) -> (factor L, O), or (factor L, P) through `project` (O, P)."""
    factor, rows = block.factor, len(x) * block.factor
    first_half, second_half = block.first_block_main_branch, block.second_block_main_branch
    inner = first_half["modulation"].convolution, *(second_half[f"modulation_{i}"].convolution for i in (0, 1))
    # Two more for the modulation's own two convolutions; without upsampling one more for the first convolution.
    halo = sum(conv.dilation for conv in inner) + (2 if factor > 1 else 2 + block.entry.dilation)

    def compute(first: int, last: int) -> Tensor:
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
        h = convolve_row(inner[0], main, scale, shift, residual)
        second = convolve_row(inner[1], h, scale, shift)
        if project is None:
            return convolve_row(inner[2], second, scale, shift, h)
        return project_row(inner[2], modulate(second, scale, shift), h, project)

    outputs = inner[0].conv1d.out_channels
    plan = tiles(rows, outputs, halo, factor)
    return in_tiles(compute, plan, x, outputs if project is None else project.shape[1])


def project_row(layer: Any, x: Tensor, residual: Tensor, project: Tensor) -> Tensor:
    """(residual + layer(x)) @ project, (L, I) -> (L, P): to few outputs, mixed once instead of twice."""
    d, P = layer.dilation, project.shape[1]
    taps = torch.einsum("oik,op->ikp", layer.conv1d.weight, project).flatten(1)
    # Sixteen columns take a third of the time of nine.
    early, same, late, _ = F.pad(x @ _widened(taps), (0, 0, d, d)).split((P, P, P, 16 - 3 * P), 1)
    own = (residual @ _widened(project))[:, :P] + layer.conv1d.bias @ project
    out: Tensor = own + early[: -2 * d] + same[d:-d] + late[2 * d :]
    return out


def _widened(x: Tensor) -> Tensor:
    return F.pad(x, (0, 16 - x.shape[1]))


def denoise_row(decoder: Any, noisy: Tensor, hidden: Tensor, level: Tensor) -> Tensor:
    """(L,), (H, T), (1,) -> (L,)."""
    taps = F.pad(noisy, (2, 2)).unfold(0, 5, 1)
    last, blocks = decoder.ublock_postconv.conv1d, list(decoder.ublocks)
    with parallel.pool():
        x = F.linear(taps, decoder.dblock_preconv.conv1d.weight[:, 0], decoder.dblock_preconv.conv1d.bias)
        films = [film_of(decoder.films[0], x, level)]
        for down, module in zip(decoder.dblocks, list(decoder.films)[1:], strict=True):
            x = decoder.run(down.row, x)
            films.append(film_of(module, x, level))
        up = convolve_row(decoder.ublock_preconv, hidden.t().contiguous())
        for block in blocks[:-1]:
            up = decoder.run(block.row, up, films.pop())
        # The last convolution has one output: each row's three products here, their sum over time below.
        three = decoder.run(blocks[-1].row, up, films.pop(), last.weight[0])
    three = F.pad(three, (0, 0, 1, 1))
    return parallel.pool_from_here_back(three[:-2, 0] + three[1:-1, 1] + three[2:, 2] + last.bias)
