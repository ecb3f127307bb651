"""Numbers in words: 1984 -> 'nineteen eighty four'. American usage, no 'and' inside a number."""

from __future__ import annotations

import re

_ONES = str.split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = str.split("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def cardinal(number: int) -> list[str]:
    """42 -> ['forty', 'two']. Above 10**18 the digits are read one by one; a negative number begins with 'minus'."""
    if number < 0:
        return ["minus", *cardinal(-number)]
    if number >= 1000 ** len(_SCALES):
        return digits(str(number))
    if number < 1000:
        return _below_thousand(number) or ["zero"]
    words: list[str] = []
    for power in range(len(_SCALES) - 1, -1, -1):
        group = number // 1000**power % 1000
        if group:
            words += _below_thousand(group) + ([_SCALES[power]] if power else [])
    return words


def _below_thousand(number: int) -> list[str]:
    words = [_ONES[number // 100], "hundred"] if number >= 100 else []
    number %= 100
    if number >= 20:
        words.append(_TENS[number // 10])
        number %= 10
    return [*words, _ONES[number]] if number else words


def ordinal(number: int) -> list[str]:
    """42 -> ['forty', 'second']."""
    *words, last = cardinal(number)
    if last in _ORDINALS:
        return [*words, _ORDINALS[last]]
    return [*words, last.removesuffix("y") + "ieth" if last.endswith("y") else last + "th"]


def digits(text: str) -> list[str]:
    """'407' -> ['four', 'zero', 'seven']."""
    return [_ONES[int(digit)] for digit in text]


def decimal(text: str) -> list[str]:
    """'3.14' -> 'three point one four'; '1,000' and '.5' are numbers too; leading zeros are read digit by digit."""
    whole, point, fraction = text.replace(",", "").partition(".")
    if len(whole) > 1 and whole.startswith("0"):
        words = digits(whole)
    else:
        words = cardinal(int(whole)) if whole else ["zero"]
    return [*words, "point", *digits(fraction)] if point and fraction else words


def year(number: int) -> list[str]:
    """1984 -> 'nineteen eighty four', 805 -> 'eight oh five', 1900 -> 'nineteen hundred', 2005 -> a number."""
    century, rest = divmod(number, 100)
    if not 100 <= number <= 9999 or (century % 10 == 0 and rest < 10):
        return cardinal(number)
    if rest == 0:
        return [*cardinal(century), "hundred"]
    return [*cardinal(century), *(["oh", _ONES[rest]] if rest < 10 else cardinal(rest))]


def plural(words: list[str]) -> list[str]:
    """['nineteen', 'eighty'] -> ['nineteen', 'eighties']."""
    *before, last = words
    if last.endswith("y"):
        return [*before, last[:-1] + "ies"]
    return [*before, last + ("es" if last.endswith("x") else "s")]


def fraction(numerator: int, denominator: int) -> list[str]:
    """3, 4 -> ['three', 'quarters']; above a hundred 'over': 3, 128 -> 'three over one hundred twenty eight'."""
    if denominator in (2, 4):
        name = [["half", "halves"], ["quarter", "quarters"]][denominator // 4][numerator != 1]
        return [*cardinal(numerator), name]
    if 2 < denominator <= 100:
        name_words = ordinal(denominator)
        return [*cardinal(numerator), *(name_words if numerator == 1 else plural(name_words))]
    return [*cardinal(numerator), "over", *cardinal(denominator)]


def roman(text: str) -> int | None:
    """'XIV' -> 14; None for letters that are not a well-formed numeral."""
    if not re.fullmatch("M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})", text) or not text:
        return None
    values = [_ROMAN[letter] for letter in text]
    return sum(-v if i + 1 < len(values) and v < values[i + 1] else v for i, v in enumerate(values))
