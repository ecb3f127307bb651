"""Which row of the embedding belongs to which phone: `<pad>`, ARPAbet (vowels bare and with stress), silences."""

from __future__ import annotations

from collections.abc import Sequence

from rlzoo.errors import DataError
from rlzoo.text import ARPABET, SILENCES

SYMBOLS = ("<pad>", *ARPABET, *SILENCES)
ROWS = {symbol: row for row, symbol in enumerate(SYMBOLS)}


def phone_ids(phones: Sequence[str]) -> list[int]:
    """['HH', 'AH0', 'sil'] -> their rows.

    Raises:
        DataError: a phone that is neither ARPAbet nor one of the silences.
    """
    unknown = sorted({phone for phone in phones if phone not in ROWS})
    if unknown:
        raise DataError(
            f"unknown phone(s): {', '.join(map(repr, unknown))}",
            "use ARPAbet in upper case, vowels bare or with a stress digit ('AH0'), and 'sp', 'spn', 'sil'",
        )
    return [ROWS[phone] for phone in phones]
