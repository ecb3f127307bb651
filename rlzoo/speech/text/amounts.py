"""Money, units, measures, fractions and powers as words; each function replaces one match of `rules.py`."""

from __future__ import annotations

import re

from rlzoo.speech.text import numerals
from rlzoo.speech.text.context import Match, attributive, say
from rlzoo.speech.text.dates import MONTHS
from rlzoo.speech.text.signs import CURRENCIES, DOLLARS, SCALES, UNITS


def currency(sign: str) -> tuple[str, str, str, str]:
    """'A$' -> its name, singular and plural, and those of its hundredth part."""
    country = sign.removesuffix("$")
    if sign.endswith("$") and DOLLARS.get(country):
        return f"{DOLLARS[country]} dollar", f"{DOLLARS[country]} dollars", "cent", "cents"
    return CURRENCIES["$" if sign.endswith("$") else "INR" if sign.startswith("Rs") else sign]


def money(match: Match) -> str:
    """'$3.50' -> three dollars and fifty cents; ranges, scales ('$5M') and prices per unit ('$3/kg') too."""
    sign = match["unit"] or match["after"]
    one, many, small_one, small_many = currency(sign)
    per = " per " + _per_name(match["per"]) + " " if match["per"] else ""
    if attributive(match) and sign != "p":
        many = one
    amount = match["amount"].replace(",", "")
    if sign == "EUR" and re.fullmatch(r"\d{1,3}(\.\d{3})+", amount):
        amount = amount.replace(".", "")
    scale = [SCALES.get(match["scale"].lower(), match["scale"])] if match["scale"] else []
    if match["to"]:
        return say([*_amount(amount), "to", *_amount(match["to"].replace(",", "")), *scale, many]) + per
    if scale:
        return say([*numerals.decimal(amount), *scale, many]) + per
    whole, _, part = amount.partition(".")
    if (part and len(part) != 2) or not small_one:
        return say([*numerals.decimal(amount), one if amount == "1" else many]) + per
    units, cents = int(whole or 0), int(part or 0)
    words = [*numerals.cardinal(units), one if units == 1 else many] if units or not cents else []
    if cents:
        words += ["and"] if words else []
        words += [*numerals.cardinal(cents), small_one if cents == 1 else small_many]
    return say(words) + per


def _per_name(unit: str) -> str:
    """What follows 'per' in '$3/kg', '60 miles/hour' and '$50/person'."""
    return UNITS[unit] if unit in UNITS else _PERIODS.get(unit, unit)


def _amount(text: str) -> list[str]:
    """'3.50' of '$3.50 to 5' -> three fifty."""
    whole, _, part = text.partition(".")
    if len(part) == 2 and int(part) > 9:
        return [*numerals.cardinal(int(whole or 0)), *numerals.cardinal(int(part))]
    return numerals.decimal(text)


def _unit(match: Match) -> str:
    number = match["number"]
    many = number.replace(",", "") != "1" and not attributive(match)
    words = units(match["unit"], many, match["power"] or "")
    if match["per"]:
        words += ["per", *_per(match["per"], match["power2"] or "")]
    stop = match["stop"] or ""
    ends = stop and re.match(r"\s+[A-Z]|\s*$", match.string[match.end() :])
    return say([*numerals.decimal(number), *words]) + (". " if ends else "")


def units(unit: str, many: bool, power: str) -> list[str]:
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
        return [*units(unit, False, ""), *{"": [], "^2": ["squared"], "^3": ["cubed"]}[power]]
    return units(unit, False, power)


def integer(text: str) -> int:
    """'1,234' -> 1234."""
    return int(text.replace(",", ""))


def version(match: Match) -> str:
    """'2.4.1' -> two point four point one: point by point."""
    return " point ".join(say(numerals.decimal(part)) for part in match[0].split("."))


def mixed(match: Match) -> str:
    """'1 1/2' -> one and a half."""
    part = ["a", "half"] if (match[2], match[3]) == ("1", "2") else numerals.fraction(int(match[2]), int(match[3]))
    if (match[2], match[3]) == ("1", "4"):
        part = ["a", "quarter"]
    return say([*numerals.cardinal(int(match[1])), "and", *part])


def slash(match: Match) -> str:
    """'3/4', but also '24/7', '50/50', '2024/25' and, after 'on', a day of the year."""
    left, right = int(match[1]), int(match[2])
    if len(match[1]) == 4 and right in ((left + 1) % 100, left + 1) and 1000 <= left < 2100:
        return say([*numerals.year(left), "to", *(numerals.cardinal(right) if right < 100 else numerals.year(right))])
    if re.match(r" *=", match.string[match.end() :]):
        return say([*numerals.cardinal(left), "divided", "by", *numerals.cardinal(right)])
    if (left, right) in ((24, 7), (9, 11), (20, 20)) or left + right == 100:
        return say([*numerals.cardinal(left), *numerals.cardinal(right)])
    before = match.string[: match.start()]
    if re.search(r"(?i)\bodds (?:of |are |were |at )?$", before):
        return say([*numerals.cardinal(left), "to", *numerals.cardinal(right)])
    on = re.search(r"(?i)\b(?:on|by|until|since|before|after|\w+day,)\s+$", before)
    if on and 1 <= left <= 12 and 1 <= right <= 31:
        return say([MONTHS[left - 1], *numerals.ordinal(right)])
    marks = re.search(r"(?i)\b(?:scored?|got|rated|rating|score of|grade|gave it|mark)\s+(?:an?\s+)?$", before)
    if marks and right in (5, 10, 20, 100):
        return say([*numerals.cardinal(left), "out", "of", *numerals.cardinal(right)])
    if 70 <= left <= 250 and 40 <= right < left:  # a blood pressure
        return say([*numerals.year(left), "over", *numerals.cardinal(right)])
    return say(numerals.fraction(left, right))


def part_of_unit(match: Match) -> str:
    """'3/4 lb' and '1 1/2 tsp': many of a mixed number, one of a part."""
    many = bool(match["whole"]) and not attributive(match)
    return f"{match['whole'] or ''}{match['part']} " + " ".join(units(match["unit"], many, "")) + " "


def part_of_inch(match: Match) -> str:
    """'3/4"' -> three quarters of an inch, '2 1/2"' -> two and a half inches."""
    single = attributive(match)
    if match["whole"]:
        return f"{match['whole']} {match['top']}/{match['bottom']} {'inch' if single else 'inches'} "
    words = numerals.fraction(int(match["top"]), int(match["bottom"]))
    return say([*words, *(["inch"] if single else ["of", "an", "inch"])])


def hours_minutes(match: Match) -> str:
    """'2h 30m' -> two hours thirty minutes."""
    hours, minutes = int(match["hours"]), int(match["minutes"])
    words = [*numerals.cardinal(hours), "hour" if hours == 1 else "hours", *numerals.cardinal(minutes)]
    return say([*words, *(["minute" if minutes == 1 else "minutes"] if match["named"] else [])])


def power(match: Match) -> str:
    """'^2' -> squared, '^-3' -> to the minus three."""
    power = match[1]
    if power in ("2", "3"):
        return " squared " if power == "2" else " cubed "
    if power.startswith("-"):
        return say(["to", "the", *numerals.cardinal(int(power))])
    return say(["to", "the", *numerals.ordinal(int(power))])


def scaled(match: Match) -> str:
    """'5M' -> five million; '4K video' and 'a 10K run' name the letter."""
    if match[2] in "kK" and (
        re.match(r"\s(?:video|tv|TV|screen|monitor|resolution|display|camera|run|race)", match.string[match.end() :])
        or re.search(
            r"\b(?:ran|run|runs|running|walked|race|finished) (?:an?|the|my|his|her) $", match.string[: match.start()]
        )
    ):
        return say([*numerals.decimal(match[1]), "K_"])
    return say([*numerals.decimal(match[1]), SCALES[match[2].lower()]])


def seconds_or_decade(match: Match) -> str:
    """'30s' and '1980s' are decades, '1.5s' are seconds."""
    number = match["number"]
    if "." in number or number[-1] != "0" or len(number) not in (2, 4):
        return say([*numerals.decimal(number), "seconds" if number != "1" else "second"])
    return say(numerals.plural(numerals.year(int(number))))


def feet(match: Match) -> str:
    """'6\'2"' -> six feet two inches."""
    feet, inches = match["feet"] or match["f"], match["inches"]
    words = [*numerals.cardinal(int(feet)), "foot" if feet == "1" or attributive(match) else "feet"]
    if inches:
        words += [*numerals.decimal(inches), "inch" if inches == "1" or attributive(match) else "inches"]
    return say(words)


def inches(match: Match) -> str:
    """'12"' -> twelve inches, where the mark does not end a quotation."""
    if len(re.findall(r'(?<!\d)"', match.string[: match.start()])) % 2:  # the end of a quotation
        return match[0]
    return say([*numerals.decimal(match[1]), "inch" if match[1] == "1" or attributive(match) else "inches"])


def joined(match: Match) -> str:
    """'10 000' -> '10000'; '5 100' may be two numbers."""
    groups = match[0].split()
    return "".join(groups) if len(groups) > 2 or len(groups[0]) > 1 or groups[-1] == "000" else match[0]


def money_after(match: Match) -> str:
    """A sign behind its amount: '5 EUR', '50p'; '1080p' is of a screen."""
    if match["after"] == "p" and match["amount"] in ("144", "240", "360", "480", "720", "1080", "1440", "2160"):
        return match[0]
    return money(match)


def measure(match: Match) -> str:
    """A number and a unit; '1980s' is a decade, and '5M', '100K' are not units."""
    if (
        match["unit"] == "s"
        and not match["per"]
        and re.fullmatch(r"\d\d|\d{4}", match["number"])
        and match["number"][-1] == "0"
    ):
        return say(numerals.plural(numerals.year(int(match["number"])))) + (match["stop"] or "")
    return _unit(match)


_PERIODS = {"yr": "year", "mo": "month", "wk": "week", "d": "day", "pp": "person", "ea": "each"}
