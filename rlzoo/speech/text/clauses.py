"""The rules of a clause where they know more than the tagger: what must be its verb, its noun or its adjective."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from rlzoo.speech.text.heteronyms import THIRD_PERSON, readings_of
from rlzoo.speech.text.signs import PAUSE
from rlzoo.speech.text.tagger import shipped

# After these a 'to' comes before a verb: 'time to record', 'he wants to perfect it'.
_WITH_INFINITIVE = frozenset(
    str.split(
        "^ , time hard easy ready able how where when what not want wants wanted need needs needed try tries tried "
        "plan plans planned going hope hopes hoped decide decided begin began has have had chose agreed agree used "
        "asked told "
        "forced allowed forgot failed managed learn learned waited continue continued years months weeks days hours"
    )
)
_OPENINGS = frozenset(str.split("and then now never just please also always so but or"))
_MODAL = re.compile("(can|could|may|might|must|shall|should|will|would)(n't)?|can't|cannot|shan't|won't")
_PLURALS = frozenset(str.split("people men women children police mice geese sheep deer cattle oxen"))
_MANY = frozenset(str.split("many most some few others all both"))
_RARELY = frozenset(str.split("seldom rarely hardly often never always sometimes"))
_DO = frozenset(str.split("do does did don't doesn't didn't"))
_POSSESSIVES = frozenset(str.split("my your his its our their"))
_BEFORE_PLURAL = _POSSESSIVES | frozenset(str.split("these those many several few some other no"))
_ALONE = frozenset(str.split("object refuse converse"))  # that need no object
_COMPOUNDS = frozenset(str.split("sales sports news savings arms goods works customs"))
_LINKS = frozenset(
    str.split("am is are was were be been look looks looked seem seems seemed feel feels felt get gets got")
)
_INTENSIFIERS = frozenset(str.split("very so too not quite really"))
_BE = frozenset(str.split("am is are was were isn't aren't wasn't weren't"))
_HELPERS = frozenset(
    str.split(
        "did does do can could will would should shall may might must let lets make makes made help helps helped have "
        "has had see saw sees hear heard hears watch watched to and or a an please"
    )
)


def mend(words: Sequence[str], tags: Sequence[str]) -> list[str]:
    """`tags` where the rules of a clause say more than the tagger: a verb follows 'may' and 'time to', none 'are you'.

    A clause without a verb gets one: the heteronym that begins it before an object ('now wind the clock'), or that
    follows a plural or a pronoun ('the dates conflict', 'the roads wind through the hills'). It ends at a pause.
    """
    tags = _plausible(words, tags)
    mended = list(tags)
    start = 0
    for end in [place for place, word in enumerate(words) if word == PAUSE] + [len(words)]:
        asks = start < end and bool(_MODAL.fullmatch(words[start]) or words[start] in _DO)
        for place in range(start, end):
            if "V" in readings_of(words[place]) and _is_infinitive(words, tags, place):
                mended[place] = "VB"
            elif (
                words[start] in _BE
                and 1 < place - start < 4
                and words[place - 1] != "to"
                and "J" in readings_of(words[place])
            ):
                mended[place] = "JJ"
            elif _is_noun(words, tags, place):
                mended[place] = "NNS"
            elif _is_adjective(words[start:end], tags[start:end], place - start):
                mended[place] = "JJ"
            elif words[place] == "dove" and _is_dive(words[start:place], tags[start:end]):
                mended[place] = "VBD"
            elif asks and words[place] == "read" and not any(tag[:1] == "V" for tag in tags[start + 1 : place]):
                mended[place] = "VB"
            elif words[place] == "read" and _is_singular_past(words[start:place], tags[start:place]):
                mended[place] = "VBD"
        # Behind a preposition 'may' is the month; 'will taxes increase' has a verb yet to come.
        before = ["", *mended[start + asks : end]]
        if not any(tag[:1] == "V" or (tag == "MD" and at != "IN") for at, tag in pairwise(before)):
            verb = _missing_verb(words[start + asks : end], tags[start + asks : end], asks)
            if verb is not None:
                mended[start + asks + verb] = "VBP"
        start = end + 1
    return mended


def _plausible(words: Sequence[str], tags: Sequence[str]) -> list[str]:
    """`tags` without those that the tagger gives to words it never saw.

    There are no modals but the known ones ('they chose alternate routes'), and what begins a clause is rather its
    subject than its verb: 'hotels house guests', 'tired muscles contract'.
    """
    mended = list(tags)
    for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
        following = [other for other in words[place + 1 : place + 3] if other not in _RARELY]
        readings = readings_of(following[0]) if following else {}
        if word in _RARELY:
            mended[place] = "RB"
        elif tag == "MD" and not _MODAL.fullmatch(word):
            mended[place] = "VBD"
            if tags[place + 1 : place + 2] == ["VB"]:
                mended[place + 1] = "NN"
        elif tag == "DT" and _is_plural(word, "NN"):
            mended[place] = "NNS"
        elif (place == 0 or words[place - 1] == PAUSE) and tags[place + 1 : place + 2] != ["DT"]:
            if tag in ("VBD", "VBN") and word.endswith("ed"):
                mended[place] = "JJ"
            elif tag in ("VBZ", "UH") and _is_plural(word, "NN") and "V" in readings and "J" not in readings:
                mended[place] = "NNS"
    return mended


def _is_infinitive(words: Sequence[str], tags: Sequence[str], place: int) -> bool:
    before = words[place - 1] if place else "^"
    if before == "to":
        return (words[place - 2] if place > 1 else "^") in _WITH_INFINITIVE
    return place > 0 and tags[place - 1] == "MD" and tags[place][:1] in ("N", "J", "R")


def _is_singular_past(before: Sequence[str], tags: Sequence[str]) -> bool:
    """True after 'the sign' in 'the sign read stop': the present would be 'reads'; not in 'let the boy read'."""
    at = -2 if len(tags) > 1 and tags[-1] == "RB" else -1
    return bool(before) and (tags[at] == "NN" or before[at] in THIRD_PERSON) and not _HELPERS.intersection(before)


def _is_noun(words: Sequence[str], tags: Sequence[str], place: int) -> bool:
    """True for the plural in 'name three uses', 'its uses vary', 'lives change'."""
    if not _has_ending(words[place]) or "N" not in readings_of(words[place]):
        return False
    if words[place + 1 : place + 2] in (["are"], ["were"], ["have"]):
        return True
    if not place:
        return words[2:3] in ([], [PAUSE]) and tags[1:2] in (["NN"], ["VBP"], ["VBD"], ["VB"])
    return words[place - 1] in _BEFORE_PLURAL or (tags[place - 1] == "CD" and words[place - 1] != "one")


def _is_adjective(words: Sequence[str], tags: Sequence[str], place: int) -> bool:
    """True for 'she is very upset' and 'an invalid card', where the tagger saw a noun."""
    if tags[place] != "NN" or not place or "J" not in readings_of(words[place]):
        return False
    before = place - 2 if words[place - 1] in _INTENSIFIERS and place > 1 else place - 1
    invalid = words[place] == "invalid" and tags[place + 1 : place + 2] in (["NN"], ["NNS"])
    return invalid or words[before] in _LINKS


def _is_dive(before: Sequence[str], tags: Sequence[str]) -> bool:
    """True in 'the submarine dove at us': a noun before, no noun behind, and no verb."""
    after = tags[len(before) + 1 : len(before) + 2]
    named = len(before) > 0 and before[-1] not in ("turtle", "rock", "pet", "mourning", "ring", "ground")
    behind = after in ([], [","], ["IN"], ["RB"], ["RP"], ["TO"])
    return (
        named and behind and tags[len(before) - 1] in ("NN", "NNS") and not any(tag[:1] in ("V", "M") for tag in tags)
    )


def _has_ending(word: str) -> bool:
    """True for 'records' and 'uses', which is a plural or a third person; not for 'progress'."""
    return word.endswith("s") and not word.endswith("ss")


def _is_plural(word: str, tag: str) -> bool:
    """True also where the tagger does not know the word: 'cameras'."""
    ending = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is", "'s"))
    return tag == "NNS" or word in _PLURALS or (tag == "NN" and ending and word not in _COMPOUNDS)


def _is_verb(word: str, before: str) -> bool:
    """True for 'hates' after 'jack': a verb more often than not, with or without its ending, behind a noun."""
    usual = shipped().usual
    return usual.get(before, "NN") == "NN" and usual.get(word, usual.get(word.removesuffix("s"), ""))[:1] == "V"


def _missing_verb(words: Sequence[str], tags: Sequence[str], asks: bool) -> int | None:
    """The place of the heteronym that is the verb of a clause in which the tagger found none; `asks`: after 'did'."""
    for place, word in enumerate(words):
        if "V" not in readings_of(word):
            continue
        after = tags[place + 1 : place + 2]
        if _OPENINGS.issuperset(words[:place]) and after in (["PRP"], ["DT"], ["PRP$"]):
            return place
        if not place:
            if after == ["RB"] and "J" not in readings_of(word) and not _has_ending(word):
                return place
            continue
        at = place - 2 if place > 1 and tags[place - 1] == "RB" else place - 1
        subject, before = words[at], tags[at]
        if before == "PRP" and subject not in _POSSESSIVES:
            return place
        if _has_ending(word):
            # 'the lawyer objects', 'paper tears easily', but 'police records of crimes' and 'the tax records'.
            usual = shipped().usual.get(subject, "")
            alone = after in ([], [","])
            known = usual[:1] != "V" and (not alone or word[:-1] in _ALONE) if at else not usual or not alone
            if before in ("NN", "JJS") and not _is_plural(subject, before) and known and after not in (["IN"], ["CC"]):
                return place
        elif (
            (_is_plural(subject, before) and not (at and _is_verb(subject, words[at - 1])))
            or (subject in _MANY and place == 1)
            or ("and" in words[1 : place - 1] and before in ("NN", "JJ"))
            or (place > 2 and subject == "and" and _is_plural(words[place - 3], tags[place - 3]))
            or (asks and before == "NN" and after != ["NN"])
            or (words[0] == "why" and place == 1)
            or words[:place] in (["never"], ["please"], ["always"])
        ):
            return place
    return None
