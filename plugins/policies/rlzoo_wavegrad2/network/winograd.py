"""Same-length three-tap convolutions of one row on the CPU, with half the multiplications.

Winograd's F(4, 3) (Lavin and Gray, arXiv:1509.09308) along time: four outputs of a three-tap filter cost six products
instead of twelve. A dilated convolution is as many interleaved ones. Rows are (L, C), time first, so that every
transform is a small matrix times a strided view and every product a plain matrix product: no extension is compiled.
Results differ from a direct convolution's by rounding, about 1e-6 of their norm.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rlzoo_wavegrad2.network.layers import SLOPE

_INPUT = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
_FILTER = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_FEWEST_CHANNELS, _FEWEST_TILES = 64, 16
"""Below these the transforms cost more than the products they save (measured)."""


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The transforms of input, output and filter."""
    return _INPUT.to(dtype), _OUTPUT.to(dtype), _FILTER.to(dtype)


class Filter:
    """A convolution's weights in the forms that the products want, made when first asked for."""

    def __init__(self, weight: Tensor) -> None:
        self.source, self.version = weight.detach(), weight._version
        self._made: dict[str, Tensor] = {}

    def fits(self, weight: Tensor) -> bool:
        """Whether `weight` is still what this was made from. The source is held, so its address is its own."""
        return self.source.data_ptr() == weight.data_ptr() and self.version == weight._version

    def _get(self, name: str, weight: Tensor) -> Tensor:
        if name not in self._made:
            O, I, _ = weight.shape
            flat = weight.permute(2, 1, 0).reshape(3, I * O)
            self._made[name] = torch.mm(_matrices(weight.dtype)[2], flat).view(6, I, O)
        return self._made[name]

    def forward(self) -> Tensor:
        """(6, I, O)."""
        return self._get("forward", self.source)

    def backward(self) -> Tensor:
        """(6, O, I): the filter that carries gradients back."""
        return self._get("backward", self.source.flip(2).transpose(0, 1))


def padded(rows: int, channels: int, dilation: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Room for a row (rows, channels) between zeros, and the view of it that is to be written."""
    size = 4 * dilation * -(-rows // (4 * dilation)) + 2 * dilation
    room = like.new_empty(size, channels)
    room[:dilation].zero_()
    room[dilation + rows :].zero_()
    return room, room[dilation : dilation + rows]


def _products(room: Tensor, rows: int, dilation: int, filters: Tensor, bias: Tensor | None) -> Tensor:
    """(rows, O): the convolution of what lies in `room`, by Winograd."""
    _, I, O = filters.shape
    n = -(-rows // (4 * dilation))
    width = dilation * I
    windows = room.as_strided((n, 6, width), (4 * width, width, 1))
    mixed = torch.bmm(_matrices(room.dtype)[0].expand(n, 6, 6), windows).view(n, 6, dilation, I)
    out = room.new_empty(n if dilation > 1 else 0, 4, dilation, O)
    back = _matrices(room.dtype)[1].expand(n, 4, 6)
    for phase in range(dilation):
        product = torch.bmm(mixed[:, :, phase].transpose(0, 1), filters).transpose(0, 1)  # (n, 6, O)
        if dilation == 1:
            out = torch.bmm(back, product) if bias is None else torch.baddbmm(bias.expand(n, 4, O), back, product)
        elif bias is None:
            out[:, :, phase] = torch.bmm(back, product)
        else:
            out[:, :, phase] = torch.baddbmm(bias.expand(n, 4, O), back, product)
    return out.view(-1, O)[:rows]


def _weight_gradient(room: Tensor, grads: Tensor, rows: int, dilation: int) -> Tensor:
    """(O, I, 3) from the padded input and the padded output gradients."""
    I, O = room.shape[1], grads.shape[1]
    n = -(-rows // (4 * dilation))
    windows = room.as_strided((n, 6, dilation * I), (4 * dilation * I, dilation * I, 1))
    mixed = torch.bmm(_matrices(room.dtype)[0].expand(n, 6, 6), windows).view(n, 6, dilation, I)
    quads = grads[dilation : dilation + 4 * dilation * n].view(n, 4, dilation * O)
    spread = torch.bmm(_matrices(room.dtype)[1].t().expand(n, 6, 4), quads).view(n, 6, dilation, O)
    total = room.new_zeros(6, I, O)
    for phase in range(dilation):
        total.baddbmm_(mixed[:, :, phase].permute(1, 2, 0), spread[:, :, phase].transpose(0, 1))
    return torch.mm(_matrices(room.dtype)[2].t(), total.view(6, I * O)).view(3, I, O).permute(2, 1, 0)


def worthwhile(weight: Tensor, rows: int, dilation: int) -> bool:
    """Whether Winograd is the faster way."""
    return min(weight.shape[:2]) >= _FEWEST_CHANNELS and rows >= 4 * dilation * _FEWEST_TILES


def _wide(x: Tensor) -> Tensor:
    """(L, C) as a channels-last image, the same memory."""
    return x.t()[None, :, None]


def _direct(room: Tensor, rows: int, dilation: int, weight: Tensor, bias: Tensor | None) -> Tensor:
    image = _wide(room[: rows + 2 * dilation])
    return F.conv2d(image, weight[:, :, None], bias, dilation=(1, dilation))[0, :, 0].t()


class Prepared(NamedTuple):
    """What a convolution's backward needs to know about it, besides tensors."""

    filter: Filter
    dilation: int
    winograd: bool
    activate: bool


class Convolution(torch.autograd.Function):
    """conv(lrelu(scale x + shift)), conv(lrelu(x)) or conv(x); of the activations the padded input alone is kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor | None, shift: Tensor | None, weight: Tensor, bias: Tensor, how: Prepared
    ) -> Tensor:
        """(L, I) -> (L, O)."""
        rows, channels = x.shape
        room, inside = padded(rows, channels, how.dilation, x)
        if scale is not None and shift is not None:
            F.leaky_relu_(torch.addcmul(shift, scale, x, out=inside), SLOPE)
        elif how.activate:
            torch.ops.aten.leaky_relu.out(x, SLOPE, out=inside)
        else:
            inside.copy_(x)
        ctx.how = how
        ctx.save_for_backward(x, scale, room, weight)
        if how.winograd:
            return _products(room, rows, how.dilation, how.filter.forward(), bias)
        return _direct(room, rows, how.dilation, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the six arguments."""
        x, scale, room, weight = ctx.saved_tensors
        how, grad, rows = ctx.how, grads[0], x.shape[0]
        need_x, need_scale, _, need_weight, need_bias, _ = ctx.needs_input_grad
        need_input = need_x or need_scale
        of_weight = of_input = None
        if how.winograd:
            spread, inside = padded(rows, weight.shape[0], how.dilation, grad)
            inside.copy_(grad)
            if need_input:
                of_input = _products(spread, rows, how.dilation, how.filter.backward(), None)
            if need_weight:
                of_weight = _weight_gradient(room, spread, rows, how.dilation)
        else:
            image = _wide(room[: rows + 2 * how.dilation])
            wanted = [need_input, need_weight, False]
            found = torch.ops.aten.convolution_backward(
                _wide(grad.contiguous()), image, weight[:, :, None], None,
                [1, 1], [0, 0], [1, how.dilation], False, [0, 0], 1, wanted,
            )  # fmt: skip
            of_input = found[0][0, :, 0].t()[how.dilation : how.dilation + rows] if need_input else None
            of_weight = found[1][:, :, 0] if need_weight else None
        of_bias = grad.sum(0) if need_bias else None
        if of_input is not None and how.activate:
            active = room[how.dilation : how.dilation + rows]
            # The slope is positive, so the sign of what came out is the sign of what went in.
            of_input = torch.ops.aten.leaky_relu_backward(of_input, active, SLOPE, True)
        if scale is None or of_input is None:
            return of_input, None, None, of_weight, of_bias, None
        return of_input * scale, of_input * x, of_input, of_weight, of_bias, None


__all__ = ["Convolution", "Filter", "Prepared", "worthwhile"]
