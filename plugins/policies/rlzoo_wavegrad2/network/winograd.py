"""Same-length three-tap convolutions of one row on the CPU, with less than half the multiplications.

Winograd's F(6, 3) (Lavin and Gray, arXiv:1509.09308) along time: six outputs of a three-tap filter cost eight products
instead of eighteen. Rows are (L, C), time first. A few windows at a time are transformed (`kernels.py`), multiplied in
one batched matrix product and transformed back, in memory that stays in a core's cache. Results differ from a direct
convolution's by rounding, about 1e-6 of their norm.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlzoo import parallel
from rlzoo_wavegrad2.network import kernels
from rlzoo_wavegrad2.network.kernels import OUTPUTS, WINDOW
from rlzoo_wavegrad2.network.layers import SLOPE

_FEWEST_CHANNELS, _FEWEST_WINDOWS = 16, 16
"""Below these the transforms cost more than the products they save (measured)."""


@cache
def _of_filter(dtype: torch.dtype) -> Tensor:
    return torch.tensor(kernels.OF_FILTER, dtype=torch.float64).to(dtype)


def _transformed(taps: Tensor) -> Tensor:
    """(3, I, O) -> (8, I, O)."""
    return torch.mm(_of_filter(taps.dtype), taps.reshape(3, -1)).view(WINDOW, *taps.shape[1:])


class Filter:
    """Convolutions' weights, one above the other, in the forms that the products want, made when first asked for."""

    def __init__(self, weights: list[Tensor]) -> None:
        self._sources = [(weight.detach(), weight._version) for weight in weights]
        self._made: dict[str, Tensor] = {}

    def fits(self, weights: list[Tensor]) -> bool:
        """True if `weights` still are what this was made from. The sources are held, so their addresses are theirs."""
        pairs = zip(self._sources, weights, strict=True)
        return all(a.data_ptr() == b.data_ptr() and version == b._version for (a, version), b in pairs)

    def weight(self) -> Tensor:
        """(O, I, 3), of all."""
        if len(self._sources) == 1:
            return self._sources[0][0]
        if "weight" not in self._made:
            self._made["weight"] = torch.cat([source for source, _ in self._sources])
        return self._made["weight"]

    def forward(self) -> Tensor:
        """(8, I, O)."""
        if "forward" not in self._made:
            self._made["forward"] = _transformed(self.weight().permute(2, 1, 0))
        return self._made["forward"]

    def backward(self) -> Tensor:
        """(8, O, I): the filter that carries gradients back."""
        if "backward" not in self._made:
            self._made["backward"] = _transformed(self.weight().permute(2, 0, 1).flip(0))
        return self._made["backward"]

    def taps(self) -> Tensor:
        """(I, 3 O) or (I, O): the taps side by side."""
        if "taps" not in self._made:
            self._made["taps"] = side_by_side(self.weight())
        return self._made["taps"]


def side_by_side(weight: Tensor) -> Tensor:
    """(O, I, k) -> (I, k O)."""
    return weight.permute(1, 2, 0).flatten(1)


class Grid(NamedTuple):
    """Windows of a row: `dilation` sequences side by side, which are one that is so many times as wide."""

    rows: int
    dilation: int

    @property
    def windows(self) -> int:
        """Number of windows, each of six outputs."""
        return math.ceil(math.ceil(self.rows / self.dilation) / OUTPUTS)


class Source:
    """The input of a convolution: x, lrelu(x), lrelu(x) + shift or lrelu(scale x + shift), never stored as such."""

    def __init__(self, x: Tensor, scale: Tensor | None, shift: Tensor | None, activate: bool) -> None:
        self.channels, none = x.shape[1], x.new_empty(0)
        if scale is not None:
            self.mode = kernels.MODULATED
        else:
            self.mode = (kernels.PLAIN if not activate else kernels.ACTIVATED) if shift is None else kernels.POSITIONED
        self.arrays = [_flat(none if part is None else part) for part in (x, scale, shift)]
        self.slope = self.arrays[0].dtype.type(SLOPE)

    def spread(self, grid: Grid, first: int, mixed: Tensor) -> None:
        """Windows `first`, ..., transformed, into `mixed` (8, windows of all sequences, C)."""
        wide = mixed.view(WINDOW, -1, grid.dilation * self.channels).numpy()
        x, scale, shift = self.arrays
        kernels.spread(self.mode, x, scale, shift, self.slope, wide.shape[2], first, wide)

    def carry_back(self, grid: Grid, first: int, raised: Tensor) -> None:
        """The output's windows `first`, ..., carried back to where the products are."""
        wide = raised.view(WINDOW, -1, grid.dilation * self.channels).numpy()
        kernels.spread_gradient(self.arrays[0], wide.shape[2], first, wide)


def _flat(x: Tensor) -> Any:
    return x.detach().contiguous().view(-1).numpy()


def _convolve(
    source: Source, grid: Grid, filters: Tensor, bias: Tensor, residual: Tensor | None, parts: int
) -> list[Tensor]:
    """`parts` times (L, O / parts)."""
    (_, I, O), d = filters.shape, grid.dilation
    outs = [filters.new_empty(grid.rows, O // parts) for _ in range(parts)]
    added = [_flat(part if d == 1 else part.repeat(d)) for part in bias.chunk(parts)]
    other, flat = _flat(filters.new_empty(0) if residual is None else residual), [_flat(out) for out in outs]

    def work(first: int, last: int) -> None:
        count = last - first
        mixed, product = parallel.scratch(filters.dtype, (WINDOW, d * count, I), (WINDOW, d * count, O))
        source.spread(grid, first, mixed)
        torch.bmm(mixed, filters, out=product)
        wide = product.view(WINDOW, count, d * O).numpy()
        for i in range(parts):
            kernels.gather(wide, i * (O // parts), added[i], other, first, flat[i])

    with parallel.pool():
        parallel.each(work, parallel.portions(0, grid.windows, d * WINDOW * (I + O), d))
    return outs


def _gradients(
    source: Source, grad: Tensor, grid: Grid, filters: Tensor | None, of_weight: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Those of the input and of the weight (O, I, 3), in one pass over time.

    The input's with `filters` only, that is of the activated one or, if it is modulated, of x, scale and shift.
    """
    (I, O), d = (source.channels, grad.shape[1]), grid.dilation
    behind, modulated = Source(grad, None, None, False), source.mode == kernels.MODULATED
    inputs = [] if filters is None else [grad.new_empty(grid.rows, I) for _ in range(3 if modulated else 1)]
    flat, nothing, none = [_flat(part) for part in inputs], _flat(grad.new_zeros(d * I)), _flat(grad.new_empty(0))
    with parallel.pool():
        shares = parallel.shares(grid.windows)
        # Every share adds up what is its own, so that the order of a sum does not depend on who was free.
        totals = grad.new_empty(len(shares) if of_weight else 0, WINDOW, O, I)

        def work(share: int) -> None:
            begin, end = shares[share]
            for first, last in parallel.portions(begin, end, d * WINDOW * (I + O), d, least=1):
                count = last - first
                mixed, raised = parallel.scratch(grad.dtype, (WINDOW, d * count, I), (WINDOW, d * count, O))
                if of_weight:
                    source.spread(grid, first, mixed)
                    behind.carry_back(grid, first, raised)
                    beta = 0 if first == begin else 1  # what was in the memory before does not count, not even NaN
                    total = totals[share]
                    torch.baddbmm(total, raised.transpose(1, 2), mixed, beta=beta, out=total)
                if filters is not None:
                    behind.spread(grid, first, raised)
                    torch.bmm(raised, filters, out=mixed)
                    wide = mixed.view(WINDOW, count, d * I).numpy()
                    kernels.gather(wide, 0, nothing, none, first, flat[-1])
                    if modulated:
                        rows = slice(OUTPUTS * first * d * I, OUTPUTS * last * d * I)
                        x, scale, shift, of_x, of_scale, of_shift = (array[rows] for array in (*source.arrays, *flat))
                        kernels.modulation_gradient(x, scale, shift, source.slope, of_shift, of_x, of_scale)

        parallel.each(work, [(share,) for share in range(len(shares))])
    if not of_weight:
        return inputs, None
    taps = torch.mm(_of_filter(grad.dtype).t().repeat(1, len(shares)), totals.view(-1, O * I))
    weight = grad.new_empty(O, I, 3)
    for k in range(3):  # a transpose is several times as slow
        weight[:, :, k] = taps[k].view(O, I)
    return inputs, weight


def worthwhile(weight: Tensor, rows: int, dilation: int) -> bool:
    """True if Winograd is the faster way."""
    windows = Grid(rows, dilation).windows * dilation
    return min(weight.shape[:2]) >= _FEWEST_CHANNELS and windows >= _FEWEST_WINDOWS and windows * WINDOW < 2 * rows


class Prepared(NamedTuple):
    """Arguments of a convolution besides tensors."""

    filter: Filter
    dilation: int
    activate: bool
    parts: int = 1


class Convolution(torch.autograd.Function):
    """conv(lrelu(scale x + shift)), conv(lrelu(x) + shift), conv(lrelu(x)) or conv(x); plus `residual` if any.

    Returns `parts` tensors, each its share of the outputs. Of the activations the arguments alone are kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        residual: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        how: Prepared,
    ) -> tuple[Tensor, ...]:
        """(L, I) -> (L, O), or `parts` times (L, O / parts)."""
        ctx.how = how
        ctx.save_for_backward(x, scale, shift)
        source, grid = Source(x, scale, shift, how.activate), Grid(len(x), how.dilation)
        return tuple(_convolve(source, grid, how.filter.forward(), bias, residual, how.parts))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the seven arguments."""
        x, scale, shift = ctx.saved_tensors
        how, grid = ctx.how, Grid(len(x), ctx.how.dilation)
        need_x, need_scale, need_shift, need_residual, need_weight, need_bias, _ = ctx.needs_input_grad
        grad = (grads[0] if how.parts == 1 else torch.cat(grads, 1)).contiguous()
        source = Source(x, scale, shift, how.activate)
        filters = how.filter.backward() if need_x or need_scale or need_shift else None
        inputs, of_weight = _gradients(source, grad, grid, filters, need_weight)
        of_bias = grad.sum(0) if need_bias else None
        of_residual = grad if need_residual else None
        of_x = of_scale = of_shift = None
        if scale is not None and inputs:
            of_x, of_scale, of_shift = inputs
        elif inputs:
            of_shift = inputs[0].sum(0, keepdim=True) if need_shift else None
            of_x = torch.ops.aten.leaky_relu_backward(inputs[0], x, SLOPE, False) if how.activate else inputs[0]
        return of_x, of_scale, of_shift, of_residual, of_weight, of_bias, None


__all__ = ["Convolution", "Filter", "Prepared", "side_by_side", "worthwhile"]
