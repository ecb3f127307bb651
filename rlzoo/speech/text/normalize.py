"""Written English to spoken words: numbers, dates, times, money, units, abbreviations, acronyms, symbols.

`spoken(text)` returns lower-case words with PAUSE where punctuation asks for one. Nothing here knows phones, but the
caller says which words are in its dictionary, because capitals spell out only what cannot be read as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from anyascii import anyascii

from rlzoo.speech.text import numerals

PAUSE = ","
Match = re.Match[str]

_MONTHS = str.split("january february march april may june july august september october november december")
_MONTH = "|".join(f"{m}|{m[:4]}\\.?|{m[:3]}\\.?" for m in (month.capitalize() for month in _MONTHS))
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_SCALES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}
_SCALE = r"(?:hundred|thousand|million|billion|trillion|[kK]|M|m|bn|B)\b"

# Before folding to ASCII, which knows letters but not how a sign is spoken.
_SIGNS = {
    "€": " EUR ", "£": " GBP ", "¥": " JPY ", "₹": " INR ", "°": " degrees ", "×": " times ", "÷": " divided by ",
    "±": " plus or minus ", "≈": " about ", "≤": " at most ", "≥": " at least ", "²": " squared ", "³": " cubed ",
    "½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "©": " copyright ", "™": "", "®": "", "–": " -- ", "—": " -- ",
    "…": " ... ", "−": "-", "µ": "u", "μ": "u", "§": " section ", "•": ", ", "·": " ", "‘": "'", "’": "'",
    "ʼ": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‐": "-", "‑": "-", "\u200b": "", "\ufeff": "",
}  # fmt: skip
_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "JPY": ("yen", "yen", "sen", "sen"),
    "INR": ("rupee", "rupees", "paisa", "paise"),
}
_UNITS = {
    "km/h": "kilometer per hour", "mph": "mile per hour", "m/s": "meter per second", "km": "kilometer",
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "um": "micrometer", "nm": "nanometer", "kg": "kilogram",
    "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ft": "foot", "mi": "mile",
    "yd": "yard", "kHz": "kilohertz", "khz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "Hz": "hertz",
    "hz": "hertz", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte",
    "ms": "millisecond", "us": "microsecond", "s": "second", "sec": "second", "min": "minute", "hr": "hour",
    "hrs": "hour", "h": "hour", "l": "liter", "L": "liter", "ml": "milliliter", "mL": "milliliter", "kW": "kilowatt",
    "kWh": "kilowatt hour", "W": "watt", "V": "volt", "dB": "decibel", "db": "decibel", "dpi": "dot per inch",
}  # fmt: skip
_ABBREVIATIONS = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "messrs": "messers", "prof": "professor", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "rev": "reverend", "hon": "honorable",
    "pres": "president", "gov": "governor", "sen": "senator", "rep": "representative", "jr": "junior", "sr": "senior",
    "esq": "esquire", "etc": "et cetera", "vs": "versus", "approx": "approximately", "dept": "department",
    "est": "established", "inc": "incorporated", "ltd": "limited", "corp": "corporation", "co": "company",
    "bros": "brothers", "ave": "avenue", "blvd": "boulevard", "rd": "road", "mt": "mount", "ft": "fort",
    "vol": "volume", "fig": "figure", "figs": "figures", "eq": "equation", "sec": "section", "pp": "pages",
    "ed": "edition", "al": "al", "cf": "compare", "viz": "namely", "tel": "telephone", "ext": "extension",
    "mon": "monday", "tue": "tuesday", "tues": "tuesday", "wed": "wednesday", "thu": "thursday", "thur": "thursday",
    "thurs": "thursday", "fri": "friday",
}  # fmt: skip
# Words of ordinary text too: an abbreviation only with its full stop and something after it.
_DOTTED_ONLY = frozenset(
    str.split("ms gen co ed al sec est fig mon wed sat sun rep hon ave rev eq ext col inc tel thu fri")
)
_TRAILING = frozenset(str.split("etc jr sr inc ltd corp co bros esq"))
# Two capitals that are an emphasised word rather than an acronym.
_SHORT_WORDS = frozenset(str.split("am an as at be by do go he hi if in is me my no of oh on or so to up we"))
_PLURALS = frozenset(str.split("people men women children feet teeth mice geese sheep fish percent dollars"))
_NO_PLURALS = frozenset(str.split("is was has does as his its this us thus perhaps always"))
_LETTER_NAMES = frozenset("abcdefghijklmnopqrstuvwxyz")
_KINGS = (
    "King|Queen|Pope|Louis|Henry|Edward|George|Charles|James|Richard|William|Elizabeth|Napoleon|Frederick|Philip|"
    "John Paul|Benedict|Pius"
)
_PARTS = (
    "(?i:Chapter|Part|Volume|Book|Act|Scene|Section|War|Type|Phase|Level|Class|Title|Article|Appendix|Table|Figure)"
)


def spoken(text: str, known: Callable[[str], bool] = lambda word: False) -> list[str]:
    """'Dr. Lee paid $3.50.' -> ['doctor', 'lee', 'paid', 'three', 'dollars', 'fifty', 'cents', PAUSE].

    Args:
        known: whether a lower-case word is in the dictionary; decides about capitals ('NASA' is read, 'GPU' spelled).
    """
    folded = _fold(text).replace("_", " ")
    for pattern, replace in _RULES:
        folded = pattern.sub(replace, folded)
    # A text all in capitals is read as words; a lone acronym is not such a text.
    shouting = not re.search("[a-z]", _fold(text)) and len(re.findall("[A-Z]{2,}", text)) > 2
    words: list[str] = []
    for token in re.findall(r"[A-Z]_|[A-Za-z']+|[^\sA-Za-z\d']+", folded):
        words += _token(token, known, shouting)
    return _collapse(words)


def _fold(text: str) -> str:
    for sign, name in _SIGNS.items():
        text = text.replace(sign, name)
    # Emoji and other pictures have no reading; anyascii would name them.
    text = "".join(" " if unicodedata.category(char) in ("So", "Sk", "Cc", "Cf") else char for char in text)
    return anyascii(unicodedata.normalize("NFKC", text))


def _say(words: list[str]) -> str:
    return " " + " ".join(words) + " "


def _money(match: Match) -> str:
    one, many, small_one, small_many = _CURRENCIES[match["unit"] or match["after"]]
    amount = match["amount"].replace(",", "")
    if match["scale"]:
        return _say([*numerals.decimal(amount), _SCALES.get(match["scale"].lower(), match["scale"]), many])
    whole, _, part = amount.partition(".")
    if part and len(part) != 2:
        return _say([*numerals.decimal(amount), many])
    units, cents = int(whole or 0), int(part or 0)
    words = [*numerals.cardinal(units), one if units == 1 else many] if units or not cents else []
    words += [*numerals.cardinal(cents), small_one if cents == 1 else small_many] if cents else []
    return _say(words)


def _time(match: Match) -> str:
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour > 24 or minute > 59:
        return _say([*numerals.cardinal(hour), *numerals.cardinal(minute)])
    half = _letters(match["half"] or "")
    words = numerals.cardinal(hour)
    if minute:
        words += (["oh"] if minute < 10 else []) + numerals.cardinal(minute)
    elif not half:
        words += ["o'clock"] if 0 < hour <= 12 else ["hundred", "hours"]
    if match["second"]:
        words += ["and", *numerals.cardinal(int(match["second"])), "seconds"]
    return _say(words + half)


def _date(year: str, month: str, day: str) -> str:
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
        return _say([*numerals.cardinal(int(month)), *numerals.cardinal(int(day)), *numerals.cardinal(int(year))])
    return _say([_MONTHS[int(month) - 1], *numerals.ordinal(int(day)), *numerals.year(int(year))])


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name.lower().rstrip(".")[:3]))


def _unit(match: Match) -> str:
    number, unit = match["number"], match["unit"]
    name = _UNITS[unit]
    head, _, tail = name.partition(" ")
    if number.replace(",", "") not in ("1",) and not head.endswith("hertz"):
        head = "feet" if head == "foot" else head + "s"
        if tail == "hour" and head == "kilowatts":
            head, tail = "kilowatt", "hours"
    return _say([*numerals.decimal(number), head, tail])


def _counts_things(match: Match) -> bool:
    """Whether a number that may be a year stands before a plural: '1412 bottles', but 'in 1412 bottles were'."""
    if re.search(
        r"(?i)\b(?:in|since|by|until|till|before|after|during|of|from|year)\s+$", match.string[: match.start()]
    ):
        return False
    following = re.match(r"\s+([a-z]+)\b", match.string[match.end() :])
    if following is None:
        return False
    word = following[1]
    return word in _PLURALS or (word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS)


def _plain(match: Match) -> str:
    sign = ["minus"] if match["sign"] else []
    number = match["number"]
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", number) and not sign and not _counts_things(match):
        return _say(numerals.year(int(number)))
    return _say(sign + numerals.decimal(number))


def _roman(match: Match, words: Callable[[int], list[str]]) -> str:
    value = numerals.roman(match["roman"])
    return match[0] if value is None else f"{match['head']} {_say(words(value))}"


def _abbreviation(match: Match) -> str:
    # The stop of 'etc.' may also end the sentence.
    rest = match.string[match.end() :]
    ends = not rest.strip() or (match[1].lower() in _TRAILING and re.match(r"\s+[A-Z]", rest))
    return _ABBREVIATIONS[match[1].lower()] + (". " if match[0].endswith(".") and ends else " ")


def _initials(match: Match) -> str:
    # 'U.S.' at the end of a sentence ends it too, but a missing pause is milder than one after every 'U.S.'.
    return _say(_letters(match[0]))


def _letters(text: str) -> list[str]:
    """'p.m.' -> ['P_', 'M_']: the mark keeps a letter's name apart from a word of one letter."""
    return [letter.upper() + "_" for letter in re.findall("[A-Za-z]", text)]


def _address(match: Match) -> str:
    names = {".": " dot ", "@": " at ", "/": " slash ", "-": " dash ", "_": " underscore ", ":": " colon "}
    return re.sub(r"[.@/_:\-]", lambda m: names[m[0]], match[0].removesuffix("/")).replace("www", " W_ W_ W_ ")


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


def _month_day(match: Match) -> str:
    return _say([_month(match["month"]), *numerals.ordinal(int(match["day"]))])


def _day_month(match: Match) -> str:
    return _say([*numerals.ordinal(int(match["day"])), _month(match["month"])])


def _hour(match: Match) -> str:
    return _say([*numerals.cardinal(int(match[1])), *_letters(match[2] + "m")])


def _phone_number(match: Match) -> str:
    return ", ".join(_say(numerals.digits(group)) for group in match.groups())


def _version(match: Match) -> str:
    return " point ".join(_say(numerals.decimal(part)) for part in match[0].split("."))


def _mixed(match: Match) -> str:
    part = ["a", "half"] if (match[2], match[3]) == ("1", "2") else numerals.fraction(int(match[2]), int(match[3]))
    return _say([*numerals.cardinal(int(match[1])), "and", *part])


def _regnal(match: Match) -> str:
    return _roman(match, lambda number: ["the", *numerals.ordinal(number)])


_TEMPERATURES = {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}
_EMAIL = r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_SITE = r"\bwww\.[\w-]+(?:\.[\w-]+)+(?:/[\w-]*)*|\b[\w-]+\.(?:com|org|net|edu|gov|io)\b(?:/[\w-]*)*"
_UNIT = "|".join(sorted(_UNITS, key=len, reverse=True))
_CODE = r"\b(?:EUR|GBP|JPY|INR)\b"
_ABBREVIATED_WITH_STOP = "|".join(sorted(_DOTTED_ONLY & set(_ABBREVIATIONS)))
_ABBREVIATED = "|".join(sorted(set(_ABBREVIATIONS) - _DOTTED_ONLY))

# In this order: whoever comes first takes the digits and stops that belong to it.
_RULES: list[tuple[re.Pattern[str], Callable[[Match], str] | str]] = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        (r"\d{19,}", lambda m: " ".join(m[0])),
        (r"(?i)https?://", ""),
        (rf"(?i){_EMAIL}|{_SITE}", _address),
        (r"(?<![\d.])\d+(?:\.\d+){2,}\b", _version),
        (r"\b(\d{4})-(\d{2})-(\d{2})\b", lambda m: _date(m[1], m[2], m[3])),
        (r"\b(\d{1,2})/(\d{1,2})/(\d{4})\b", lambda m: _date(m[3], m[1], m[2])),
        (rf"(?P<unit>\$|{_CODE})\s*(?P<amount>{_NUMBER})(?:\s*(?P<scale>{_SCALE}))?(?P<after>)", _money),
        (rf"(?P<amount>{_NUMBER})(?:\s*(?P<scale>{_SCALE}))?\s*(?P<after>\$|{_CODE})(?P<unit>)", _money),
        (
            r"(?i)\b(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?"
            r"(?:\s*(?P<half>[ap]\.m\.|[ap]\.?m\b))?",
            _time,
        ),
        (r"(?i)\b(\d{1,2})\s*([ap])\.?m\b\.?", _hour),
        (rf"\b(?P<month>{_MONTH})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,\s*(?=\d{{4}}\b))?", _month_day),
        (rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?P<month>{_MONTH})(?=\W|$)", _day_month),
        (r"\b(Jan|Feb|Aug|Sept|Sep|Oct|Nov|Dec)\.(?=\s)", lambda m: _month(m[1])),
        (r"\b(\d{2,4})'?s\b", lambda m: _say(numerals.plural(numerals.year(int(m[1]))))),
        (r"(?i)\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: _say(numerals.ordinal(_integer(m[1])))),
        (r"\(?\b(\d{3})\)?[ -](\d{3})-(\d{4})\b", _phone_number),
        (r"\b(\d{3})-(\d{4})\b", _phone_number),
        (r"\b(\d+)\s+(\d+)/(\d+)\b", _mixed),
        (r"\b(\d+)/(\d+)\b", lambda m: _say(numerals.fraction(int(m[1]), int(m[2])))),
        (r"(?<=\d)\s*-{1,2}\s*(?=\d)", " to "),
        (rf"(?P<number>{_NUMBER})\s*%", lambda m: _say([*numerals.decimal(m["number"]), "percent"])),
        (r"\bdegrees\s+([CFK])\b", lambda m: "degrees " + _TEMPERATURES[m[1]]),
        (rf"(?P<number>{_NUMBER})\s?(?P<unit>{_UNIT})\b(?!\.\w|')", _unit),
        (r"\bNos?\.\s*(?=\d)", "number "),
        (r"#\s*(?=\d)", " number "),
        (rf"\b(?P<head>{_KINGS})\s+(?P<roman>[IVX]+)\b", _regnal),
        (rf"\b(?P<head>{_PARTS})\s+(?P<roman>[IVXLC]+)\b", lambda m: _roman(m, numerals.cardinal)),
        (r"(?i)\be\.g\.,?", " for example, "),
        (r"(?i)\bi\.e\.,?", " that is, "),
        (r"\bPh\.?D\b\.?", " P_ H_ D_ "),
        (r"\b(?:[A-Za-z]\.){2,}", _initials),
        (r"\bDr\.?(?=\s+[A-Z])", "doctor "),
        (r"\bDr\.", "drive "),
        (r"\bSt\.?(?=\s+[A-Z])", "saint "),
        (r"\bSt\.", "street "),
        (rf"(?i)\b({_ABBREVIATED_WITH_STOP})\.(?=\s+[\w(])", _abbreviation),
        (rf"(?i)\b({_ABBREVIATED})\b\.?", _abbreviation),
        (r"(?<=\w)-(?=\w)", " "),
        (rf"(?P<sign>(?<![\w)])-)?(?P<number>{_NUMBER})", _plain),
        (_CODE, lambda m: _say([_CURRENCIES[m[0]][1]])),
        (r"&", " and "),
        (r"%", " percent "),
        (r"@", " at "),
        (r"(?<=\w)\s*=\s*(?=\w)", " equals "),
        (r"(?<=\w)\s*\+\s*(?=\w)|\+(?=\w)", " plus "),
    )
]


def _token(token: str, known: Callable[[str], bool], shouting: bool) -> list[str]:
    if token.endswith("_") and token[0].isalpha():
        return [token[0].lower() + "."]
    if not token[0].isalpha() and token[0] != "'":
        return [PAUSE] if re.search(r"[,.;:!?()\[\]-]", token) else []
    word = token if known(token.lower()) else token.strip("'")
    if not word:
        return []
    if not shouting and _is_spelled(word, known):
        return _spell(word)
    parts = re.findall(r"[A-Z]+(?![a-z'])|[A-Z]?[a-z']+|[A-Z]", word)
    if len(parts) > 1 and not (shouting or known(word.lower()) or re.sub("'?s$", "", word).isupper()):
        return [w for part in parts for w in _token(part, known, shouting)]
    return [word.lower()]


def _is_spelled(word: str, known: Callable[[str], bool]) -> bool:
    """Capitals that are read letter by letter: two of them, or more that the dictionary and the mouth cannot read."""
    letters = re.sub("'?s$", "", word)
    if len(letters) < 2 or not letters.isupper():
        return False
    if len(letters) == 2:
        return letters.lower() not in _SHORT_WORDS
    return not known(letters.lower()) and (len(letters) == 3 or not re.search("[AEIOUY]", letters))


def _spell(word: str) -> list[str]:
    letters, ending = re.fullmatch("(.*?)('?s)?", word).groups()  # type: ignore[union-attr]
    names = [letter.lower() + "." for letter in letters if letter.lower() in _LETTER_NAMES]
    return [*names[:-1], names[-1] + "'s"] if ending else names


def _collapse(words: list[str]) -> list[str]:
    """No pause at the start, none twice in a row."""
    kept: list[str] = []
    for word in words:
        if word != PAUSE or (kept and kept[-1] != PAUSE):
            kept.append(word)
    return kept
