"""Same-length three-tap convolutions of one row on the CPU, with less than half the multiplications.

Winograd's F(6, 3) (Lavin and Gray, arXiv:1509.09308) along time: six outputs of a three-tap filter cost eight products
instead of eighteen. Rows are (L, C), time first, so that every transform is a small matrix times a strided view and the
products are one batched matrix product: no extension is compiled. Results differ from a direct convolution's by
rounding, about 1e-6 of their norm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo_wavegrad2.network.layers import SLOPE

_OUTPUTS, _POINTS = 6, (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Outputs of a window, and where its polynomials are evaluated besides infinity: simple numbers round least."""
_WINDOW = len(_POINTS) + 1
_FEWEST_CHANNELS, _FEWEST_WINDOWS = 32, 16
"""Below these the transforms cost more than the products they save (measured)."""
_SCRATCH, _FEWEST_TOGETHER = 2**19, 256
"""Floats of scratch that stay in a core's cache, and windows that are worth reading all filters for (measured)."""


def _polynomial(roots: list[float]) -> list[float]:
    """Coefficients of the product of (x - root), lowest power first, as many as a window has rows."""
    coefficients = [1.0]
    for root in roots:
        raised, scaled = [0.0, *coefficients], [*coefficients, 0.0]
        coefficients = [a - root * b for a, b in zip(raised, scaled, strict=True)]
    return coefficients + [0.0] * (_WINDOW - len(coefficients))


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of input (8, 8), output (6, 8) and filter (8, 3)."""
    others = [[q for q in _POINTS if q != p] for p in _POINTS]
    of_input = [_polynomial(rest) for rest in others] + [_polynomial(list(_POINTS))]
    of_output = [[p**i for p in _POINTS] + [float(i == _OUTPUTS - 1)] for i in range(_OUTPUTS)]
    scales = [math.prod(p - q for q in rest) for p, rest in zip(_POINTS, others, strict=True)]
    of_filter = [[p**k / scale for k in range(3)] for p, scale in zip(_POINTS, scales, strict=True)] + [[0.0, 0.0, 1.0]]
    made = [torch.tensor(matrix, dtype=torch.float64).to(dtype) for matrix in (of_input, of_output, of_filter)]
    return made[0], made[1], made[2]


class Filter:
    """Convolutions' weights, one above the other, in the forms that the products want, made when first asked for."""

    def __init__(self, weights: list[Tensor]) -> None:
        self._sources = [(weight.detach(), weight._version) for weight in weights]
        self._made: dict[str, Tensor] = {}

    def fits(self, weights: list[Tensor]) -> bool:
        """Whether `weights` still are what this was made from. The sources are held, so their addresses are theirs."""
        pairs = zip(self._sources, weights, strict=True)
        return all(a.data_ptr() == b.data_ptr() and version == b._version for (a, version), b in pairs)

    def weight(self) -> Tensor:
        """(O, I, 3), of all."""
        if len(self._sources) == 1:
            return self._sources[0][0]
        if "weight" not in self._made:
            self._made["weight"] = torch.cat([source for source, _ in self._sources])
        return self._made["weight"]

    def _get(self, name: str, weight: Tensor) -> Tensor:
        if name not in self._made:
            O, I, _ = weight.shape
            flat = weight.permute(2, 1, 0).reshape(3, I * O)
            self._made[name] = torch.mm(_matrices(weight.dtype)[2], flat).view(_WINDOW, I, O)
        return self._made[name]

    def forward(self) -> Tensor:
        """(8, I, O)."""
        return self._made["forward"] if "forward" in self._made else self._get("forward", self.weight())

    def backward(self) -> Tensor:
        """(8, O, I): the filter that carries gradients back."""
        return self._get("backward", self.weight().flip(2).transpose(0, 1))

    def taps(self) -> Tensor:
        """(I, 3 O) or (I, O): the taps side by side."""
        if "taps" not in self._made:
            self._made["taps"] = side_by_side(self.weight())
        return self._made["taps"]


def side_by_side(weight: Tensor) -> Tensor:
    """(O, I, k) -> (I, k O)."""
    return weight.permute(1, 2, 0).flatten(1)


class Grid(NamedTuple):
    """How a row lies in its room: one phase of the dilation behind the other, each between zeros.

    A dilated convolution is as many interleaved ones, and so laid out they are a single one: windows of eight rows, six
    apart, go on from phase to phase, and what a phase's last window sees of the next is the zero in front of it.
    """

    rows: int
    dilation: int

    @property
    def windows(self) -> int:
        """Of one phase."""
        return -(-(-(-self.rows // self.dilation) + 1) // _OUTPUTS)

    def room(self, channels: int, like: Tensor) -> Tensor:
        """Zeros where no row will lie, (windows of all phases x 6 + 2, C)."""
        full, size = self.rows // self.dilation, self.windows * _OUTPUTS
        room = like.new_empty(self.dilation * size + 2, channels)
        room[-2:].zero_()
        phases = room[:-2].view(self.dilation, size, channels)
        phases[:, 0].zero_()
        phases[:, 1 + full :].zero_()
        return room

    def inside(self, room: Tensor) -> list[Tensor]:
        """Where in the room the parts of the row lie that `split` makes: behind the zero in front."""
        return self.parts(room[1 : 1 + self.dilation * self.windows * _OUTPUTS])

    def parts(self, flat: Tensor) -> list[Tensor]:
        """The same in (windows of all phases x 6, C), which starts with the row's first."""
        full, rest = divmod(self.rows, self.dilation)
        if self.dilation == 1:
            return [flat[: self.rows]]
        phases = flat.view(self.dilation, -1, flat.shape[1])
        body = phases[:, :full].transpose(0, 1)
        return [body, phases[:rest, full]] if rest else [body]

    def split(self, x: Tensor) -> list[Tensor]:
        """(L, C) in views that match the room's: (L // dilation, dilation, C) and what is left over."""
        full, rest = divmod(self.rows, self.dilation)
        if self.dilation == 1:
            return [x]
        body = x[: full * self.dilation].unflatten(0, (full, self.dilation))
        return [body, x[full * self.dilation :]] if rest else [body]


def _portions(windows: int, floats: int) -> Iterator[tuple[int, int]]:
    """(first, count) of windows that are dealt with together, `floats` of scratch for each."""
    most = max(_SCRATCH / floats, _FEWEST_TOGETHER)
    step = -(-windows // max(1, round(windows / most)))
    for first in range(0, windows, step):
        yield first, min(step, windows - first)


def _products(room: Tensor, grid: Grid, filters: Tensor, bias: Tensor | None, parts: int) -> list[Tensor]:
    """`parts` times (windows x 6, O / parts): the convolution of what lies in `room`."""
    n, (_, I, O) = grid.dilation * grid.windows, filters.shape
    of_input, of_output, _ = _matrices(room.dtype)
    windows, back = _windows(room, n), of_output.expand(n, _OUTPUTS, _WINDOW)
    outs = [room.new_empty(n, _OUTPUTS, O // parts) for _ in range(parts)]
    scratch = _Scratch(room)
    for first, count in _portions(n, _WINDOW * (I + O)):
        mixed, product = scratch.take((count, _WINDOW, I), (_WINDOW, count, O))
        torch.bmm(of_input.expand(count, _WINDOW, _WINDOW), windows[first : first + count], out=mixed)
        torch.bmm(mixed.transpose(0, 1), filters, out=product)
        if bias is not None:
            # What is added at the point one is added to every output.
            product[_POINTS.index(1.0)].add_(bias)
        for out, part in zip(outs, product.transpose(0, 1).chunk(parts, 2), strict=True):
            torch.bmm(back[:count], part, out=out[first : first + count])
    return [out.flatten(0, 1) for out in outs]


def _weight_gradient(room: Tensor, spread: Tensor, grid: Grid) -> Tensor:
    """(O, I, 3) from the input's room and the output gradient's."""
    n, I, O = grid.dilation * grid.windows, room.shape[1], spread.shape[1]
    of_input, of_output, of_filter = _matrices(room.dtype)
    windows, grads = _windows(room, n), spread[1 : 1 + n * _OUTPUTS].view(n, _OUTPUTS, O)
    total, scratch = room.new_zeros(_WINDOW, I, O), _Scratch(room)
    for first, count in _portions(n, _WINDOW * (I + O)):
        mixed, raised = scratch.take((count, _WINDOW, I), (count, _WINDOW, O))
        torch.bmm(of_input.expand(count, _WINDOW, _WINDOW), windows[first : first + count], out=mixed)
        torch.bmm(of_output.t().expand(count, _WINDOW, _OUTPUTS), grads[first : first + count], out=raised)
        torch.baddbmm(total, mixed.permute(1, 2, 0), raised.transpose(0, 1), out=total)
    return torch.mm(of_filter.t(), total.flatten(1)).view(3, I, O).permute(2, 1, 0)


def _windows(room: Tensor, count: int) -> Tensor:
    """(windows, 8, C), overlapping views."""
    channels = room.shape[1]
    return room.as_strided((count, _WINDOW, channels), (_OUTPUTS * channels, channels, 1))


class _Scratch:
    """The same memory again and again, so that it stays in a core's cache."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._memory = like, like.new_empty(0)

    def take(self, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Uninitialised tensors, in place of the last ones."""
        sizes = [math.prod(shape) for shape in shapes]
        if len(self._memory) < sum(sizes):
            self._memory = self._like.new_empty(sum(sizes))
        parts = self._memory[: sum(sizes)].split(sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def worthwhile(weight: Tensor, rows: int, dilation: int) -> bool:
    """Whether Winograd is the faster way."""
    windows = Grid(rows, dilation).windows * dilation
    return min(weight.shape[:2]) >= _FEWEST_CHANNELS and windows >= _FEWEST_WINDOWS and windows * _WINDOW < 2 * rows


def _wide(x: Tensor) -> Tensor:
    """(L, C) as a channels-last image, the same memory."""
    return x.t()[None, :, None]


class Prepared(NamedTuple):
    """What a convolution needs to know, besides tensors."""

    filter: Filter
    dilation: int
    winograd: bool
    activate: bool
    parts: int = 1


class Convolution(torch.autograd.Function):
    """conv(lrelu(scale x + shift)), conv(lrelu(x) + shift), conv(lrelu(x)) or conv(x); plus `residual` if any.

    Returns `parts` tensors, each its share of the outputs. Of the activations the input and its room alone are kept.
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
        grid = Grid(len(x), how.dilation if how.winograd else 1)
        room = grid.room(x.shape[1], x)
        modulation = [grid.split(scale), grid.split(shift)] if scale is not None and shift is not None else []
        for inside, part, *factors in zip(grid.inside(room), grid.split(x), *modulation, strict=True):
            if factors:
                F.leaky_relu_(torch.addcmul(factors[1], factors[0], part, out=inside), SLOPE)
            elif how.activate:
                torch.ops.aten.leaky_relu.out(part, SLOPE, out=inside)
                if shift is not None:
                    inside.add_(shift)
            else:
                inside.copy_(part)
        ctx.how, ctx.grid = how, grid
        ctx.save_for_backward(x, scale, room, weight)
        if not how.winograd:
            image, d = _wide(grid.inside(room)[0]), how.dilation
            out = F.conv2d(image, weight[:, :, None], bias, padding=(0, d), dilation=(1, d))[0, :, 0].t()
            out = out if residual is None else out.add_(residual)
            return tuple(part.contiguous() for part in out.chunk(how.parts, 1))
        products = _products(room, grid, how.filter.forward(), bias, how.parts)
        return tuple(_gathered(grid, product, residual) for product in products)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the seven arguments."""
        x, scale, room, weight = ctx.saved_tensors
        how, grid = ctx.how, ctx.grid
        need_x, need_scale, need_shift, need_residual, need_weight, need_bias, _ = ctx.needs_input_grad
        need_input = need_x or need_scale or need_shift
        grad = grads[0] if how.parts == 1 else torch.cat(grads, 1)
        of_weight = of_input = None
        if how.winograd:
            spread = grid.room(grad.shape[1], grad)
            for inside, part in zip(grid.inside(spread), grid.split(grad), strict=True):
                inside.copy_(part)
            if need_input:
                [product] = _products(spread, grid, how.filter.backward(), None, 1)
                of_input = _gathered(grid, product, None)
            if need_weight:
                of_weight = _weight_gradient(room, spread, grid)
        else:
            wanted = [need_input, need_weight, False]
            found = torch.ops.aten.convolution_backward(
                _wide(grad.contiguous()), _wide(grid.inside(room)[0]), weight[:, :, None], None,
                [1, 1], [0, how.dilation], [1, how.dilation], False, [0, 0], 1, wanted,
            )  # fmt: skip
            of_input = found[0][0, :, 0].t() if need_input else None
            of_weight = found[1][:, :, 0] if need_weight else None
        of_bias = grad.sum(0) if need_bias else None
        of_residual = grads[0] if need_residual else None
        if of_input is None:
            return None, None, None, of_residual, of_weight, of_bias, None
        if scale is None:
            of_shift = of_input.sum(0, keepdim=True) if need_shift else None
            of_x = torch.ops.aten.leaky_relu_backward(of_input, x, SLOPE, False) if how.activate else of_input
            return of_x, None, of_shift, of_residual, of_weight, of_bias, None
        # The slope is positive, so the sign of what came out is the sign of what went in.
        for inside, part in zip(grid.inside(room), grid.split(of_input), strict=True):
            torch.ops.aten.leaky_relu_backward.grad_input(part, inside, SLOPE, True, grad_input=part)
        return of_input * scale, of_input * x, of_input, of_residual, of_weight, of_bias, None


def _gathered(grid: Grid, product: Tensor, residual: Tensor | None) -> Tensor:
    """(L, O) out of the room in which a product lies, plus `residual`."""
    if grid.dilation == 1:
        out = product[: grid.rows]
        return out if residual is None else out.add_(residual)
    out = product.new_empty(grid.rows, product.shape[1])
    others = None if residual is None else grid.split(residual)
    for i, (target, part) in enumerate(zip(grid.split(out), grid.parts(product), strict=True)):
        if others is None:
            target.copy_(part)
        else:
            torch.add(part, others[i], out=target)
    return out


__all__ = ["Convolution", "Filter", "Prepared", "side_by_side", "worthwhile"]
