"""Pieces of like length: every row once, back in order, whatever the device; a GPU's batches are tried on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlzoo.speech import wav2vec2


class Pretend(Tensor):
    """A tensor that says it is on a GPU, to see how rows would be put together there."""

    is_cuda = True  # type: ignore[assignment]


def pretend(lengths: list[int]) -> Tensor:
    return torch.tensor(lengths).as_subclass(Pretend)


def test_on_a_cpu_rows_go_alone() -> None:
    assert [piece.tolist() for piece in wav2vec2.pieces(torch.tensor([5, 9, 7]))] == [[1], [2], [0]]


def test_on_a_gpu_a_piece_holds_so_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wav2vec2, "SAMPLES_AT_ONCE", 20)
    lengths = [5, 9, 7, 30, 1, 6]
    found = [piece.tolist() for piece in wav2vec2.pieces(pretend(lengths))]
    assert found == [[3], [1, 2], [5, 0, 4]]
    for rows in found:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= 20


def test_rows_come_back_in_order_with_their_gradient() -> None:
    waves = torch.arange(12.0).view(3, 4).repeat(1, 300).requires_grad_()
    lengths = torch.tensor([500, 1200, 700])
    found = wav2vec2.in_pieces(lambda w, n: torch.stack([w.sum(1), n.float()], 1), waves, lengths)
    expected = torch.stack([waves[row, :size].sum() for row, size in enumerate(lengths.tolist())])
    # Rows are cut to their piece, which on a CPU is the row itself.
    assert torch.equal(found[:, 0], expected)
    assert found[:, 1].tolist() == lengths.tolist()
    found[1, 0].backward()
    assert waves.grad is not None
    assert waves.grad.sum(1).tolist() == [0, 1200, 0]


def test_a_short_row_is_lengthened() -> None:
    waves, lengths = wav2vec2.padded(torch.ones(2, 100), torch.tensor([50, 100]))
    assert waves.shape == (2, wav2vec2.MIN_SAMPLES)
    assert lengths.tolist() == [400, 400]
