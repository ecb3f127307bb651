"""Convolutions of upsampled rows on the CPU: channels are mixed at the coarse rate, `factor` times cheaper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rlzoo import parallel
from rlzoo_wavegrad2.network import kernels
from rlzoo_wavegrad2.network.layers import polyphase_table


class Raised(torch.autograd.Function):
    """conv(upsample(x)), (n + 2, I) -> (factor n, O), of the taps side by side, (I, taps O), and a bias.

    The outer two rows are neighbours. `start`, `end`: whether the utterance begins or ends here; there the fine
    convolution is zero padded where interpolation repeats the edge, and the difference is taken off again.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, beside: Tensor, bias: Tensor, factor: int, start: bool, end: bool) -> Tensor:
        """`factor` times as many rows as `x` has between its neighbours."""
        n, O, columns = len(x) - 2, len(bias), beside.shape[1]
        taps = columns // O
        table = polyphase_table(factor, taps, x).transpose(1, 2).reshape(factor, 3 * taps)
        ctx.save_for_backward(x, beside)
        ctx.table, ctx.about = table, (taps, start, end)
        fine = x.new_empty(factor * n, O)
        weights, added, out = table.numpy(), bias.detach().numpy(), fine.numpy()

        def work(first: int, last: int) -> None:
            [mixed] = parallel.scratch(x.dtype, (last - first + 2, columns))
            torch.mm(x[first : last + 2], beside, out=mixed)
            kernels.interpolate(mixed.numpy(), weights, added, out[first * factor : last * factor])
            if taps == 3 and start and first == 0:
                fine[0] -= mixed[1, :O]
            if taps == 3 and end and last == n:
                fine[-1] -= mixed[-2, 2 * O :]

        with parallel.pool():
            parallel.each(work, parallel.portions(0, n, columns))
        return fine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the first three arguments."""
        x, beside = ctx.saved_tensors
        taps, start, end = ctx.about
        grad, across = grads[0].contiguous(), beside.t()
        (rows, I), O, columns = x.shape, grad.shape[1], beside.shape[1]
        need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
        of_x, fine, weights = torch.empty_like(x) if need_x else None, grad.numpy(), ctx.table.numpy()
        with parallel.pool():
            shares = parallel.shares(rows)
            totals = x.new_empty(len(shares) if need_weight else 0, I, columns)

            def work(share: int) -> None:
                begin, finish = shares[share]
                for first, last in parallel.portions(begin, finish, columns, least=1):
                    [mixed] = parallel.scratch(x.dtype, (last - first, columns))
                    kernels.interpolate_gradient(fine, weights, first, mixed.numpy())
                    if taps == 3 and start and first <= 1 < last:
                        mixed[1 - first, :O] -= grad[0]
                    if taps == 3 and end and first <= rows - 2 < last:
                        mixed[rows - 2 - first, 2 * O :] -= grad[-1]
                    if of_x is not None:
                        torch.mm(mixed, across, out=of_x[first:last])
                    if need_weight:
                        total, beta = totals[share], 0 if first == begin else 1
                        torch.addmm(total, x[first:last].t(), mixed, beta=beta, out=total)

            parallel.each(work, [(share,) for share in range(len(shares))])
        of_beside, of_bias = totals.sum(0) if need_weight else None, grad.sum(0) if need_bias else None
        return of_x, of_beside, of_bias, None, None, None


__all__ = ["Raised"]
