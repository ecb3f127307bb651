"""Addresses, telephones, abbreviations and Roman numerals as words; each function replaces a match of `rules.py`."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlzoo.speech.text import numerals
from rlzoo.speech.text.context import Match, say, spell_out
from rlzoo.speech.text.signs import ABBREVIATIONS, TRAILING

# Runs of capitals that are well-formed numerals, and mean something else more often.
_NOT_ROMAN = frozenset(str.split("MIX CD CC CV DC MC MD MM MI DI LL XL XXL DIV CIV LCD DVD DM CM MCC DCC VC CI"))


def roman_year(match: Match) -> str:
    """'MCMXCIX' -> nineteen ninety nine."""
    value = numerals.roman(match[0])
    return match[0] if value is None or value > 2100 else say(numerals.year(value))


def roman(match: Match, words: Callable[[int], list[str]]) -> str:
    """A numeral behind its head in words: 'Henry VIII' -> the eighth."""
    value = numerals.roman(match["roman"])
    if value is None:
        return match[0]
    said = f"{match['head']} {say(words(value))}"
    return said.rstrip() if match.string.startswith("'", match.end()) else said


def sequel(match: Match) -> str:
    """A name with a numeral: 'Rocky II', 'Final Fantasy VII'."""
    return match[0] if match["roman"] in _NOT_ROMAN else roman(match, numerals.cardinal)


def abbreviation(match: Match) -> str:
    """'etc.' -> et cetera; its stop may also end the sentence."""
    rest = match.string[match.end() :]
    ends = not rest.strip() or (match[1].lower() in TRAILING and re.match(r"\s+[A-Z]", rest))
    return ABBREVIATIONS[match[1].lower()] + (". " if match[0].endswith(".") and ends else " ")


def address(match: Match) -> str:
    """An address of the web, of a mailbox or of a file, sign by sign."""
    names = {".": " dot ", "@": " at ", "/": " slash ", "-": " dash ", ":": " colon ", "?": " question mark "}
    names |= {
        "\\": " backslash ",
        "=": " equals ",
        "&": " and ",
        "#": " hash ",
        "%": " percent ",
        "+": " plus ",
        "~": " tilde ",
    }
    said = re.sub(r"[^A-Za-z\d\s]", lambda m: names.get(m[0], " "), match[0].rstrip("/"))
    said = re.sub(r"\d+", lambda m: say(numerals.cardinal(int(m[0])) if len(m[0]) < 5 else numerals.digits(m[0])), said)
    said = re.sub(r"\b(doc|xls|ppt)x\b", r"\1 X_ ", said)
    # A string without a vowel is not a word: 'bbc', 'uk', 'www'.
    said = re.sub(
        r"\b(?:[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{2,}|uk|us|io|ai|edu|eu|exe|iso|ini|py)\b",
        lambda m: say(spell_out(m[0])),
        said,
    )
    # The mark keeps 'gov' and 'max' from the rules for abbreviations.
    return " " + re.sub(r"\b(?=[A-Za-z]{2})", "_", said) + " "


def phone_number(match: Match) -> str:
    """Digit by digit, with a pause between groups."""
    if match[0].startswith("+") and len(re.findall(r"\d", match[0])) < 8:
        return match[0]
    groups = [say(numerals.digits(group)) for group in re.findall(r"\d+", match[0])]
    return (" plus " if match[0].startswith("+") else " ") + ", ".join(groups) + " "


def postal_code(match: Match) -> str:
    """Digit by digit."""
    return match[1] + ", ".join(say(numerals.digits(group)) for group in match[2].split("-"))


def ordinal_roman(match: Match) -> str:
    """'XXth' -> twentieth."""
    value = numerals.roman(match["roman"] or match["century"])
    return match[0] if value is None else say(numerals.ordinal(value))
