"""English text to ARPAbet phones, offline: for policies that speak. Importing this loads no torch."""

from rlzoo.speech.text.frontend import TextFrontend, transcript
from rlzoo.speech.text.phones import ARPABET, SILENCES, VOWELS, phone_rows, strip_stress
from rlzoo.speech.text.scripts import unreadable

__all__ = ["ARPABET", "SILENCES", "VOWELS", "TextFrontend", "phone_rows", "strip_stress", "transcript", "unreadable"]
