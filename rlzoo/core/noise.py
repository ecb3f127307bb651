"""Random numbers of a run: each comes from a generator whose seed is a hash of what the number is for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from what identifies a draw; unlike `hash`, the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator_of(seed: int) -> torch.Generator:
    """A CPU generator: GPUs of different kinds draw different numbers."""
    return torch.Generator().manual_seed(seed)


def draw_noise(
    generators: Sequence[torch.Generator], shape: Sequence[int], lengths: Sequence[int], pinned: bool = False
) -> Tensor:
    """One standard normal draw per row, (N, *S) on the CPU: zero beyond a row's length, and nothing drawn for it.

    `pinned`: in memory from which a GPU copies by itself.
    """
    noise = torch.zeros(len(generators), *shape, pin_memory=pinned)
    for row, (generator, length) in enumerate(zip(generators, lengths, strict=True)):
        noise[row, ..., :length] = torch.randn(*shape[:-1], length, generator=generator)
    return noise
