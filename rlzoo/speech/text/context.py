"""The text around a match, and what rules of every kind use: is a measure an adjective, does a plural follow."""

from __future__ import annotations

import re

Match = re.Match[str]
NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_PLURALS = frozenset(str.split("people men women children feet teeth mice geese sheep fish percent dollars"))
_NO_PLURALS = frozenset(str.split("is was has does as his its this us thus perhaps always"))
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
DETERMINER = re.compile(
    r"(?i)\b(?:a|an|the|this|that|my|your|his|her|its|our|their|each|every|another)\s+"
    r"(?:[\w. ]+(?: foot| inch|['\"]) +by +)?$"
)
DATED = r"(?i)\b(?:in|since|by|until|till|before|after|during|of|from|year|around|circa|between|about)\s+$"


def say(words: list[str]) -> str:
    """Words, set apart from what is around them."""
    return " " + " ".join(words) + " "


def attributive(match: Match) -> bool:
    """True if a measure stands before what it describes, where its unit is singular: 'a 5 km run', 'the 5V supply'."""
    after = re.match(r"(?:\s+by \d[\d.]*['\"])?[\s-]+([A-Za-z]+)", match.string[match.end() :])
    if after is None:
        return False
    if match.string[match.end()] == "-":
        return True
    if after[1].lower() in _FUNCTION_WORDS:
        return False
    before = DETERMINER.search(match.string[: match.start()])
    return bool(before) or after[1] in _MEASURED


def counts_things(match: Match) -> bool:
    """True if a number that may be a year stands before a plural: '1412 bottles', but 'in 1412 bottles were'."""
    return not re.search(DATED, match.string[: match.start()]) and before_plural(match)


def before_plural(match: Match) -> bool:
    """True if a plural follows."""
    following = re.match(r"\s+([a-z]+)\b", match.string[match.end() :])
    if following is None:
        return False
    word = following[1]
    return word in _PLURALS or (word.endswith("s") and not word.endswith("ss") and word not in _NO_PLURALS)


def spell_out(text: str) -> list[str]:
    """'p.m.' -> ['P_', 'M_']: the mark keeps a letter's name apart from a word of one letter."""
    return [letter.upper() + "_" for letter in re.findall("[A-Za-z]", text)]
