"""Rows of the embedding by phone: `<pad>`, ARPAbet (vowels bare and with stress), silences."""

from __future__ import annotations

from collections.abc import Sequence

from rlzoo.text import ARPABET, SILENCES, phone_rows

SYMBOLS = ("<pad>", *ARPABET, *SILENCES)
ROWS = {symbol: row for row, symbol in enumerate(SYMBOLS)}


def phone_ids(phones: Sequence[str]) -> list[int]:
    """['HH', 'AH0', 'sil'] -> their rows; see `rlzoo.text.phone_rows`."""
    return phone_rows(phones, ROWS)
