"""Assignment of sentences to the splits of a corpus."""

from __future__ import annotations

import hashlib


def split_of(text: str, *, seed: int, validation_fraction: float, test_fraction: float) -> str:
    """'train', 'validation' or 'test', from a hash of the text (case ignored) and the seed."""
    place = int(digest(f"{seed}:{' '.join(text.lower().split())}")[:16], 16) / 2**64
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def digest(text: str) -> str:
    """SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
