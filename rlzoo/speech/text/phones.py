"""The ARPAbet, with the stress digits of the CMU dictionary, and the three silences of aligned corpora."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rlzoo.errors import DataError

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = tuple(str.split("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"))
SILENCES = ("sp", "spn", "sil")
"""Short pause inside a sentence, noise or unknown word, silence at the ends."""

ARPABET = tuple(sorted((*CONSONANTS, *(vowel + stress for vowel in VOWELS for stress in ("", "0", "1", "2")))))
"""84 phones in alphabetical order: consonants, and vowels bare and with the stress digits 0, 1, 2."""

KNOWN = frozenset((*ARPABET, *SILENCES))


def nearest(phone: str, learnt: Collection[str]) -> str | None:
    """The learnt phone that stands for `phone`: itself, the vowel with another stress, another silence; None for none.

    The schwa `AH0` and the vowel of 'cut' (`AH`, `AH1`, `AH2`) are two vowels, and never stand for each other, but
    where a source has no stress at all: there `AH` is both.
    """
    if phone in learnt:
        return phone
    if phone in SILENCES:
        return next((other for other in ("sil", "sp", "spn") if other in learnt), None)
    vowel = phone.rstrip("012")
    if vowel not in VOWELS:
        return None
    if phone == "AH0":
        return "AH" if "AH" in learnt and not any(other[-1].isdigit() for other in learnt) else None
    digits = {"0": "021", "1": "120", "2": "210"}.get(phone[-1], "120")
    options = [vowel + digit for digit in digits if vowel + digit != "AH0"]
    return next((other for other in [*options, vowel] if other in learnt), None)


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
