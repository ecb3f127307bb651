"""The ARPAbet, with the stress digits of the CMU dictionary, and the three silences of aligned corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlzoo.errors import DataError

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = tuple(str.split("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"))
SILENCES = ("sp", "spn", "sil")
"""Short pause inside a sentence, noise or unknown word, silence at the ends."""

ARPABET = tuple(sorted((*CONSONANTS, *(vowel + stress for vowel in VOWELS for stress in ("", "0", "1", "2")))))
"""84 phones in alphabetical order: consonants, and vowels bare and with the stress digits 0, 1, 2."""


def strip_stress(phone: str) -> str:
    """'EH1' -> 'EH'; 'AH0' stays, because bare 'AH' is the vowel of 'cut' and 'AH0' the schwa."""
    return phone if phone == "AH0" else phone.rstrip("012")


def phone_rows(phones: Sequence[str], rows: Mapping[str, int]) -> list[int]:
    """['HH', 'AH0', 'sp'] -> their rows of a policy's embedding; `rows` has all of ARPABET and SILENCES.

    Raises:
        DataError: a phone that is neither ARPAbet nor one of the silences.
    """
    unknown = sorted({phone for phone in phones if phone not in rows})
    if unknown:
        raise DataError(
            f"unknown phone(s): {', '.join(map(repr, unknown))}",
            "use ARPAbet in upper case, vowels bare or with a stress digit ('AH0'), and 'sp', 'spn', 'sil'",
        )
    return [rows[phone] for phone in phones]
