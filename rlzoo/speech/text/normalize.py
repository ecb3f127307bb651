"""Written English to spoken words: numbers, dates, times, money, units, abbreviations, acronyms, symbols.

`spoken(text)` returns lower-case words with PAUSE where punctuation asks for one. Nothing here knows phones, but the
caller says which words are in its dictionary, because capitals spell out only what cannot be read as a word.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable

from anyascii import anyascii

from rlzoo.speech.text import numerals
from rlzoo.speech.text.signs import (
    ABBREVIATIONS,
    CURRENCIES,
    DOLLARS,
    DOMAINS,
    DOTTED_ONLY,
    FILES,
    GREEK,
    NUMBERED,
    SCALES,
    SHORT_WORDS,
    SIGNS,
    SPELLED,
    SPELLED_CAPITALS,
    STATES,
    STREETS,
    TRAILING,
    UNITS,
)

PAUSE = ","
Match = re.Match[str]

_SIGNS = str.maketrans(SIGNS)
_MONTHS = str.split("january february march april may june july august september october november december")
_MONTH = "|".join(f"{m}|{m[:4]}\\.?|{m[:3]}\\.?" for m in (month.capitalize() for month in _MONTHS))
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_SCALE = r"(?:hundred|thousand|million|billion|trillion|[kK]|M|m|mn|bn|B|T)\b"
_PLURALS = frozenset(str.split("people men women children feet teeth mice geese sheep fish percent dollars"))
_NO_PLURALS = frozenset(str.split("is was has does as his its this us thus perhaps always"))
_LETTER_NAMES = frozenset("abcdefghijklmnopqrstuvwxyz")
_KINGS = (
    "King|Queen|Pope|Tsar|Czar|Emperor|Louis|Henry|Edward|George|Charles|James|Richard|William|Elizabeth|Napoleon|"
    "Frederick|Philip|John|Paul|Benedict|Pius|Leo|Gregory|Clement|Innocent|Urban|Boniface|Sixtus|Julius|Alexander|"
    "Nicholas|Peter|Catherine|Ivan|Francis|Ferdinand|Alfonso|Otto|Karl|Carl|Gustav|Haakon|Harald|Olaf|Margaret|Mary|"
    "Robert|Malcolm|Kenneth|Ramses|Ramesses|Ptolemy|Darius|Xerxes|Mehmed|Murad|Selim|Carlos|Felipe|Baldwin|Leopold|"
    "Albert|Wilhelm|Umberto|Emmanuel|Constantine|Justinian|Theodosius|Michael|Stephen|Christian|Eric|Rama|Edmund"
)
_PARTS = (
    "(?i:Chapter|Part|Volume|Book|Act|Scene|Section|War|Type|Phase|Level|Class|Title|Article|Appendix|Table|Figure|"
    "Episode|Season|Bowl|Fantasy|Rocky|Stage|Grade|Mark|Model|Apollo|Division|Group|Unit|Category|Vatican|Round|Saturn|Titan|Psalm|"
    "Symphony|Concerto|Sonata|Annex|Exhibit|Canto|Tier|Schedule)"
)
_I_VERBS = (
    "think|thought|am|was|have|had|will|would|know|knew|can|could|do|did|love|said|saw|see|want|wanted|need|hope|believe|"
    "guess|must|should|never|always|agree|mean|feel|felt|like|wish|met|told|ask|asked|tell|remember|heard|found|may|might"
)
# Runs of capitals that are well-formed numerals, and mean something else more often.
_NOT_ROMAN = frozenset(str.split("MIX CD CC CV DC MC MD MM MI DI LL XL XXL DIV CIV LCD DVD DM CM MCC DCC VC CI"))
_FUNCTION_WORDS = frozenset(
    str.split(
        "a an and are as at be because but by can could did do does for from had has have he her him his i if "
        "in into is it its may more my of off on or our out over per she should so than that the their them "
        "then they this to too under until up was we were what when where which who will with would you your "
        "now today ago away each only"
    )
)
# What a measure describes without an article too: '12V battery', '$5M house'.
_MEASURED = frozenset(
    str.split(
        "adapter angle bag battery bill bonus bottle box budget bulb cable camera can car card charger chip coffee "
        "coin contract cut deal debt deposit dish disk dose drive fee film fine fund gift grant gun house "
        "investment jar lens loan lunch meal model motor note outlet pack phone pill plug present price prize "
        "profit project race raise resistor run salary screen socket supply tablet tank tax ticket tip tube turn "
        "voucher wall weight"
    )
)
_DETERMINER = re.compile(
    r"(?i)\b(?:a|an|the|this|that|my|your|his|her|its|our|their|each|every|another)\s+"
    r"(?:[\w. ]+(?: foot| inch|['\"]) +by +)?$"
)
_ONSET = re.compile(
    "[bcfgkps]l|[bcdfgkptw]r|[cghkprstw]h|[sp]?qu?|s[cklmnpqtvw]|[dt]w|kn|gn|ps|s(?:ch|cr|hr|pl|pr|tr)|thr"
)
_CODA = re.compile(
    "(.)\\1|[cflnprs]t|[lnr][dkcst]?|[lr][bfgkmpn]|mp|n[gk]|s[ckmp]|[cgpst]h|ck|ct|dge?|[lnr](?:th|ch)|tch|rst"
)
_DATED = r"(?i)\b(?:in|since|by|until|till|before|after|during|of|from|year|around|circa|between|about)\s+$"


def spoken(text: str, known: Callable[[str], bool] = lambda word: False) -> list[str]:
    """'Dr. Lee paid $3.50.' -> ['doctor', 'lee', 'paid', 'three', 'dollars', 'and', 'fifty', 'cents', PAUSE].

    Args:
        known: whether a lower-case word is in the dictionary; decides about capitals ('NASA' is read, 'GPU' spelled).
    """
    folded = _fold(text)
    # A text all in capitals is read as words; a lone acronym is not such a text.
    shouting = not re.search("[a-z]", folded) and len(re.findall("[A-Z]{2,}", text)) > 2
    for rules in (_NAMES, _NUMBERS, _WORDS):
        if rules is not _NUMBERS or re.search(r"\d", folded):
            for pattern, replace in rules:
                folded = pattern.sub(replace, folded)
    words: list[str] = []
    for token in re.findall(r"[A-Z]_|[A-Za-z']+|[^\sA-Za-z\d']+", folded):
        words += _token(token, known, shouting)
    return _collapse(words)


def _fold(text: str) -> str:
    """ASCII only: entities, signs, letters with accents and of other alphabets; pictures are left out."""
    text = unicodedata.normalize("NFC", html.unescape(text)).replace("_", " ")
    text = re.sub(r"</?[a-zA-Z][^<>]{0,80}>", " ", text)
    text = (
        re.sub(r"(^|[\s(])[–—](?=[$€£]?\d)", lambda m: m[1] + "-", text) if not re.search(r"\d\s[–—]\d", text) else text
    )
    text = re.sub(r"(?<=[\w)])[⁻⁺]?[⁰¹²³⁴-⁹]+", lambda m: "^" + unicodedata.normalize("NFKC", m[0]), text)
    text = re.sub("[¼-¾⅐-⅞↉]", lambda m: f" {unicodedata.normalize('NFKC', m[0])} ", text)
    text = re.sub(r"(?<=\d)(\s?)[–—](\s?)(?=[$€£]?\d)|(?<=[\w.])–(?=\w)", lambda m: f"{m[1] or ''}-{m[2] or ''}", text)
    text = re.sub("[\u2160-\u2188]+", _number_letter, text)
    text = re.sub(r"(?<=\d)\s?·\s?(?=\d)", " * ", re.sub(r"\bN[ºª]\.?\s?(?=\d)", "No. ", text))
    text = text.translate(_SIGNS)
    text = re.sub(r"(?<=\d)(\s?)μ(?=[a-zA-Z]\b)", r"\1u", text)
    # One Greek letter alone is a symbol, several are a word.
    text = re.sub(r"(?<![^\W\d_])(?![A-Za-z])[Α-Ωα-ω](?![^\W\d_])|(?<!\w)[Α-Ωα-ω](?=[a-z]\b)", _greek, text)
    # Emoji and other pictures have no reading; anyascii would name them.
    text = "".join(
        " "
        if char != "^" and unicodedata.category(char) in ("So", "Sk", "Cc", "Cf") and not _is_written(char)
        else char
        for char in text
    )
    return anyascii(unicodedata.normalize("NFKC", text))


def _is_written(char: str) -> bool:
    """True of a sign made of letters or digits: '㎏' is 'kg'."""
    letters = unicodedata.normalize("NFKC", char)
    return letters.isascii() and letters.isalnum()


def _number_letter(match: Match) -> str:
    """'Ⅳ' -> 'IV' behind a name, where a rule for its numeral comes, else '4'."""
    letters = unicodedata.normalize("NFKC", match[0])
    value = numerals.roman(letters)
    named = re.search(r"[A-Z][a-z]+ $", match.string[: match.start()])
    return letters if value is None or named else f" {value} "


def _greek(match: Match) -> str:
    if match[0] == "Ω" and re.search(r"\d\s?k?$", match.string[: match.start()]):
        return " ohms "
    return f" {GREEK[match[0].lower()]} "


def _say(words: list[str]) -> str:
    return " " + " ".join(words) + " "


def _attributive(match: Match) -> bool:
    """True if a measure stands before what it describes, where its unit is singular: 'a 5 km run', 'the 5V supply'."""
    after = re.match(r"(?:\s+by \d[\d.]*['\"])?[\s-]+([A-Za-z]+)", match.string[match.end() :])
    if after is None:
        return False
    if match.string[match.end()] == "-":
        return True
    if after[1].lower() in _FUNCTION_WORDS:
        return False
    before = _DETERMINER.search(match.string[: match.start()])
    return bool(before) or after[1] in _MEASURED


def _currency(sign: str) -> tuple[str, str, str, str]:
    country = sign.removesuffix("$")
    if sign.endswith("$") and DOLLARS.get(country):
        return f"{DOLLARS[country]} dollar", f"{DOLLARS[country]} dollars", "cent", "cents"
    return CURRENCIES["$" if sign.endswith("$") else "INR" if sign.startswith("Rs") else sign]


def _money(match: Match) -> str:
    sign = match["unit"] or match["after"]
    one, many, small_one, small_many = _currency(sign)
    per = " per " + _per_name(match["per"]) + " " if match["per"] else ""
    if _attributive(match) and sign != "p":
        many = one
    amount = match["amount"].replace(",", "")
    if sign == "EUR" and re.fullmatch(r"\d{1,3}(\.\d{3})+", amount):
        amount = amount.replace(".", "")
    scale = [SCALES.get(match["scale"].lower(), match["scale"])] if match["scale"] else []
    if match["to"]:
        return _say([*_amount(amount), "to", *_amount(match["to"].replace(",", "")), *scale, many]) + per
    if scale:
        return _say([*numerals.decimal(amount), *scale, many]) + per
    whole, _, part = amount.partition(".")
    if (part and len(part) != 2) or not small_one:
        return _say([*numerals.decimal(amount), one if amount == "1" else many]) + per
    units, cents = int(whole or 0), int(part or 0)
    words = [*numerals.cardinal(units), one if units == 1 else many] if units or not cents else []
    if cents:
        words += ["and"] if words else []
        words += [*numerals.cardinal(cents), small_one if cents == 1 else small_many]
    return _say(words) + per


def _per_name(unit: str) -> str:
    """What follows 'per' in '$3/kg', '60 miles/hour' and '$50/person'."""
    return UNITS[unit] if unit in UNITS else _PERIODS.get(unit, unit)


def _amount(text: str) -> list[str]:
    """'3.50' of '$3.50 to 5' -> three fifty."""
    whole, _, part = text.partition(".")
    if len(part) == 2 and int(part) > 9:
        return [*numerals.cardinal(int(whole or 0)), *numerals.cardinal(int(part))]
    return numerals.decimal(text)


def _time(match: Match) -> str:
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour == minute == 50:
        return " fifty fifty "
    if hour > 24 or minute > 59:
        return _say([*numerals.cardinal(hour), "to", *numerals.cardinal(minute)])
    half = _letters(match["half"] or "")
    if hour == minute == 0 and not half and not match["second"]:
        return " midnight "
    words = numerals.cardinal(hour)
    ranged = re.search(r"\d ?(?:[ap]\.?m\.? )?to +$", match.string[: match.start()])
    ranged = ranged or re.match(r" *to +\d", match.string[match.end() :])
    if minute:
        words += (["oh"] if minute < 10 else []) + numerals.cardinal(minute)
    elif not half and not ranged:
        words += ["o'clock"] if 0 < hour <= 12 else ["hundred", "hours"]
    if match["second"] and int(match["second"]):
        words += ["and", *numerals.cardinal(int(match["second"])), "seconds"]
    return _say(words + half)


def _date(year: str, month: str, day: str) -> str:
    if int(month) > 12 and int(day) <= 12:
        month, day = day, month
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
        return _say([*numerals.cardinal(int(month)), *numerals.cardinal(int(day)), *numerals.cardinal(int(year))])
    if len(year) == 2:
        year = ("20" if int(year) < 40 else "19") + year
    return _say([_MONTHS[int(month) - 1], *numerals.ordinal(int(day)), *numerals.year(int(year))])


def _day(name: str) -> str:
    days = str.split("monday tuesday wednesday thursday friday saturday sunday")
    return next(day for day in days if day.startswith(name[:3].lower()))


def _roman_year(match: Match) -> str:
    value = numerals.roman(match[0])
    return match[0] if value is None or value > 2100 else _say(numerals.year(value))


def _month(name: str) -> str:
    return next(month for month in _MONTHS if month.startswith(name.lower().rstrip(".")[:3]))


def _unit(match: Match) -> str:
    number = match["number"]
    many = number.replace(",", "") != "1" and not _attributive(match)
    words = _units(match["unit"], many, match["power"] or "")
    if match["per"]:
        words += ["per", *_per(match["per"], match["power2"] or "")]
    stop = match["stop"] or ""
    ends = stop and re.match(r"\s+[A-Z]|\s*$", match.string[match.end() :])
    return _say([*numerals.decimal(number), *words]) + (". " if ends else "")


def _units(unit: str, many: bool, power: str) -> list[str]:
    """('m', True, '^2') -> square meters."""
    head, *tail = UNITS[unit].split()
    if head in ("square",):
        head, tail = "square " + tail[0], tail[1:]
    if many and tail[:1] == ["hour"]:
        tail = ["hours"]
    elif many and not head.endswith(("hertz", "horsepower")):
        head = head.removesuffix("foot") + "feet" if head.endswith("foot") else head + "s"
    return [*{"": [], "^2": ["square"], "^3": ["cubic"]}[power], *head.split(), *tail]


def _per(unit: str, power: str) -> list[str]:
    """Unit after 'per': 'second squared', but 'cubic centimeter'."""
    if unit in ("s", "sec", "min", "h", "hr"):
        return [*_units(unit, False, ""), *{"": [], "^2": ["squared"], "^3": ["cubed"]}[power]]
    return _units(unit, False, power)


def _counts_things(match: Match) -> bool:
    """True if a number that may be a year stands before a plural: '1412 bottles', but 'in 1412 bottles were'."""
    return not re.search(_DATED, match.string[: match.start()]) and _before_plural(match)


def _before_plural(match: Match) -> bool:
    following = re.match(r"\s+([a-z]+)\b", match.string[match.end() :])
    if following is None:
        return False
    word = following[1]
    return word in _PLURALS or (word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS)


def _plain(match: Match) -> str:
    number = match["number"]
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", number) and not _counts_things(match):
        return _say(numerals.year(int(number)))
    dated = re.search(_DATED, match.string[: match.start()]) or re.match(
        r" +[Tt]o +1\d\d\d\b", match.string[match.end() :]
    )
    if re.fullmatch(r"10\d\d", number) and dated and not _before_plural(match):
        return _say(numerals.year(int(number)))
    if re.fullmatch(r"[1-9]\d\d", number) and _opens_history(match):
        return _say(numerals.year(int(number)))
    return _say(numerals.decimal(number))


def _opens_history(match: Match) -> bool:
    """True of the number in 'In 476 Rome fell' and 'in the year 476'."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    opens = re.search(r"(?:^|[.!?] )In $", before) and re.match(
        r",? (?:[A-Z][a-z]+|he|she|they|it|we|the|his|a) ", after
    )
    return bool(opens) or bool(re.search(r"(?i)\bthe year $", before))


def _era(match: Match) -> str:
    return _say(numerals.year(int(match[1])) + _letters(match[2]))


def _roman(match: Match, words: Callable[[int], list[str]]) -> str:
    value = numerals.roman(match["roman"])
    if value is None:
        return match[0]
    said = f"{match['head']} {_say(words(value))}"
    return said.rstrip() if match.string.startswith("'", match.end()) else said


def _sequel(match: Match) -> str:
    """A name with a numeral: 'Rocky II', 'Final Fantasy VII'."""
    return match[0] if match["roman"] in _NOT_ROMAN else _roman(match, numerals.cardinal)


def _abbreviation(match: Match) -> str:
    # The stop of 'etc.' may also end the sentence.
    rest = match.string[match.end() :]
    ends = not rest.strip() or (match[1].lower() in TRAILING and re.match(r"\s+[A-Z]", rest))
    return ABBREVIATIONS[match[1].lower()] + (". " if match[0].endswith(".") and ends else " ")


def _letters(text: str) -> list[str]:
    """'p.m.' -> ['P_', 'M_']: the mark keeps a letter's name apart from a word of one letter."""
    return [letter.upper() + "_" for letter in re.findall("[A-Za-z]", text)]


def _address(match: Match) -> str:
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
    said = re.sub(
        r"\d+", lambda m: _say(numerals.cardinal(int(m[0])) if len(m[0]) < 5 else numerals.digits(m[0])), said
    )
    said = re.sub(r"\b(doc|xls|ppt)x\b", r"\1 X_ ", said)
    # A string without a vowel is not a word: 'bbc', 'uk', 'www'.
    said = re.sub(
        r"\b(?:[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{2,}|uk|us|io|ai|edu|eu|exe|iso|ini|py)\b",
        lambda m: _say(_letters(m[0])),
        said,
    )
    # The mark keeps 'gov' and 'max' from the rules for abbreviations.
    return " " + re.sub(r"\b(?=[A-Za-z]{2})", "_", said) + " "


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


def _month_day(match: Match) -> str:
    last = ["to", *numerals.ordinal(int(match["last"]))] if match["last"] else []
    return _say([_month(match["month"]), *numerals.ordinal(int(match["day"])), *last])


def _day_month(match: Match) -> str:
    article = [] if _DETERMINER.search(match.string[: match.start()]) else ["the"]
    return _say([*article, *numerals.ordinal(int(match["day"])), "of", _month(match["month"])])


def _hour(match: Match) -> str:
    return _say([*numerals.cardinal(int(match[1])), *_letters(match[2] + "m")])


def _phone_number(match: Match) -> str:
    if match[0].startswith("+") and len(re.findall(r"\d", match[0])) < 8:
        return match[0]
    groups = [_say(numerals.digits(group)) for group in re.findall(r"\d+", match[0])]
    return (" plus " if match[0].startswith("+") else " ") + ", ".join(groups) + " "


def _postal_code(match: Match) -> str:
    return match[1] + ", ".join(_say(numerals.digits(group)) for group in match[2].split("-"))


def _version(match: Match) -> str:
    return " point ".join(_say(numerals.decimal(part)) for part in match[0].split("."))


def _mixed(match: Match) -> str:
    part = ["a", "half"] if (match[2], match[3]) == ("1", "2") else numerals.fraction(int(match[2]), int(match[3]))
    if (match[2], match[3]) == ("1", "4"):
        part = ["a", "quarter"]
    return _say([*numerals.cardinal(int(match[1])), "and", *part])


def _slash(match: Match) -> str:
    """'3/4', but also '24/7', '50/50', '2024/25' and, after 'on', a day of the year."""
    left, right = int(match[1]), int(match[2])
    if len(match[1]) == 4 and right in ((left + 1) % 100, left + 1) and 1000 <= left < 2100:
        return _say([*numerals.year(left), "to", *(numerals.cardinal(right) if right < 100 else numerals.year(right))])
    if re.match(r" *=", match.string[match.end() :]):
        return _say([*numerals.cardinal(left), "divided", "by", *numerals.cardinal(right)])
    if (left, right) in ((24, 7), (9, 11), (20, 20)) or left + right == 100:
        return _say([*numerals.cardinal(left), *numerals.cardinal(right)])
    before = match.string[: match.start()]
    if re.search(r"(?i)\bodds (?:of |are |were |at )?$", before):
        return _say([*numerals.cardinal(left), "to", *numerals.cardinal(right)])
    on = re.search(r"(?i)\b(?:on|by|until|since|before|after|\w+day,)\s+$", before)
    if on and 1 <= left <= 12 and 1 <= right <= 31:
        return _say([_MONTHS[left - 1], *numerals.ordinal(right)])
    marks = re.search(r"(?i)\b(?:scored?|got|rated|rating|score of|grade|gave it|mark)\s+(?:an?\s+)?$", before)
    if marks and right in (5, 10, 20, 100):
        return _say([*numerals.cardinal(left), "out", "of", *numerals.cardinal(right)])
    if 70 <= left <= 250 and 40 <= right < left:  # a blood pressure
        return _say([*numerals.year(left), "over", *numerals.cardinal(right)])
    return _say(numerals.fraction(left, right))


def _part_of_unit(match: Match) -> str:
    """'3/4 lb' and '1 1/2 tsp': many of a mixed number, one of a part."""
    many = bool(match["whole"]) and not _attributive(match)
    return f"{match['whole'] or ''}{match['part']} " + " ".join(_units(match["unit"], many, "")) + " "


def _part_of_inch(match: Match) -> str:
    single = _attributive(match)
    if match["whole"]:
        return f"{match['whole']} {match['top']}/{match['bottom']} {'inch' if single else 'inches'} "
    words = numerals.fraction(int(match["top"]), int(match["bottom"]))
    return _say([*words, *(["inch"] if single else ["of", "an", "inch"])])


def _hours_minutes(match: Match) -> str:
    hours, minutes = int(match["hours"]), int(match["minutes"])
    words = [*numerals.cardinal(hours), "hour" if hours == 1 else "hours", *numerals.cardinal(minutes)]
    return _say([*words, *(["minute" if minutes == 1 else "minutes"] if match["named"] else [])])


def _power(match: Match) -> str:
    power = match[1]
    if power in ("2", "3"):
        return " squared " if power == "2" else " cubed "
    if power.startswith("-"):
        return _say(["to", "the", *numerals.cardinal(int(power))])
    return _say(["to", "the", *numerals.ordinal(int(power))])


def _scaled(match: Match) -> str:
    if match[2] in "kK" and (
        re.match(r"\s(?:video|tv|TV|screen|monitor|resolution|display|camera|run|race)", match.string[match.end() :])
        or re.search(
            r"\b(?:ran|run|runs|running|walked|race|finished) (?:an?|the|my|his|her) $", match.string[: match.start()]
        )
    ):
        return _say([*numerals.decimal(match[1]), "K_"])
    return _say([*numerals.decimal(match[1]), SCALES[match[2].lower()]])


def _seconds_or_decade(match: Match) -> str:
    number = match["number"]
    if "." in number or number[-1] != "0" or len(number) not in (2, 4):
        return _say([*numerals.decimal(number), "seconds" if number != "1" else "second"])
    return _say(numerals.plural(numerals.year(int(number))))


def _feet(match: Match) -> str:
    feet, inches = match["feet"] or match["f"], match["inches"]
    words = [*numerals.cardinal(int(feet)), "foot" if feet == "1" or _attributive(match) else "feet"]
    if inches:
        words += [*numerals.decimal(inches), "inch" if inches == "1" or _attributive(match) else "inches"]
    return _say(words)


def _inches(match: Match) -> str:
    if len(re.findall(r'(?<!\d)"', match.string[: match.start()])) % 2:  # the end of a quotation
        return match[0]
    return _say([*numerals.decimal(match[1]), "inch" if match[1] == "1" or _attributive(match) else "inches"])


def _joined(match: Match) -> str:
    """'10 000' -> '10000'; '5 100' may be two numbers."""
    groups = match[0].split()
    return "".join(groups) if len(groups) > 2 or len(groups[0]) > 1 or groups[-1] == "000" else match[0]


def _money_after(match: Match) -> str:
    if match["after"] == "p" and match["amount"] in ("144", "240", "360", "480", "720", "1080", "1440", "2160"):
        return match[0]
    return _money(match)


def _measure(match: Match) -> str:
    """A number and a unit; '1980s' is a decade, and '5M', '100K' are not units."""
    if (
        match["unit"] == "s"
        and not match["per"]
        and re.fullmatch(r"\d\d|\d{4}", match["number"])
        and match["number"][-1] == "0"
    ):
        return _say(numerals.plural(numerals.year(int(match["number"])))) + (match["stop"] or "")
    return _unit(match)


def _ordinal_roman(match: Match) -> str:
    value = numerals.roman(match["roman"] or match["century"])
    return match[0] if value is None else _say(numerals.ordinal(value))


_TEMPERATURES = {"C": "celsius", "F": "fahrenheit", "K": "kelvin", "N": "north", "S": "south", "E": "east", "W": "west"}
_PERIODS = {"yr": "year", "mo": "month", "wk": "week", "d": "day", "pp": "person", "ea": "each"}
_ROOMS = "apt|apartment|room|rm|suite|ste|gate|seat|unit|flat|bldg|building|platform|exhibit|grade|class|fig|figure"
_RATE = (
    "hour|day|night|week|month|year|minute|second|person|head|unit|piece|share|mile|page|item|user|seat|yr|mo|wk|gallon|"
    "liter|litre|pound|ounce|kilo|gram|ton|foot|yard|meter|metre|acre|word|game|ticket|room|car|student"
)
_DAYS = "Mon(?:day)?|Tues?(?:day)?|Wed(?:nesday)?|Thurs?(?:day)?|Thu|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?"
_EMAIL = r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+"
_PATH = r"(?::\d+)?(?:/[\w%.+~-]*[\w%+~-])*/?(?:\?[\w=&%.+-]*\w)?(?:#[\w-]+)?"
_SITE = (
    rf"\bwww\.[\w-]+(?:\.[\w-]+)+{_PATH}|\b(?:[a-z\d][\w-]*\.)+(?:{DOMAINS})\b{_PATH}|"
    rf"\b[A-Z][\w-]*\.(?:com|org|net|edu|gov|io)\b{_PATH}"
)
_FILE = rf"\b[\w-]+\.(?:{FILES})\b"
_STREET = "|".join(STREETS)
_UNIT = "|".join(sorted(UNITS, key=len, reverse=True))
_LONG_UNIT = "|".join(sorted((unit for unit in UNITS if len(unit) > 1 or unit in "mgVWL"), key=len, reverse=True))
_DOLLAR = "|".join(sorted(DOLLARS, key=len, reverse=True))
_NAMED = "|".join(sorted((code for code in CURRENCIES if len(code) > 1), key=len, reverse=True))
_PREFIX = rf"(?:\b(?:{_DOLLAR}))?\$|\b(?:{_NAMED})\b|\bRs\.?"
_SUFFIX = rf"\$|(?:{_NAMED})\b|p\b(?!/|\.\w)"
_AMOUNT_NEXT = rf"(?=\.?\d|(?:{_DOLLAR})?\$\.?\d| (?:{_NAMED}) \.?\d)"
# Of '$5 to 10 people' the second number is no money.
_NO_PRICE = rf"(?:{_NUMBER}) (?:[a-z]+s|people|men|women|children)\b"
_TO = rf"(?:\s*(?:-\s*(?:{_PREFIX})?|to\s+(?:{_PREFIX}|(?!{_NO_PRICE})))\s*(?P<to>{_NUMBER}))?"
_ABBREVIATED_WITH_STOP = "|".join(sorted(DOTTED_ONLY & set(ABBREVIATIONS)))
_ABBREVIATED = "|".join(sorted(set(ABBREVIATIONS) - DOTTED_ONLY))
_HALF = r"(?:\s*(?P<half>[ap]\.m\.|[ap]\.?m\b))"
_EXTENT = "wide|long|tall|high|deep|thick|across|by|in diameter|away|apart|square|x"

# In this order: the first one takes the digits and stops that belong to it.
_Rules = list[tuple[re.Pattern[str], Callable[[Match], str] | str]]
_NAMES: _Rules = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        (r"\d{19,}", lambda m: " ".join(m[0])),
        (r"(?i)\b(?:https?|ftp)://([^\s<>\"']*[\w/])", lambda m: _address(re.match(r"(?s).*", m[1]))),  # type: ignore[arg-type]
        (r"(?<![\w\\])[A-Za-z]:\\[\w\\.-]*\w|(?<![\w/.:])[~.]{0,2}(?:/[\w.-]*\w){2,}", _address),
        (rf"(?i:{_EMAIL})|{_SITE}|(?i:{_FILE})", _address),
        (r"(?<![\w/])#(?=[A-Za-z])", " hashtag "),
        # Names with signs, and signs before numbers.
        (r"\bC\+\+", " C_ plus plus "),
        (r"\b([CFJ])#", lambda m: f" {m[1]}_ sharp "),
        (r"\bM&Ms\b", " M_ and M's "),
        (r"\b([A-Z]{1,3})&([A-Z]{1,3})\b", lambda m: f"{_say(_letters(m[1]))} and {_say(_letters(m[2]))}"),
        (r"\bR\$", "BRL "),
        (r"(?<!\w)\.(NET|net)\b", " dot net "),
        (rf"(?<![\w.])\.(?:{FILES})\b", _address),
        (
            r"\b([NSEW])\.? (?=(?:[A-Z]\w+|\d+(?:st|nd|rd|th)) (?:St|Ave|Blvd|Rd|Dr|Ln|Street|Avenue|Road)\b)",
            lambda m: f" {_TEMPERATURES[m[1]]} ",
        ),
        (rf"\b(\d+(?:st|nd|rd|th) (?:[A-Z]\w+ )?)({_STREET})\b\.?", lambda m: f"{m[1]}{STREETS[m[2]]} "),
        (
            rf"\b(\d+)([A-Z]?)( (?:[NSEW]\.? )?(?:[A-Z][a-z]+ ){{1,2}})({_STREET})\b\.?",
            lambda m: f"{m[1]}{_say(_letters(m[2]))}{m[3]}{STREETS[m[4]]} ",
        ),
        (rf"(?i)\b((?:{_ROOMS})\.? \d+)(?-i:([A-Z]))\b", r"\1 \2_ "),
        (r"\bNode\.js\b|\bnode\.js\b", " node dot J_ S_ "),
        (r"\bw/o\b", " without "),
        (r"\bc/o\b", " care of "),
        (r"(?<=\d)SO(?=\d)", " S_ O_ "),
        (r"\b(Apt|Bldg|Rm|Ste|Hwy|Rte) (?=\d)", lambda m: NUMBERED[m[1].lower()] + " "),
        (r"\bw/(?=\s)", " with "),
        (r"(?<=\w) ?'n'? ?(?=[Rr]oll|[a-z]+\b)(?<=n'| ')", " n "),
        (
            r"(?<=[\w)]) - (?=[\w(.]+ ?=)|(?<=\d) - (?=[\d.]+ (?:is|equals|leaves|makes)\b)|(?<=\d)-(?=\d+ ?=)",
            " minus ",
        ),
        (r"(?<=\d)!(?=\s*(?:=|is\b|equals\b))", " factorial "),
        (r"(?<!\d)(?<!\d )\b([b-df-hj-np-tv-xz]{2,3})(?=\^)", lambda m: _say(_letters(m[1]))),
        (r"(?<![\w)%'\"^.-])(?<![\d%] )-(?=\s?(?:" + _PREFIX + r")?\s?\.?\d)", " minus "),
        (rf"(^|\s)<{_AMOUNT_NEXT}", r"\1 less than "),
        (rf"(^|\s)>{_AMOUNT_NEXT}", r"\1 more than "),
        (r"(?<=\w) ?<= ?(?=[\w$-])", " is at most "),
        (r"(?<=\w) ?>= ?(?=[\w$-])", " is at least "),
        (r"(?<=\w) ?!= ?(?=[\w$-])", " is not equal to "),
        (r"(?<=\w) ?< ?(?=[\w$-])", " is less than "),
        (r"(?<=\w) ?> ?(?=[\w$-])", " is greater than "),
        (rf"~ ?{_AMOUNT_NEXT}", " about "),
    )
]
# Only where there is a digit.
_NUMBERS: _Rules = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        # Telephones, postal codes, dates.
        (r"(?<![\w+])\+\d{1,3}(?:[ -]?\(?\d{1,8}\)?){1,5}(?!\d)", _phone_number),
        (r"(?<![\w.-])(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}\b", _phone_number),
        (r"(?<![\w.-])(?<!\d )\(?0[1-9]\d{1,3}\)?(?:[ -]\d{3,7}){1,2}\b", _phone_number),
        (r"(?<![\w.-])\d{1,5}(?:-\d{1,7}){3,}\b", _phone_number),
        (r"(?<![\w.-])\d{3}-\d{4}\b|\b\d{3}-\d{2}-\d{4}\b|\b\d{4}(?: \d{4}){3}\b", _phone_number),
        (r"(?i)\b(zip(?: code)?:?) (\d{5}(?:-\d{4})?)\b", _postal_code),
        (
            rf"\b({'|'.join(sorted(STATES))}) (\d{{5}})(?:-(\d{{4}}))?\b",
            lambda m: _say([*_letters(m[1]), *numerals.digits(m[2] + (m[3] or ""))]),
        ),
        (r"(?<![\w.,-])\d{5}-\d{4}\b", _phone_number),
        (r"(?i)\b(dial|press) ([*#])(?=\d)", lambda m: f"{m[1]} {'star' if m[2] == '*' else 'pound'} "),
        (r"(?<=[Cc]all |[Dd]ial |[Tt]ext )\d{3} \d{4}\b", _phone_number),
        (
            r"(?i)\b(dial|call|phone|text|number is|press) (\d{3,})\b(?! [a-z]+s\b)",
            lambda m: m[1] + _say(numerals.digits(m[2])),
        ),
        (r"\b911\b", " nine one one "),
        (r"(?:(?<=\ba )|(?<=\bA )|(?<=\bBoeing ))7[0-8]7\b(?! [a-z]+s\b)", lambda m: _say(numerals.year(int(m[0])))),
        (
            r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?!000)(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]\d)",
            lambda m: " dot ".join(_say(numerals.digits(part)) for part in m[0].split(".")),
        ),
        (
            r"\b(\d{4})-(\d{2})-(\d{2})[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?",
            lambda m: f"{_date(m[1], m[2], m[3])} at {m[4]} ",
        ),
        (r"\b(\d{4})[-/](\d{1,2})[-/](\d{1,2})\b", lambda m: _date(m[1], m[2], m[3])),
        (r"\b(\d{1,2})[/-](\d{1,2})[/-](\d{4}|\d{2})\b(?!/)", lambda m: _date(m[3], m[1], m[2])),
        (r"(?<![\d.])([0-3]?\d)\.([01]\d)\.(\d{4}|\d\d)\b(?!\.\d)", lambda m: _date(m[3], m[2], m[1])),
        (r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(\d{4})\b", lambda m: _date(m[3], m[2], m[1])),
        (rf"(?<=\d)\s*-{{1,2}}\s*(?=(?:{_MONTH}) \d)", " to "),
        (
            rf"\b({_DAYS})\.?,? (?=(?:{_MONTH}) \d|\d{{1,2}}(?:st|nd|rd|th)? (?:{_MONTH})\b)",
            lambda m: f"{_day(m[1])}, ",
        ),
        (r"(?<!\w)'0(\d)\b(?!')", r" oh \1 "),
        # Numbers as others write them.
        (r"\b\d{1,3}(?:'\d{3})+\b", lambda m: m[0].replace("'", "")),
        (r"\b(24|50|20)-(7|50|20)\b(?!-)", _slash),
        (r"(?<![\d.,])(\d{1,3}(?: \d{3})+),(\d{1,2})(?![\d,])", lambda m: m[1].replace(" ", "") + "." + m[2]),
        (r"\b\d{1,2}(?:,\d{2})+,\d{3}\b", lambda m: m[0].replace(",", "")),
        (r"\b(10|100|1000|1,000)s(?= of\b)", lambda m: {"10": "tens", "100": "hundreds"}.get(m[1], "thousands")),
        (r"([=+*(-] ?\d+)([xyz])\b", r"\1 \2"),
        (r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d{1,2}(?![\d,])", lambda m: m[0].replace(".", "").replace(",", ".")),
        (r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.]\d|\d)", lambda m: m[0].replace(".", "")),
        (r"(?<![\d.,/:])\d{1,3}(?: \d{3})+(?![\d,:/-])(?!\.\d)", _joined),
        (r"(?<![\d.,])(\d+),(\d{1,2})(?![\d,]|\.\d)", r"\1.\2"),
        (r"(?<![\d.])\d+(?:\.\d+){2,}\b", _version),
        (r"\b(\d(?:\.\d+)?)e([+-]?\d{1,2})\b", r"\1 * 10^\2"),
        # Ranges: before what takes their second number.
        (rf"(?<=\d)(k|K|m|M|bn|B)\s?-{{1,2}}\s?(?:{_PREFIX})?\s?(\d+(?:\.\d+)?)\1\b", r"-\2\1"),
        (
            r"(?<=\d)(\s?(?:[ap]\.?m\.?|%|'|\"|kg|km|cm|mm|m|ft|lbs?|g|mg|min|hrs?|s| degrees(?: [CF])?))"
            r"\s?-{1,2}\s?(?=\d)",
            r"\1 to ",
        ),
        (
            rf"\b(?:(?P<whole>\d+)[ -])?(?P<top>\d+)/(?P<bottom>\d+)(?:\"| ?in\b\.?(?= (?:{_EXTENT})\b))",
            _part_of_inch,
        ),
        (rf"\b(?P<whole>\d+[ -]+)?(?P<part>\d+/\d+)\s*(?P<unit>{_LONG_UNIT})\b\.?(?!/)", _part_of_unit),
        (r"\b(\d+)-(\d+)/(\d+)\b", _mixed),
        (r"(?<=\d)\s*-{1,2}\s*(?=(?:\$|EUR|GBP)?\s?\d)", " to "),
        (r"\b(\d{1,2})[:.](\d{2})(?=\s*[ap]\.?m\b)", r"\1:\2"),
        (r"\b([Aa]t \d{1,2})\.([0-5]\d)(?=,? (?:we|he|she|they|I|sharp|today|tonight|tomorrow)\b)", r"\1:\2"),
        (
            r"(?i)\b(odds|ratios?|scale|score|won|lost|lead|win|by|beat \w+)( of| is| was)? (\d+):(\d+)\b",
            lambda m: f"{m[1]}{m[2] or ''}{_say([*numerals.cardinal(int(m[3])), 'to', *numerals.cardinal(int(m[4]))])}",
        ),
        (
            r"\b(\d+):(\d{1,3}(?:,\d{3})+|\d{3,}|\d)\b",
            lambda m: _say([*numerals.cardinal(int(m[1])), "to", *numerals.cardinal(_integer(m[2]))]),
        ),
        (rf"(?i)\b(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?{_HALF}?", _time),
        (r"(?i)\b(\d{1,2})\s*([ap])\.?m\b\.?", _hour),
        # Money.
        (
            rf"(?P<unit>{_PREFIX})\s*(?P<amount>\d{{1,3}}(?:\.\d{{3}})+(?!\d)|{_NUMBER}){_TO}(?:[\s-]*(?P<scale>{_SCALE}))?(?P<after>)"
            rf"(?:\s?/\s?(?P<per>{_RATE}|{_UNIT})\b)?",
            _money,
        ),
        (
            rf"(?P<amount>{_NUMBER})(?P<to>)(?:[\s-]*(?P<scale>{_SCALE}))?\s*(?P<after>{_SUFFIX})(?P<unit>)"
            rf"(?:\s?/\s?(?P<per>{_RATE}|{_UNIT})\b)?",
            _money_after,
        ),
        # Dates in words.
        (
            rf"\b(?P<month>{_MONTH})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b"
            r"(?: +to +(?P<last>\d{1,2})(?:st|nd|rd|th)?\b)?(?:,\s*(?=\d{4}\b))?",
            _month_day,
        ),
        (rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?P<month>{_MONTH})(?=\W|$)", _day_month),
        (r"\b(\d{1,4})\s?(AD|BCE|BC|CE|A\.D\.|B\.C\.E\.|B\.C\.|C\.E\.)(?!\w)", _era),
        (r"\bAD (\d{3,4})\b", lambda m: _say([*_letters("AD"), *numerals.year(int(m[1]))])),
        # Powers, fractions, measures.
        (r"(?<=\d['\"])\s?[xX]\s?(?=\d)", " by "),
        (r"(?P<feet>\b\d{1,3})'\s?(?P<inches>\d{1,2}(?:\.\d)?)(?:\"|''|\b)", _feet),
        (rf"(?P<feet>\b\d{{1,3}})'(?P<inches>)(?=\s+(?:{_EXTENT})\b)", _feet),
        (r"(?<=\b[Aa] )(?P<feet>\d{1,2})'(?P<inches>)(?=\s[a-z])|(?<=by )(?P<f>\d{1,2})'(?!\w)", _feet),
        (r"(\b\d+(?:\.\d+)?)\"(?=[\s.,;:!?)-]|$)", _inches),
        (
            rf"(?P<number>{_NUMBER})\s?(?P<unit>in)\b(?:\.(?=\s|$)|(?=\s(?:{_EXTENT})\b))",
            lambda m: _say(
                [*numerals.decimal(m["number"]), "inch" if m["number"] == "1" or _attributive(m) else "inches"]
            ),
        ),
        (r"\b(?P<hours>\d{1,2})\s?h\s?(?P<minutes>\d{1,2})(?:\s?(?P<named>m|min|mins))?\b", _hours_minutes),
        (r"(?<=\d)\s?m\.p\.h\.?(?=\W|$)", " mph"),
        (r"(?<=\d)\s?fl\.? ?oz\b\.?", " fluid ounces "),
        (r"(?<=\d)\s?cu\.? ?(ft|m|yd|cm|km)\b", r" \1^3"),
        (r"(?<=\d)\s?sq\.? ?(ft|km|mi|m|yd|cm)\b", r" \1^2"),
        (r"\b(?P<feet>\d+) ?ft\.?,? (?P<inches>\d+(?:\.\d)?) ?in\b\.?", _feet),
        (
            rf"(?P<number>(?<![A-Za-z\d.-]){_NUMBER})-(?P<unit>{_LONG_UNIT})\b\.?(?=\s)",
            lambda m: _say([*numerals.decimal(m["number"]), *_units(m["unit"], False, "")]),
        ),
        (rf"(\b\d[\d.,]*(?: ?[A-Za-z]+s)?)/(?=(?:{_RATE})\b)", r"\1 per "),
        (r"(?<=\d) / (?=\d)", " divided by "),
        (r"\b(\d+)\s+(\d+)/(\d+)(?:ths?|rds?|nds?)?\b", _mixed),
        (r"(?<![\w/])(\d+)/(\d+)(?:ths?|rds?|nds?)?(?![\w/])", _slash),
        (r"(?<=\d) ?[xX] ?(?=\d)", " by "),
        (r"(?<=\d)x\b", " times "),
        (r"(?<=\w)\s*\*\s*(?=\w)", " times "),
        (
            rf"(?P<number>(?<![A-Za-z\d.]){_NUMBER})\s?(?P<unit>{_UNIT})(?P<power>\^[23])?(?:/(?P<per>{_UNIT})(?P<power2>\^[23])?)?(?![\w^]|\.\w|')(?P<stop>\.)?",
            _measure,
        ),
        (r"\^([+-]?\d+)", _power),
        (r"(?<![\w.])(\d+(?:\.\d+)?)(K|M|B|T|k|bn|mn)\b", _scaled),
        (r"(?<=\d)\s?A\b(?= (?:fuse|circuit|charger|current|supply|breaker|plug|outlet|socket|motor)\b)", " amp"),
        (
            rf"(?<![A-Za-z\d.])(?P<number>{_NUMBER})(?:\s?(?=[CF])| (?=K))(?P<scale>[CFK])\b(?!['+#.]\w)",
            lambda m: _say(
                [
                    *numerals.decimal(m["number"]),
                    *([] if m["scale"] == "K" else ["degree"] if _attributive(m) else ["degrees"]),
                    _TEMPERATURES[m["scale"]],
                ]
            ),
        ),
        (r"(?<![\w.])(?P<number>\d{2,4}|\d+\.\d+)'?s\b", _seconds_or_decade),
        (r"(?i)\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: _say(numerals.ordinal(_integer(m[1])))),
        (rf"(?P<number>{_NUMBER})\s*%", lambda m: _say([*numerals.decimal(m["number"]), "percent"])),
        (r"(?<=\b1 )\s*degrees\b", "degree"),
        (
            rf"(?P<number>{_NUMBER})\s*degrees\b(?! [CFKNSEW]\b)",
            lambda m: _say([*numerals.decimal(m["number"]), "degree" if _attributive(m) else "degrees"]),
        ),
        (r"\b(degrees?)\s+([CFKNSEW])\b", lambda m: f"{m[1]} {_TEMPERATURES[m[2]]}"),
    )
]
_WORDS: _Rules = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        (
            rf"\b({_DAYS})\.?\s*-{{1,2}}\s*({_DAYS})\b\.?",
            lambda m: f" {_day(m[1])} to {_day(m[2])} ",
        ),
        (rf"\b({_MONTH})\s*-{{1,2}}\s*({_MONTH})(?!\w)", lambda m: f" {_month(m[1])} to {_month(m[2])} "),
        (r"\b(Mon|Tues?|Wed|Thurs?|Thu|Fri)\.(?=\W|$)|\b(Sat|Sun)\.(?=,)", lambda m: _day(m[1] or m[2])),
        (r"\b([A-Z]\w+) v\.(?= [A-Z])", r"\1 versus"),
        (r"\b([bd])\. (?=1\d{3}\b)", lambda m: {"b": "born ", "d": "died "}[m[1]]),
        (r"(?i)\bop\. ?(?=\d)", " opus "),
        (r"\bM{1,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b(?<=\w{4})", _roman_year),
        (
            rf"\b(?P<head>(?:{_KINGS})(?: [A-Z][a-z]+){{1,2}}) (?P<roman>II|III|IV)\b",
            lambda m: _roman(m, lambda number: ["the", *numerals.ordinal(number)]),
        ),
        (
            r"(?i)\b(in|by|since|until|last|next|from|of|to|through|early|late|mid) (Mar|Jun|Jul)\.(?=\s|$)",
            lambda m: f"{m[1]} {_month(m[2])}",
        ),
        (r"\b(Jan|Feb|Apr|Aug|Sept|Sep|Oct|Nov|Dec)(?:\.(?=\s|$)|(?=\s+\d{4}\b))", lambda m: _month(m[1])),
        (
            rf"\b(?i:({'|'.join(sorted(NUMBERED, key=len, reverse=True))}))\.\s*(?=\(?\d|[IVXLC]+\b)",
            lambda m: f" {NUMBERED[m[1].lower()]} ",
        ),
        (
            r"\b(?i:(app|figs?|sec|ex|apt|rm|bldg|ste|tab|pt|vol))\.\s*(?=[A-Z]\b)",
            lambda m: f" {NUMBERED[m[1].lower()]} ",
        ),
        (r"#\s*(?=\d)", " number "),
        (r"\bWW(II?)\b", lambda m: " world war " + ("two " if m[1] == "II" else "one ")),
        (r"\b(?P<roman>[IVXLC]+)(?:th|st|nd|rd)\b|\b(?P<century>[IVX]{2,})(?=(?:th)? [cC]entur)", _ordinal_roman),
        (
            rf"\b(?!Malcolm X\b)(?P<head>{_KINGS})\s+(?P<roman>[IVX]{{2,}}|[VX]|I(?! (?:{_I_VERBS})\b))\b(?!'(?!s\b))",
            lambda m: _roman(m, lambda number: ["the", *numerals.ordinal(number)]),
        ),
        (
            r"\b(?P<head>[A-Z][a-z]+) (?P<roman>[IVX]+)"
            r"(?= (?:ruled|reigned|abdicated|was (?:king|queen|pope|crowned))\b)",
            lambda m: _roman(m, lambda number: ["the", *numerals.ordinal(number)]),
        ),
        (rf"\b(?P<head>{_PARTS})\s+(?P<roman>[IVXLC]+)\b", lambda m: _roman(m, numerals.cardinal)),
        (r"\b(?P<head>[A-Z]{3,})\s+(?P<roman>V|[IVX]{2,})\b", _sequel),
        (r"\b(?P<head>[A-Z][a-z]+)\s+(?P<roman>[IVXLC]{2,})\b", _sequel),
        (r"(?i)\be\.g\.,?", " for example, "),
        (r"(?i)\bi\.e\.,?", " that is, "),
        (r"\bPh\.?Ds\b", " PHDs "),
        (r"\bPh\.?D\b\.?", " P_ H_ D_ "),
        (r"\b(?:[A-Z][a-z]{0,2}\.){2,}|\b(?:[A-Za-z]\.){2,}", lambda m: _say(_letters(m[0]))),
        (r"\bDr\.?(?=\s+(?:[A-Z]|& [A-Z]|and [A-Z]))", "doctor "),
        (r"\bDr\.", "drive "),
        (r"(\d+\w* (?:[NSEW]\. )?[A-Z]\w+ )St\b\.?", r"\1 street "),
        (r"(?<=[a-z] )St\.?(?=\s+[A-Z])", "saint "),
        (r"(^|[.!?,;:(\"] ?)St\.?(?=\s+[A-Z])", r"\1saint "),
        (
            r"(\b[A-Z][a-z]+ )St\.(?=\s+(?:He|She|It|They|We|I|The|A|An|In|On|At|But|And|There|This|That|You|My)\b)",
            r"\1street. ",
        ),
        (r"(\b[A-Z][a-z]+ )St\.?(?=\s+[A-Z])", r"\1saint "),
        (r"\bSt\b(?:\.|(?=,))", "street "),
        (rf"(?i)\b({_ABBREVIATED_WITH_STOP})\.(?=\s+[\w(])", _abbreviation),
        (rf"(?i)\b({_ABBREVIATED})\b\.?", _abbreviation),
        (r"(?<=\w)-(?=\w)", " "),
        (rf"(?P<number>(?<![A-Za-z]){_NUMBER}|\d+)", _plain),
        (rf"\b(?!TRY|RUB|kr|zl)({_NAMED})\b", lambda m: _say(_currency(m[0])[1].split())),
        (r"\bu s dollars?\b", " U_ S_ dollars "),
        (r"(?<=\w)\s+\*\s+(?=\w)", " times "),
        (r"&", " and "),
        (r"%", " percent "),
        (r"@", " at "),
        (r"(?<=[\w)])\s*=\s*(?=[\w(])", " equals "),
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
    if _is_spelled(word, known, shouting):
        return _spell(word)
    if re.fullmatch("(?:Ma?c|Fitz|Di|De|Du|La|Le)[A-Z][a-z']+", word):
        return [word.lower()]
    parts = re.findall(r"[A-Z]+(?![a-z'])|[A-Z]?[a-z']+|[A-Z]", word)
    if len(parts) > 1 and not (shouting or known(word.lower()) or re.sub("'?s$", "", word).isupper()):
        return [w for part in parts for w in _token(part, known, shouting)]
    return [word.lower()]


def _is_spelled(word: str, known: Callable[[str], bool], shouting: bool) -> bool:
    """True if a word is read letter by letter: two capitals, more that are not a word, and some known ones."""
    letters = re.sub("'?s$", "", word)
    if letters.lower() in SPELLED:
        return True
    if shouting or len(letters) < 2 or not letters.isupper():
        return False
    if len(letters) == 2:
        return letters.lower() not in SHORT_WORDS
    if letters in SPELLED_CAPITALS:
        return True
    return not known(letters.lower()) and (len(letters) == 3 or not _pronounceable(letters.lower()))


def _pronounceable(word: str) -> bool:
    """True if the mouth can begin and end the word: 'opec' and 'scuba', but not 'tgif', 'lapd' and 'hdmi'."""
    if not re.search("[aeiouy]", word) or len(word) > 5:
        return bool(re.search("[aeiouy]", word))
    begins, ends = re.match("[^aeiouy]*", word), re.search("[^aeiouy]*$", word)
    onset, coda = begins[0] if begins else "", (ends[0] if ends else "").removesuffix("s")
    return (len(onset) < 2 or bool(_ONSET.fullmatch(onset))) and (len(coda) < 2 or bool(_CODA.fullmatch(coda)))


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
