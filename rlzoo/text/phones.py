"""The ARPAbet, with the stress digits of the CMU dictionary, and the three silences of aligned corpora."""

from __future__ import annotations

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = tuple(str.split("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"))
SILENCES = ("sp", "spn", "sil")
"""Short pause inside a sentence, noise or unknown word, silence at the ends."""

ARPABET = tuple(sorted((*CONSONANTS, *(vowel + stress for vowel in VOWELS for stress in ("", "0", "1", "2")))))
"""84 phones in alphabetical order: consonants, and vowels bare and with the stress digits 0, 1, 2."""


def strip_stress(phone: str) -> str:
    """'EH1' -> 'EH'; 'AH0' stays, because bare 'AH' is the vowel of 'cut' and 'AH0' the schwa."""
    return phone if phone == "AH0" else phone.rstrip("012")
