"""The symbol table of the public WaveGrad 2 model: which row of the embedding belongs to which phone.

The table (151 rows) is: `<pad>`, the letters A-Z a-z, eleven punctuation marks, the ARPAbet phones each preceded by
'@' (a vowel bare and with the stress digits 0, 1, 2; a consonant bare), and three silences. Only the '@' rows ever see
training data, because training text is always a phone string.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from rlzoo.text import ARPABET, SILENCES, phone_rows

PAD = "<pad>"
PUNCTUATION = "!'(),-.:~? "
SYMBOLS = (
    PAD,
    *string.ascii_uppercase,
    *string.ascii_lowercase,
    *PUNCTUATION,
    *(f"@{p}" for p in (*ARPABET, *SILENCES)),
)
SYMBOL_IDS = {symbol: index for index, symbol in enumerate(SYMBOLS)}
PHONE_IDS = {phone: SYMBOL_IDS[f"@{phone}"] for phone in (*ARPABET, *SILENCES)}


def phone_ids(phones: Sequence[str]) -> list[int]:
    """['HH', 'AH0', 'sp'] -> their rows in the embedding; see `rlzoo.text.phone_rows`."""
    return phone_rows(phones, PHONE_IDS)
