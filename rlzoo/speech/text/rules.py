"""The rules of `normalize.spoken`, in their order: a pattern, and what replaces its matches."""

from __future__ import annotations

import re
from collections.abc import Callable

from rlzoo.speech.text import amounts, dates, names, numerals
from rlzoo.speech.text.context import NUMBER, Match, attributive, say, spell_out
from rlzoo.speech.text.signs import (
    ABBREVIATIONS,
    CURRENCIES,
    DOLLARS,
    DOMAINS,
    DOTTED_ONLY,
    FILES,
    NUMBERED,
    STATES,
    STREETS,
    UNITS,
)

_MONTH = "|".join(f"{m}|{m[:4]}\\.?|{m[:3]}\\.?" for m in (month.capitalize() for month in dates.MONTHS))
_SCALE = r"(?:hundred|thousand|million|billion|trillion|[kK]|M|m|mn|bn|B|T)\b"
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
_TEMPERATURES = {"C": "celsius", "F": "fahrenheit", "K": "kelvin", "N": "north", "S": "south", "E": "east", "W": "west"}
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
_NO_PRICE = rf"(?:{NUMBER}) (?:[a-z]+s|people|men|women|children)\b"
_TO = rf"(?:\s*(?:-\s*(?:{_PREFIX})?|to\s+(?:{_PREFIX}|(?!{_NO_PRICE})))\s*(?P<to>{NUMBER}))?"
_ABBREVIATED_WITH_STOP = "|".join(sorted(DOTTED_ONLY & set(ABBREVIATIONS)))
_ABBREVIATED = "|".join(sorted(set(ABBREVIATIONS) - DOTTED_ONLY))
_HALF = r"(?:\s*(?P<half>[ap]\.m\.|[ap]\.?m\b))"
_EXTENT = "wide|long|tall|high|deep|thick|across|by|in diameter|away|apart|square|x"
# In this order: the first one takes the digits and stops that belong to it.
_Rules = list[tuple[re.Pattern[str], Callable[[Match], str] | str]]
NAMES: _Rules = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        (r"\d{19,}", lambda m: " ".join(m[0])),
        (r"(?i)\b(?:https?|ftp)://([^\s<>\"']*[\w/])", lambda m: names.address(re.match(r"(?s).*", m[1]))),  # type: ignore[arg-type]
        (r"(?<![\w\\])[A-Za-z]:\\[\w\\.-]*\w|(?<![\w/.:])[~.]{0,2}(?:/[\w.-]*\w){2,}", names.address),
        (rf"(?i:{_EMAIL})|{_SITE}|(?i:{_FILE})", names.address),
        (r"(?<![\w/])#(?=[A-Za-z])", " hashtag "),
        # Names with signs, and signs before numbers.
        (r"\bC\+\+", " C_ plus plus "),
        (r"\b([CFJ])#", lambda m: f" {m[1]}_ sharp "),
        (r"\bM&Ms\b", " M_ and M's "),
        (r"\b([A-Z]{1,3})&([A-Z]{1,3})\b", lambda m: f"{say(spell_out(m[1]))} and {say(spell_out(m[2]))}"),
        (r"\bR\$", "BRL "),
        (r"(?<!\w)\.(NET|net)\b", " dot net "),
        (rf"(?<![\w.])\.(?:{FILES})\b", names.address),
        (
            r"\b([NSEW])\.? (?=(?:[A-Z]\w+|\d+(?:st|nd|rd|th)) (?:St|Ave|Blvd|Rd|Dr|Ln|Street|Avenue|Road)\b)",
            lambda m: f" {_TEMPERATURES[m[1]]} ",
        ),
        (rf"\b(\d+(?:st|nd|rd|th) (?:[A-Z]\w+ )?)({_STREET})\b\.?", lambda m: f"{m[1]}{STREETS[m[2]]} "),
        (
            rf"\b(\d+)([A-Z]?)( (?:[NSEW]\.? )?(?:[A-Z][a-z]+ ){{1,2}})({_STREET})\b\.?",
            lambda m: f"{m[1]}{say(spell_out(m[2]))}{m[3]}{STREETS[m[4]]} ",
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
        (r"(?<!\d)(?<!\d )\b([b-df-hj-np-tv-xz]{2,3})(?=\^)", lambda m: say(spell_out(m[1]))),
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
NUMBERS: _Rules = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        # Telephones, postal codes, dates.
        (r"(?<![\w+])\+\d{1,3}(?:[ -]?\(?\d{1,8}\)?){1,5}(?!\d)", names.phone_number),
        (r"(?<![\w.-])(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}\b", names.phone_number),
        (r"(?<![\w.-])(?<!\d )\(?0[1-9]\d{1,3}\)?(?:[ -]\d{3,7}){1,2}\b", names.phone_number),
        (r"(?<![\w.-])\d{1,5}(?:-\d{1,7}){3,}\b", names.phone_number),
        (r"(?<![\w.-])\d{3}-\d{4}\b|\b\d{3}-\d{2}-\d{4}\b|\b\d{4}(?: \d{4}){3}\b", names.phone_number),
        (r"(?i)\b(zip(?: code)?:?) (\d{5}(?:-\d{4})?)\b", names.postal_code),
        (
            rf"\b({'|'.join(sorted(STATES))}) (\d{{5}})(?:-(\d{{4}}))?\b",
            lambda m: say([*spell_out(m[1]), *numerals.digits(m[2] + (m[3] or ""))]),
        ),
        (r"(?<![\w.,-])\d{5}-\d{4}\b", names.phone_number),
        (r"(?i)\b(dial|press) ([*#])(?=\d)", lambda m: f"{m[1]} {'star' if m[2] == '*' else 'pound'} "),
        (r"(?<=[Cc]all |[Dd]ial |[Tt]ext )\d{3} \d{4}\b", names.phone_number),
        (
            r"(?i)\b(dial|call|phone|text|number is|press) (\d{3,})\b(?! [a-z]+s\b)",
            lambda m: m[1] + say(numerals.digits(m[2])),
        ),
        (r"\b911\b", " nine one one "),
        (r"(?:(?<=\ba )|(?<=\bA )|(?<=\bBoeing ))7[0-8]7\b(?! [a-z]+s\b)", lambda m: say(numerals.year(int(m[0])))),
        (
            r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?!000)(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]\d)",
            lambda m: " dot ".join(say(numerals.digits(part)) for part in m[0].split(".")),
        ),
        (
            r"\b(\d{4})-(\d{2})-(\d{2})[T ](\d{2}:\d{2}(?::\d{2})?)(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})?",
            lambda m: f"{dates.date(m[1], m[2], m[3])} at {m[4]} ",
        ),
        (r"\b(\d{4})[-/](\d{1,2})[-/](\d{1,2})\b", lambda m: dates.date(m[1], m[2], m[3])),
        (r"\b(\d{1,2})[/-](\d{1,2})[/-](\d{4}|\d{2})\b(?!/)", lambda m: dates.date(m[3], m[1], m[2])),
        (r"(?<![\d.])([0-3]?\d)\.([01]\d)\.(\d{4}|\d\d)\b(?!\.\d)", lambda m: dates.date(m[3], m[2], m[1])),
        (r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(\d{4})\b", lambda m: dates.date(m[3], m[2], m[1])),
        (rf"(?<=\d)\s*-{{1,2}}\s*(?=(?:{_MONTH}) \d)", " to "),
        (
            rf"\b({_DAYS})\.?,? (?=(?:{_MONTH}) \d|\d{{1,2}}(?:st|nd|rd|th)? (?:{_MONTH})\b)",
            lambda m: f"{dates.day(m[1])}, ",
        ),
        (r"(?<!\w)'0(\d)\b(?!')", r" oh \1 "),
        # Numbers as others write them.
        (r"\b\d{1,3}(?:'\d{3})+\b", lambda m: m[0].replace("'", "")),
        (r"\b(24|50|20)-(7|50|20)\b(?!-)", amounts.slash),
        (r"(?<![\d.,])(\d{1,3}(?: \d{3})+),(\d{1,2})(?![\d,])", lambda m: m[1].replace(" ", "") + "." + m[2]),
        (r"\b\d{1,2}(?:,\d{2})+,\d{3}\b", lambda m: m[0].replace(",", "")),
        (r"\b(10|100|1000|1,000)s(?= of\b)", lambda m: {"10": "tens", "100": "hundreds"}.get(m[1], "thousands")),
        (r"([=+*(-] ?\d+)([xyz])\b", r"\1 \2"),
        (r"(?<![\d.,])\d{1,3}(?:\.\d{3})+,\d{1,2}(?![\d,])", lambda m: m[0].replace(".", "").replace(",", ".")),
        (r"(?<![\d.,])\d{1,3}(?:\.\d{3}){2,}(?![\d.]\d|\d)", lambda m: m[0].replace(".", "")),
        (r"(?<![\d.,/:])\d{1,3}(?: \d{3})+(?![\d,:/-])(?!\.\d)", amounts.joined),
        (r"(?<![\d.,])(\d+),(\d{1,2})(?![\d,]|\.\d)", r"\1.\2"),
        (r"(?<![\d.])\d+(?:\.\d+){2,}\b", amounts.version),
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
            amounts.part_of_inch,
        ),
        (rf"\b(?P<whole>\d+[ -]+)?(?P<part>\d+/\d+)\s*(?P<unit>{_LONG_UNIT})\b\.?(?!/)", amounts.part_of_unit),
        (r"\b(\d+)-(\d+)/(\d+)\b", amounts.mixed),
        (r"(?<=\d)\s*-{1,2}\s*(?=(?:\$|EUR|GBP)?\s?\d)", " to "),
        (r"\b(\d{1,2})[:.](\d{2})(?=\s*[ap]\.?m\b)", r"\1:\2"),
        (r"\b([Aa]t \d{1,2})\.([0-5]\d)(?=,? (?:we|he|she|they|I|sharp|today|tonight|tomorrow)\b)", r"\1:\2"),
        (
            r"(?i)\b(odds|ratios?|scale|score|won|lost|lead|win|by|beat \w+)( of| is| was)? (\d+):(\d+)\b",
            lambda m: f"{m[1]}{m[2] or ''}{say([*numerals.cardinal(int(m[3])), 'to', *numerals.cardinal(int(m[4]))])}",
        ),
        (
            r"\b(\d+):(\d{1,3}(?:,\d{3})+|\d{3,}|\d)\b",
            lambda m: say([*numerals.cardinal(int(m[1])), "to", *numerals.cardinal(amounts.integer(m[2]))]),
        ),
        (rf"(?i)\b(?P<hour>\d{{1,2}}):(?P<minute>\d{{2}})(?::(?P<second>\d{{2}}))?{_HALF}?", dates.time),
        (r"(?i)\b(\d{1,2})\s*([ap])\.?m\b\.?", dates.hour),
        # Money.
        (
            rf"(?P<unit>{_PREFIX})\s*(?P<amount>\d{{1,3}}(?:\.\d{{3}})+(?!\d)|{NUMBER}){_TO}(?:[\s-]*(?P<scale>{_SCALE}))?(?P<after>)"
            rf"(?:\s?/\s?(?P<per>{_RATE}|{_UNIT})\b)?",
            amounts.money,
        ),
        (
            rf"(?P<amount>{NUMBER})(?P<to>)(?:[\s-]*(?P<scale>{_SCALE}))?\s*(?P<after>{_SUFFIX})(?P<unit>)"
            rf"(?:\s?/\s?(?P<per>{_RATE}|{_UNIT})\b)?",
            amounts.money_after,
        ),
        # Dates in words.
        (
            rf"\b(?P<month>{_MONTH})\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b"
            r"(?: +to +(?P<last>\d{1,2})(?:st|nd|rd|th)?\b)?(?:,\s*(?=\d{4}\b))?",
            dates.month_day,
        ),
        (rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s+(?P<month>{_MONTH})(?=\W|$)", dates.day_month),
        (r"\b(\d{1,4})\s?(AD|BCE|BC|CE|A\.D\.|B\.C\.E\.|B\.C\.|C\.E\.)(?!\w)", dates.era),
        (r"\bAD (\d{3,4})\b", lambda m: say([*spell_out("AD"), *numerals.year(int(m[1]))])),
        # Powers, fractions, measures.
        (r"(?<=\d['\"])\s?[xX]\s?(?=\d)", " by "),
        (r"(?P<feet>\b\d{1,3})'\s?(?P<inches>\d{1,2}(?:\.\d)?)(?:\"|''|\b)", amounts.feet),
        (rf"(?P<feet>\b\d{{1,3}})'(?P<inches>)(?=\s+(?:{_EXTENT})\b)", amounts.feet),
        (r"(?<=\b[Aa] )(?P<feet>\d{1,2})'(?P<inches>)(?=\s[a-z])|(?<=by )(?P<f>\d{1,2})'(?!\w)", amounts.feet),
        (r"(\b\d+(?:\.\d+)?)\"(?=[\s.,;:!?)-]|$)", amounts.inches),
        (
            rf"(?P<number>{NUMBER})\s?(?P<unit>in)\b(?:\.(?=\s|$)|(?=\s(?:{_EXTENT})\b))",
            lambda m: say(
                [*numerals.decimal(m["number"]), "inch" if m["number"] == "1" or attributive(m) else "inches"]
            ),
        ),
        (r"\b(?P<hours>\d{1,2})\s?h\s?(?P<minutes>\d{1,2})(?:\s?(?P<named>m|min|mins))?\b", amounts.hours_minutes),
        (r"(?<=\d)\s?m\.p\.h\.?(?=\W|$)", " mph"),
        (r"(?<=\d)\s?fl\.? ?oz\b\.?", " fluid ounces "),
        (r"(?<=\d)\s?cu\.? ?(ft|m|yd|cm|km)\b", r" \1^3"),
        (r"(?<=\d)\s?sq\.? ?(ft|km|mi|m|yd|cm)\b", r" \1^2"),
        (r"\b(?P<feet>\d+) ?ft\.?,? (?P<inches>\d+(?:\.\d)?) ?in\b\.?", amounts.feet),
        (
            rf"(?P<number>(?<![A-Za-z\d.-]){NUMBER})-(?P<unit>{_LONG_UNIT})\b\.?(?=\s)",
            lambda m: say([*numerals.decimal(m["number"]), *amounts.units(m["unit"], False, "")]),
        ),
        (rf"(\b\d[\d.,]*(?: ?[A-Za-z]+s)?)/(?=(?:{_RATE})\b)", r"\1 per "),
        (r"(?<=\d) / (?=\d)", " divided by "),
        (r"\b(\d+)\s+(\d+)/(\d+)(?:ths?|rds?|nds?)?\b", amounts.mixed),
        (r"(?<![\w/])(\d+)/(\d+)(?:ths?|rds?|nds?)?(?![\w/])", amounts.slash),
        (r"(?<=\d) ?[xX] ?(?=\d)", " by "),
        (r"(?<=\d)x\b", " times "),
        (r"(?<=\w)\s*\*\s*(?=\w)", " times "),
        (
            rf"(?P<number>(?<![A-Za-z\d.]){NUMBER})\s?(?P<unit>{_UNIT})(?P<power>\^[23])?(?:/(?P<per>{_UNIT})(?P<power2>\^[23])?)?(?![\w^]|\.\w|')(?P<stop>\.)?",
            amounts.measure,
        ),
        (r"\^([+-]?\d+)", amounts.power),
        (r"(?<![\w.])(\d+(?:\.\d+)?)(K|M|B|T|k|bn|mn)\b", amounts.scaled),
        (r"(?<=\d)\s?A\b(?= (?:fuse|circuit|charger|current|supply|breaker|plug|outlet|socket|motor)\b)", " amp"),
        (
            rf"(?<![A-Za-z\d.])(?P<number>{NUMBER})(?:\s?(?=[CF])| (?=K))(?P<scale>[CFK])\b(?!['+#.]\w)",
            lambda m: say(
                [
                    *numerals.decimal(m["number"]),
                    *([] if m["scale"] == "K" else ["degree"] if attributive(m) else ["degrees"]),
                    _TEMPERATURES[m["scale"]],
                ]
            ),
        ),
        (r"(?<![\w.])(?P<number>\d{2,4}|\d+\.\d+)'?s\b", amounts.seconds_or_decade),
        (r"(?i)\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", lambda m: say(numerals.ordinal(amounts.integer(m[1])))),
        (rf"(?P<number>{NUMBER})\s*%", lambda m: say([*numerals.decimal(m["number"]), "percent"])),
        (r"(?<=\b1 )\s*degrees\b", "degree"),
        (
            rf"(?P<number>{NUMBER})\s*degrees\b(?! [CFKNSEW]\b)",
            lambda m: say([*numerals.decimal(m["number"]), "degree" if attributive(m) else "degrees"]),
        ),
        (r"\b(degrees?)\s+([CFKNSEW])\b", lambda m: f"{m[1]} {_TEMPERATURES[m[2]]}"),
    )
]
WORDS: _Rules = [
    (re.compile(pattern), replace)
    for pattern, replace in (
        (
            rf"\b({_DAYS})\.?\s*-{{1,2}}\s*({_DAYS})\b\.?",
            lambda m: f" {dates.day(m[1])} to {dates.day(m[2])} ",
        ),
        (rf"\b({_MONTH})\s*-{{1,2}}\s*({_MONTH})(?!\w)", lambda m: f" {dates.month(m[1])} to {dates.month(m[2])} "),
        (r"\b(Mon|Tues?|Wed|Thurs?|Thu|Fri)\.(?=\W|$)|\b(Sat|Sun)\.(?=,)", lambda m: dates.day(m[1] or m[2])),
        (r"\b([A-Z]\w+) v\.(?= [A-Z])", r"\1 versus"),
        (r"\b([bd])\. (?=1\d{3}\b)", lambda m: {"b": "born ", "d": "died "}[m[1]]),
        (r"(?i)\bop\. ?(?=\d)", " opus "),
        (r"\bM{1,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})\b(?<=\w{4})", names.roman_year),
        (
            rf"\b(?P<head>(?:{_KINGS})(?: [A-Z][a-z]+){{1,2}}) (?P<roman>II|III|IV)\b",
            lambda m: names.roman(m, lambda number: ["the", *numerals.ordinal(number)]),
        ),
        (
            r"(?i)\b(in|by|since|until|last|next|from|of|to|through|early|late|mid) (Mar|Jun|Jul)\.(?=\s|$)",
            lambda m: f"{m[1]} {dates.month(m[2])}",
        ),
        (r"\b(Jan|Feb|Apr|Aug|Sept|Sep|Oct|Nov|Dec)(?:\.(?=\s|$)|(?=\s+\d{4}\b))", lambda m: dates.month(m[1])),
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
        (r"\b(?P<roman>[IVXLC]+)(?:th|st|nd|rd)\b|\b(?P<century>[IVX]{2,})(?=(?:th)? [cC]entur)", names.ordinal_roman),
        (
            rf"\b(?!Malcolm X\b)(?P<head>{_KINGS})\s+(?P<roman>[IVX]{{2,}}|[VX]|I(?! (?:{_I_VERBS})\b))\b(?!'(?!s\b))",
            lambda m: names.roman(m, lambda number: ["the", *numerals.ordinal(number)]),
        ),
        (
            r"\b(?P<head>[A-Z][a-z]+) (?P<roman>[IVX]+)"
            r"(?= (?:ruled|reigned|abdicated|was (?:king|queen|pope|crowned))\b)",
            lambda m: names.roman(m, lambda number: ["the", *numerals.ordinal(number)]),
        ),
        (rf"\b(?P<head>{_PARTS})\s+(?P<roman>[IVXLC]+)\b", lambda m: names.roman(m, numerals.cardinal)),
        (r"\b(?P<head>[A-Z]{3,})\s+(?P<roman>V|[IVX]{2,})\b", names.sequel),
        (r"\b(?P<head>[A-Z][a-z]+)\s+(?P<roman>[IVXLC]{2,})\b", names.sequel),
        (r"(?i)\be\.g\.,?", " for example, "),
        (r"(?i)\bi\.e\.,?", " that is, "),
        (r"\bPh\.?Ds\b", " PHDs "),
        (r"\bPh\.?D\b\.?", " P_ H_ D_ "),
        (r"\b(?:[A-Z][a-z]{0,2}\.){2,}|\b(?:[A-Za-z]\.){2,}", lambda m: say(spell_out(m[0]))),
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
        (rf"(?i)\b({_ABBREVIATED_WITH_STOP})\.(?=\s+[\w(])", names.abbreviation),
        (rf"(?i)\b({_ABBREVIATED})\b\.?", names.abbreviation),
        (r"(?<=\w)-(?=\w)", " "),
        (rf"(?P<number>(?<![A-Za-z]){NUMBER}|\d+)", dates.plain),
        (rf"\b(?!TRY|RUB|kr|zl)({_NAMED})\b", lambda m: say(amounts.currency(m[0])[1].split())),
        (r"\bu s dollars?\b", " U_ S_ dollars "),
        (r"(?<=\w)\s+\*\s+(?=\w)", " times "),
        (r"&", " and "),
        (r"%", " percent "),
        (r"@", " at "),
        (r"(?<=[\w)])\s*=\s*(?=[\w(])", " equals "),
        (r"(?<=\w)\s*\+\s*(?=\w)|\+(?=\w)", " plus "),
    )
]
