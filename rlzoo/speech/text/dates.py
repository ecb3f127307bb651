"""Times, dates and years as words; each function replaces one match of `rules.py`."""

from __future__ import annotations

import re

from rlzoo.speech.text import numerals
from rlzoo.speech.text.context import DATED, DETERMINER, Match, before_plural, counts_things, say, spell_out

MONTHS = str.split("january february march april may june july august september october november december")


def time(match: Match) -> str:
    """'7:05' -> seven oh five, '15:00' -> fifteen hundred hours; '70:30' is a ratio."""
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour == minute == 50:
        return " fifty fifty "
    if hour > 24 or minute > 59:
        return say([*numerals.cardinal(hour), "to", *numerals.cardinal(minute)])
    half = spell_out(match["half"] or "")
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
    return say(words + half)


def date(year: str, month: str, day: str) -> str:
    """Month, day and year in words; month and day change places where only that is a date."""
    if int(month) > 12 and int(day) <= 12:
        month, day = day, month
    if not 1 <= int(month) <= 12 or not 1 <= int(day) <= 31:
        return say([*numerals.cardinal(int(month)), *numerals.cardinal(int(day)), *numerals.cardinal(int(year))])
    if len(year) == 2:
        year = ("20" if int(year) < 40 else "19") + year
    return say([MONTHS[int(month) - 1], *numerals.ordinal(int(day)), *numerals.year(int(year))])


def day(name: str) -> str:
    """'Tues' -> tuesday."""
    days = str.split("monday tuesday wednesday thursday friday saturday sunday")
    return next(day for day in days if day.startswith(name[:3].lower()))


def month(name: str) -> str:
    """'Sept.' -> september."""
    return next(month for month in MONTHS if month.startswith(name.lower().rstrip(".")[:3]))


def plain(match: Match) -> str:
    """A number alone: a year, where it can be one, else its value."""
    number = match["number"]
    if re.fullmatch(r"1[1-9]\d\d|20\d\d", number) and not counts_things(match):
        return say(numerals.year(int(number)))
    dated = re.search(DATED, match.string[: match.start()]) or re.match(
        r" +[Tt]o +1\d\d\d\b", match.string[match.end() :]
    )
    if re.fullmatch(r"10\d\d", number) and dated and not before_plural(match):
        return say(numerals.year(int(number)))
    if re.fullmatch(r"[1-9]\d\d", number) and _opens_history(match):
        return say(numerals.year(int(number)))
    return say(numerals.decimal(number))


def _opens_history(match: Match) -> bool:
    """True of the number in 'In 476 Rome fell' and 'in the year 476'."""
    before, after = match.string[: match.start()], match.string[match.end() :]
    opens = re.search(r"(?:^|[.!?] )In $", before) and re.match(
        r",? (?:[A-Z][a-z]+|he|she|they|it|we|the|his|a) ", after
    )
    return bool(opens) or bool(re.search(r"(?i)\bthe year $", before))


def era(match: Match) -> str:
    """'44 BC' -> forty four B C."""
    return say(numerals.year(int(match[1])) + spell_out(match[2]))


def month_day(match: Match) -> str:
    """'May 3-5' -> may third to fifth."""
    last = ["to", *numerals.ordinal(int(match["last"]))] if match["last"] else []
    return say([month(match["month"]), *numerals.ordinal(int(match["day"])), *last])


def day_month(match: Match) -> str:
    """'3 May' -> the third of may."""
    article = [] if DETERMINER.search(match.string[: match.start()]) else ["the"]
    return say([*article, *numerals.ordinal(int(match["day"])), "of", month(match["month"])])


def hour(match: Match) -> str:
    """'5 pm' -> five P M."""
    return say([*numerals.cardinal(int(match[1])), *spell_out(match[2] + "m")])
