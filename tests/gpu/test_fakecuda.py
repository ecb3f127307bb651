"""The device that is none: it allows what CUDA allows, refuses what CUDA refuses, and counts launches and waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from rlzoo.testing.fakecuda import FakeCuda


def here() -> torch.Tensor:
    return torch.arange(6.0).view(3, 2)


def there() -> torch.Tensor:
    return torch.arange(6.0, device="cuda").view(3, 2)


def lstm(training: bool) -> torch.Tensor:
    layer = nn.LSTM(2, 3, batch_first=True).to("cuda").train(training)
    return layer(there()[None])[0].sum()


REFUSED: dict[str, Callable[[], object]] = {
    "tensors of both devices": lambda: here() + there(),
    "a scalar of the GPU written to the CPU": lambda: here().add_(there()[0, 0]),
    "rows of both in one": lambda: torch.cat([here(), there()]),
    "a product": lambda: there() @ here().t(),
    "a mask of the CPU": lambda: torch.where(here() > 1, there(), 0.0),
    "an index of the GPU on the CPU": lambda: here()[torch.tensor([0], device="cuda")],
    "values of the CPU written by an index": lambda: there().index_put_((torch.tensor([0]),), here()[:1]),
    "a scatter of the CPU's values": lambda: there().scatter_add_(0, torch.zeros(3, 2).long().cuda(), here()),
    "an embedding's rows": lambda: nn.Embedding(3, 2).to("cuda")(torch.tensor([1])),
    "a module left behind": lambda: nn.Linear(2, 2)(there()),
    "an array": lambda: there().numpy(),
    "a generator of the CPU": lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
    "a generator of the GPU": lambda: torch.randn(2, generator=torch.Generator("cuda")),
    "packed lengths on the GPU": lambda: pack_padded_sequence(there()[None], torch.tensor([3]).cuda(), True),
    "cuDNN's backward pass in eval mode": lambda: lstm(training=False).backward(),
    "a gradient of another device": lambda: setattr(nn.Parameter(there()), "grad", here()),
    "pinned memory of the GPU": lambda: there().pin_memory(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses_is_refused(gpu: FakeCuda, what: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"device|numpy|generator|training mode|lengths|pin"):
        REFUSED[what]()


ALLOWED: dict[str, Callable[[], torch.Tensor]] = {
    "a scalar of the CPU": lambda: there() * torch.tensor(2.0),
    "an index of the CPU": lambda: there()[torch.tensor([0, 2])],
    "one value of the CPU": lambda: there().index_put((torch.tensor([0]),), torch.tensor(5.0)),
    "a copy between devices": lambda: there().copy_(here()),
    "a layer and its gradient": lambda: lstm(training=True),
    "a factory like a tensor": lambda: there() + torch.zeros_like(there()),
    "its own generator": lambda: torch.randn(2, device="cuda", generator=torch.Generator("cuda")),
    "a trained layer": lambda: trained(),
}


def trained() -> torch.Tensor:
    layer = nn.Linear(2, 1).to("cuda")
    optimizer = torch.optim.AdamW(layer.parameters())
    torch.utils.checkpoint.checkpoint(layer, there(), use_reentrant=False).sum().backward()
    nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    optimizer.step()
    return layer.weight


@pytest.mark.parametrize("what", ALLOWED)
def test_what_cuda_allows_is_allowed_and_stays_there(gpu: FakeCuda, what: str) -> None:
    found = ALLOWED[what]()
    assert found.is_cuda
    assert found.device == torch.device("cuda", 0)
    if found.requires_grad and found.grad_fn is not None:
        found.backward()


WAITS: dict[str, tuple[int, Callable[[], object]]] = {
    "a number": (1, lambda: float(there().sum())),
    "a condition": (1, lambda: bool((there() > 2).any())),
    "a list": (1, lambda: there().tolist()),
    "a mask": (1, lambda: there()[there() > 1]),
    "a value written by a mask": (0, lambda: there().masked_fill_(there() > 1, 0.0)),
    "nonzero": (1, lambda: there().nonzero()),
    "unknown repetitions": (1, lambda: torch.repeat_interleave(torch.ones(2, device="cuda").long())),
    "a new tensor": (1, lambda: torch.tensor([1.0], device="cuda")),
    "a tensor like another": (1, lambda: there().new_tensor([1.0])),
    "to the device": (1, lambda: here().to("cuda")),
    "back": (1, lambda: there().cpu()),
    "from pinned memory": (0, lambda: here().pin_memory().to("cuda", non_blocking=True)),
    "from pinned memory, blocking": (1, lambda: here().pin_memory().to("cuda")),
    "where it is already": (0, lambda: there().to("cuda")),
    "an index of the CPU": (0, lambda: there()[1]),
    "a list as index": (1, lambda: there()[[0, 1]]),
    "arithmetic": (0, lambda: (there() * 2 + 1).softmax(1).sum()),
    "torch.istft": (1, lambda: torch.istft(torch.ones(5, 4, device="cuda") + 0j, 8, window=torch.ones(8).cuda())),
}


@pytest.mark.parametrize("what", WAITS)
def test_waits_are_counted(gpu: FakeCuda, what: str) -> None:
    wanted, work = WAITS[what]
    with gpu.counted() as found:
        work()
    extra = 1 if what == "torch.istft" else 0  # the window, which is moved there
    assert found.waits == wanted + extra, found.where
    assert all(place.startswith("test_fakecuda.py:") for place in found.where)


def test_kernels_are_counted_and_views_are_free(gpu: FakeCuda) -> None:
    x = there().requires_grad_()
    with gpu.counted() as found:
        y = (x[None] * 2).sum()
    assert found.kernels == 2
    with gpu.counted() as found:
        y.backward()
    assert found.kernels == 2  # ones, and times two
    with gpu.counted() as found:
        (here() * 2).sum()
    assert found.kernels == found.waits == 0


def test_what_is_written_to_one_device_is_not_seen_in_the_other(gpu: FakeCuda) -> None:
    x = here()
    copy = x.to("cuda")
    x.zero_()
    assert copy.sum() == 15


def test_what_was_made_before_is_on_the_cpu() -> None:
    x = here()
    with FakeCuda(), pytest.raises(RuntimeError, match="same device"):
        x + there()
    with FakeCuda():
        assert x.device.type == "cpu"


def test_threads_have_the_device(gpu: FakeCuda) -> None:
    found: list[torch.device] = []
    thread = threading.Thread(target=lambda: found.append(there().device))
    thread.start()
    thread.join()
    assert found == [torch.device("cuda", 0)]


def test_inside_a_backward_pass_tensors_know_their_device(gpu: FakeCuda) -> None:
    seen: list[torch.device] = []

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            seen.append(gradient.device)
            return gradient * torch.full((1,), 2.0, device=gradient.device)

    x = there().requires_grad_()
    Twice.apply(x).sum().backward()
    assert seen == [torch.device("cuda", 0)]
    assert x.grad.is_cuda


def test_files_remember_the_device(gpu: FakeCuda, tmp_path: Path) -> None:
    torch.save({"x": there(), "y": here()}, tmp_path / "x.pt")
    assert torch.load(tmp_path / "x.pt")["x"].is_cuda
    assert not torch.load(tmp_path / "x.pt", map_location="cpu")["x"].is_cuda


def test_files_of_the_device_need_a_place_where_there_is_none(tmp_path: Path) -> None:
    with FakeCuda():
        torch.save(there(), tmp_path / "x.pt")
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(tmp_path / "x.pt")
    assert torch.load(tmp_path / "x.pt", map_location="cpu").sum() == 15


def test_it_leaves_everything_as_it_was() -> None:
    before = torch.load, torch.Generator, threading.Thread.run, torch.cuda.is_available
    with FakeCuda():
        assert torch.cuda.is_available()
    assert (torch.load, torch.Generator, threading.Thread.run, torch.cuda.is_available) == before
    assert not torch.cuda.is_available()
