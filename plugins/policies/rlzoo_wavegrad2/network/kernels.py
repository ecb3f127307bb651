"""Loops around the products of Winograd's convolution (see `winograd.py`), compiled by numba for this CPU.

Each kernel makes one pass over memory where PyTorch's operations would make several. Arrays are C-contiguous and of one
dtype, float32 or float64. None needs the interpreter's lock.

F(6, 3): a window of eight rows, six apart, gives six outputs. Its transforms have one row, or column, for each of seven
points at which polynomials are evaluated, and one for infinity. A convolution of dilation d is one of rows that are d
times as wide, so no kernel knows of dilation: sequences are flat, in rows of `width` numbers, the last of which may be
cut short, and what lies outside counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]

OUTPUTS, POINTS = 6, (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Outputs of a window, and the points besides infinity: simple numbers round least. Kernels want them in pairs."""
WINDOW = len(POINTS) + 1

Matrix = tuple[tuple[float, ...], ...]
Kernel = TypeVar("Kernel", bound=Callable[..., None])


def _polynomial(roots: list[float]) -> tuple[float, ...]:
    """Coefficients of the product of (x - root), lowest power first, as many as a window has rows."""
    coefficients = [1.0]
    for root in roots:
        raised, scaled = [0.0, *coefficients], [*coefficients, 0.0]
        coefficients = [a - root * b for a, b in zip(raised, scaled, strict=True)]
    return (*coefficients, *[0.0] * (WINDOW - len(coefficients)))


def _matrices() -> tuple[Matrix, Matrix, Matrix]:
    """The transforms of input (8, 8), output (6, 8) and filter (8, 3)."""
    others = [[q for q in POINTS if q != p] for p in POINTS]
    of_input = (*(_polynomial(rest) for rest in others), _polynomial(list(POINTS)))
    of_output = tuple((*(p**i for p in POINTS), float(i == OUTPUTS - 1)) for i in range(OUTPUTS))
    scales = [math.prod(p - q for q in rest) for p, rest in zip(POINTS, others, strict=True)]
    of_filter = (*(tuple(p**k / s for k in range(3)) for p, s in zip(POINTS, scales, strict=True)), (0.0, 0.0, 1.0))
    return of_input, of_output, of_filter


OF_INPUT, OF_OUTPUT, OF_FILTER = _matrices()
# Constants to the compiler; names as short as the formulas they stand in. b: of input, a: of output.
_b0, _b1, _b3, _b5, _b7 = OF_INPUT[0], OF_INPUT[1], OF_INPUT[3], OF_INPUT[5], OF_INPUT[7]
_a1, _a3, _a5 = (tuple(row[p] for row in OF_OUTPUT) for p in (1, 3, 5))

PLAIN, ACTIVATED, POSITIONED, MODULATED = range(4)
"""Inputs x, lrelu(x), lrelu(x) + shift with one row of shifts, and lrelu(scale x + shift)."""


def _compiled(kernel: Kernel) -> Kernel:
    # A product and the sum behind it may round once instead of twice; nothing else is relaxed.
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        made: Kernel = numba.njit(cache=True, **how)(kernel)
    except RuntimeError:  # neither this folder nor the user's cache can be written to: every process compiles anew
        made = numba.njit(**how)(kernel)
    return made


@_compiled
def _transform_input(d: Array, begin: int, out: Array, i: int) -> None:
    """out[:, i] = OF_INPUT @ rows `begin`, ... of the ring `d`: points p and -p share their even and odd powers."""
    number = d.dtype.type
    d0, d1, d2, d3 = d[begin & 7], d[begin + 1 & 7], d[begin + 2 & 7], d[begin + 3 & 7]
    d4, d5, d6, d7 = d[begin + 4 & 7], d[begin + 5 & 7], d[begin + 6 & 7], d[begin + 7 & 7]
    o0, o1, o2, o3 = out[0, i], out[1, i], out[2, i], out[3, i]
    o4, o5, o6, o7 = out[4, i], out[5, i], out[6, i], out[7, i]
    for c in range(d.shape[1]):
        x1, x2, x3, x4, x5, x6 = d1[c], d2[c], d3[c], d4[c], d5[c], d6[c]
        o0[c] = number(_b0[0]) * d0[c] + number(_b0[2]) * x2 + number(_b0[4]) * x4 + number(_b0[6]) * x6
        even = number(_b1[2]) * x2 + number(_b1[4]) * x4 + number(_b1[6]) * x6
        odd = number(_b1[1]) * x1 + number(_b1[3]) * x3 + number(_b1[5]) * x5
        o1[c], o2[c] = even + odd, even - odd
        even = number(_b3[2]) * x2 + number(_b3[4]) * x4 + number(_b3[6]) * x6
        odd = number(_b3[1]) * x1 + number(_b3[3]) * x3 + number(_b3[5]) * x5
        o3[c], o4[c] = even + odd, even - odd
        even = number(_b5[2]) * x2 + number(_b5[4]) * x4 + number(_b5[6]) * x6
        odd = number(_b5[1]) * x1 + number(_b5[3]) * x3 + number(_b5[5]) * x5
        o5[c], o6[c] = even + odd, even - odd
        o7[c] = number(_b7[1]) * x1 + number(_b7[3]) * x3 + number(_b7[5]) * x5 + number(_b7[7]) * d7[c]


@_compiled
def spread(mode: int, x: Array, scale: Array, shift: Array, slope: float, width: int, first: int, mixed: Array) -> None:
    """Windows `first`, ... of the activated `x`, transformed, into `mixed` (8, windows, width).

    `scale` and `shift` are like `x` where `mode` is `MODULATED`; `POSITIONED`: `shift` is (width,).
    """
    ring = np.zeros((WINDOW, width), x.dtype)
    for i in range(mixed.shape[1]):
        start = OUTPUTS * (first + i) - 1
        for row in range(start + (0 if i == 0 else WINDOW - OUTPUTS), start + WINDOW):
            out, begin = ring[row & 7], row * width
            count = max(0, min(width, len(x) - begin)) if row >= 0 else 0
            if count < width:
                out[count:] = 0
            if count > 0:
                part = x[begin : begin + count]
                if mode == PLAIN:
                    for c in range(count):
                        out[c] = part[c]
                elif mode == MODULATED:
                    factor, term = scale[begin : begin + count], shift[begin : begin + count]
                    for c in range(count):
                        inner = factor[c] * part[c] + term[c]
                        out[c] = max(inner, slope * inner)
                else:
                    for c in range(count):
                        out[c] = max(part[c], slope * part[c])
                    if mode == POSITIONED:
                        for c in range(count):
                            out[c] += shift[c]
        _transform_input(ring, start, mixed, i)


@_compiled
def _transform_output(m: Array, i: int, begin: int, bias: Array, out: Array) -> None:
    """out = OF_OUTPUT @ m[:, i, begin:] + bias, as wide as `out`."""
    number, end = m.dtype.type, begin + out.shape[1]
    m0, m1, m2, m3 = m[0, i, begin:end], m[1, i, begin:end], m[2, i, begin:end], m[3, i, begin:end]
    m4, m5, m6, m7 = m[4, i, begin:end], m[5, i, begin:end], m[6, i, begin:end], m[7, i, begin:end]
    o0, o1, o2, o3, o4, o5 = out[0], out[1], out[2], out[3], out[4], out[5]
    for c in range(out.shape[1]):
        b = bias[c]
        even1, even3, even5 = m1[c] + m2[c], m3[c] + m4[c], m5[c] + m6[c]
        odd1, odd3, odd5 = m1[c] - m2[c], m3[c] - m4[c], m5[c] - m6[c]
        o0[c] = b + m0[c] + even1 + even3 + even5
        o1[c] = b + number(_a1[1]) * odd1 + number(_a3[1]) * odd3 + number(_a5[1]) * odd5
        o2[c] = b + number(_a1[2]) * even1 + number(_a3[2]) * even3 + number(_a5[2]) * even5
        o3[c] = b + number(_a1[3]) * odd1 + number(_a3[3]) * odd3 + number(_a5[3]) * odd5
        o4[c] = b + number(_a1[4]) * even1 + number(_a3[4]) * even3 + number(_a5[4]) * even5
        o5[c] = b + number(_a1[5]) * odd1 + number(_a3[5]) * odd3 + number(_a5[5]) * odd5 + m7[c]


@_compiled
def gather(product: Array, begin: int, bias: Array, residual: Array, first: int, out: Array) -> None:
    """Rows of windows `first`, ... into `out`: columns `begin`, ... of `product` (8, windows, ...), transformed.

    Rows are as wide as `bias`, which is added, and so is `residual`, which is like `out`, unless it is empty.
    """
    width = len(bias)
    six = np.empty((OUTPUTS, width), out.dtype)
    for i in range(product.shape[1]):
        _transform_output(product, i, begin, bias, six)
        for j in range(OUTPUTS):
            at = (OUTPUTS * (first + i) + j) * width
            count = min(width, len(out) - at)
            if count <= 0:
                break
            target, source = out[at : at + count], six[j]
            if len(residual) > 0:
                other = residual[at : at + count]
                for c in range(count):
                    target[c] = source[c] + other[c]
            else:
                for c in range(count):
                    target[c] = source[c]


@_compiled
def spread_gradient(grad: Array, width: int, first: int, raised: Array) -> None:
    """The transpose of `gather`: what rows of windows `first`, ... of `grad` are to `raised` (8, windows, width)."""
    number = grad.dtype.type
    six = np.zeros((OUTPUTS, width), grad.dtype)
    g0, g1, g2, g3, g4, g5 = six[0], six[1], six[2], six[3], six[4], six[5]
    for i in range(raised.shape[1]):
        for j in range(OUTPUTS):
            at = (OUTPUTS * (first + i) + j) * width
            count = max(0, min(width, len(grad) - at))
            six[j, :count] = grad[at : at + count]
            six[j, count:] = 0
        o0, o1, o2, o3 = raised[0, i], raised[1, i], raised[2, i], raised[3, i]
        o4, o5, o6, o7 = raised[4, i], raised[5, i], raised[6, i], raised[7, i]
        for c in range(width):
            x1, x2, x3, x4, x5 = g1[c], g2[c], g3[c], g4[c], g5[c]
            o0[c], o7[c] = g0[c], x5
            even = g0[c] + number(_a1[2]) * x2 + number(_a1[4]) * x4
            odd = number(_a1[1]) * x1 + number(_a1[3]) * x3 + number(_a1[5]) * x5
            o1[c], o2[c] = even + odd, even - odd
            even = g0[c] + number(_a3[2]) * x2 + number(_a3[4]) * x4
            odd = number(_a3[1]) * x1 + number(_a3[3]) * x3 + number(_a3[5]) * x5
            o3[c], o4[c] = even + odd, even - odd
            even = g0[c] + number(_a5[2]) * x2 + number(_a5[4]) * x4
            odd = number(_a5[1]) * x1 + number(_a5[3]) * x3 + number(_a5[5]) * x5
            o5[c], o6[c] = even + odd, even - odd


@_compiled
def modulation_gradient(
    x: Array, scale: Array, shift: Array, slope: float, grad: Array, of_x: Array, of_scale: Array
) -> None:
    """From the gradient of lrelu(scale x + shift) those of all three, of `shift` in place of `grad`. All flat."""
    for c in range(len(x)):
        inner = scale[c] * x[c] + shift[c]
        g = grad[c] if inner > 0 else slope * grad[c]
        grad[c], of_x[c], of_scale[c] = g, scale[c] * g, x[c] * g


@_compiled
def interpolate(mixed: Array, table: Array, bias: Array, fine: Array) -> None:
    """(n + 2, taps C) -> `fine` (factor n, C): three neighbours' taps by `table` (factor, 3 taps), plus `bias`."""
    factor, terms = table.shape
    channels = len(bias)
    flat = mixed.reshape(-1)
    for row in range(len(fine)):
        n, phase = divmod(row, factor)
        out, w, at = fine[row], table[phase], n * mixed.shape[1]
        part = flat[at : at + terms * channels].reshape(terms, channels)
        if terms == 3:
            s0, s1, s2 = part[0], part[1], part[2]
            for c in range(channels):
                out[c] = bias[c] + w[0] * s0[c] + w[1] * s1[c] + w[2] * s2[c]
        else:
            s0, s1, s2, s3, s4, s5, s6, s7, s8 = (
                part[0], part[1], part[2], part[3], part[4], part[5], part[6], part[7], part[8],
            )  # fmt: skip
            w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
            for c in range(channels):
                early = w0 * s0[c] + w1 * s1[c] + w2 * s2[c]
                same = w3 * s3[c] + w4 * s4[c] + w5 * s5[c]
                late = w6 * s6[c] + w7 * s7[c] + w8 * s8[c]
                out[c] = bias[c] + early + same + late


@_compiled
def interpolate_gradient(grad: Array, table: Array, first: int, mixed: Array) -> None:
    """The transpose of `interpolate`: rows `first`, ... of what `grad` (factor n, C) is to `mixed` (n + 2, taps C)."""
    factor, terms = table.shape
    channels, taps = grad.shape[1], terms // 3
    n = len(grad) // factor
    for i in range(len(mixed)):
        for tap in range(taps):
            out = mixed[i, tap * channels : (tap + 1) * channels]
            out[:] = 0
            for neighbour in range(3):
                own = first + i - neighbour
                if 0 <= own < n:
                    for phase in range(factor):
                        weight = table[phase, neighbour * taps + tap]
                        if weight != 0:
                            fine = grad[own * factor + phase]
                            for c in range(channels):
                                out[c] += weight * fine[c]
