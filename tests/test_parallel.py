"""Rows on cores: the same numbers and gradients, bit for bit, on any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, get_ident

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlzoo.parallel import map_rows


@contextmanager
def cores(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(6, 32, 5, padding=2), nn.SiLU(), nn.Conv1d(32, 6, 5, padding=2))


def numbers(net: nn.Module, x: Tensor, count: int) -> list[Tensor]:
    """Results and gradients with `count` cores."""
    leaf, parameters = x.clone().requires_grad_(), list(net.parameters())
    with cores(count):
        out = map_rows(lambda row, values: (1 + row) * net(values), leaf, parameters)
        grads = torch.autograd.grad(out.square().sum(), [leaf, *parameters])
        with torch.no_grad():
            silent = map_rows(lambda row, values: (1 + row) * net(values), x)
    assert torch.get_num_threads() == 1
    return [out.detach(), silent, *grads]


def test_rows_and_their_gradients_are_those_of_a_loop() -> None:
    net, x = network(), torch.randn(5, 6, 200, generator=torch.Generator().manual_seed(1))
    out, silent, to_x, *to_weights = numbers(net, x, 1)
    leaf = x.clone().requires_grad_()
    wanted = torch.cat([(1 + row) * net(leaf[row : row + 1]) for row in range(5)])
    assert torch.equal(out, wanted)
    assert torch.equal(silent, wanted)
    grads = torch.autograd.grad(wanted.square().sum(), [leaf, *net.parameters()])
    for found, expected in zip([to_x, *to_weights], grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_no_bit_depends_on_the_number_of_cores(count: int) -> None:
    net, x = network(), torch.randn(7, 6, 300, generator=torch.Generator().manual_seed(2))
    for one, many in zip(numbers(net, x, 1), numbers(net, x, count), strict=True):
        assert torch.equal(one, many)


def test_gradients_kept_in_float64_are_those_of_row_after_row() -> None:
    """To the last bit: an optimisation adds pieces of a batch up in float64, and may get several rows at once."""
    x = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for size in (1, 5):
        net = network()
        for parameter in net.parameters():
            parameter.grad_dtype = torch.float64
        for piece in x.split(size):
            map_rows(lambda row, one, net=net: net(one), piece, list(net.parameters())).square().sum().backward()
        found.append([parameter.grad for parameter in net.parameters()])
    for one_by_one, together in zip(*found, strict=True):
        assert together.dtype == torch.float64
        assert torch.equal(one_by_one, together)
    rounded = found[0][0].float().double()
    assert not torch.equal(rounded, found[0][0]), "float32 would have held these sums"


def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    net, x = network(), torch.randn(3, 6, 20)
    net[0].requires_grad_(False)
    out = map_rows(lambda row, values: net(values), x, list(net.parameters()))
    out.sum().backward()
    assert net[0].weight.grad is None
    assert net[2].weight.grad.abs().max() > 0
    assert not map_rows(lambda row, values: values * 2, x).requires_grad
    net.requires_grad_(False)
    assert not map_rows(lambda row, values: net(values), x, list(net.parameters())).requires_grad


def test_a_row_that_uses_nothing_trainable_gets_zeros() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    map_rows(lambda row, values: values.detach() if row == 1 else 3 * values, x).sum().backward()
    assert x.grad.tolist() == [[3, 3], [0, 0], [3, 3]]


@pytest.mark.parametrize("grad", [True, False])
def test_an_error_in_a_row_reaches_the_caller(grad: bool) -> None:
    def broken(row: int, values: Tensor) -> Tensor:
        if row == 3:
            raise ArithmeticError("row three")
        return values

    with cores(2), torch.set_grad_enabled(grad), pytest.raises(ArithmeticError, match="row three"):
        map_rows(broken, torch.ones(5, 2, requires_grad=grad))
    with cores(2):
        assert torch.equal(map_rows(lambda row, values: values + row, torch.zeros(4, 1)), torch.arange(4.0)[:, None])


def test_checkpointed_rows_may_meet_another_thread_when_they_are_computed_again() -> None:
    """Activation checkpointing replays what this thread saved, so it must see none of what rows save."""
    net, x, main = network(), torch.randn(3, 6, 20), get_ident()
    done: list[int] = []
    others = [Event(), Event()]

    def lopsided(row: int, values: Tensor) -> Tensor:
        """At first this thread computes one row of three, and the second time two or all."""
        again = len(done) // 3
        if (get_ident() == main) == (again == 0):
            assert others[again].wait(20)
        out: Tensor = net(values)
        done.append(row)
        if len(done) == 3 * again + 2:
            others[again].set()
        return out

    def loss(leaf: Tensor) -> Tensor:
        return map_rows(lopsided, leaf, list(net.parameters())).square().sum()

    leaf = x.clone().requires_grad_()
    with cores(2):
        found = torch.autograd.grad(checkpoint(loss, leaf, use_reentrant=False), [leaf, *net.parameters()])
    assert len(done) == 6  # three rows, twice
    expected = torch.autograd.grad(net(leaf).square().sum(), [leaf, *net.parameters()])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
