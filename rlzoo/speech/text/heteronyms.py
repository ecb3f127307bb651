"""Words with more than one reading: 'they record a record', 'a lead pipe', 'they live here'.

What a word is in its sentence (noun, verb, adjective, past) decides by the table `heteronyms.txt`; a few have several
readings as the same part of speech, which words nearby decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from rlzoo.speech.text.lexicon import Phones, sibilant_ending
from rlzoo.speech.text.normalize import PAUSE

_SENSES: Mapping[str, tuple[str, str, str]] = {
    # word: classes that it concerns, phones, and the words (before | after, '_' for the word) that tell.
    "bass": ("NJ", "B AE1 S", r"fish|fished|fishing|caught|catch|lake|river|pond|largemouth|trout|bait"),
    "bow": (
        "N", "B AW1",
        r"ship|ships|ship's|boat|stern|deck|hull|waves|(took|take|takes|made|gave|final|deep|low) (a )?_|audience",
    ),
    "row": ("NV", "R AW1", r"(had|having) a _|_ (about|over)|(angry|furious|bitter) _|quarrel|argument"),
    "tear": ("N", "T EH1 R", r"_ in(?! (\w+ )?\w+ eyes?)|wear and _|(muscle|ligament|meniscus) _|ripped|seam"),
    "tears": ("N", "T EH1 R Z", r"_ in (the|his|her|my|a) (cloth|fabric|paper|shirt|jacket|sail|page|skin|dress)"),
    "lead": (
        "NJ", "L EH1 D",
        r"of _|_ (pipe|pipes|paint|poisoning|pencil|pencils|bullet|bullets|weights|shot|crystal|acid|glass|level|"
        r"levels|mine|mines|ore|roof|balloon)|metal|metals|melt|melts|melted|heavy|toxic|copper|zinc|iron|tin|gold|silver|"
        r"mercury|water|gasoline|(contains|contain|contained|like|with) _",
    ),
    "polish": (
        "NJ", "P OW1 L IH0 SH",
        r"(speak|speaks|spoke|speaking|learn|learning|in|is|are|was|were) _|poland|warsaw|czech|german|russian|_ "
        r"(army|man|woman|people|government|border|language|king|food|city|town|president|troops|history|american)",
    ),
    "content": (
        "NJ", "K AH0 N T EH1 N T",
        r"(feel|feels|felt|feeling|seem|seems|seemed|look|looks|looked|quite|perfectly|remain|remains|remained|stay|"
        r"stayed|became|become) _",
    ),
    "minute": (
        "NJ", "M AY0 N UW1 T",
        r"(were|are|so|very|too|extremely|almost|incredibly|seem|seems|seemed) _|_ (traces?|amounts?|quantit(y|ies)|"
        r"details?|differences?|particles?|fractions?|changes?|doses?|portions?|holes?|cracks?|variations?|inspection|"
        r"examination|organisms?|creatures?|size)",
    ),
    "learned": (
        "JPVN", "L ER1 N AH0 D",
        r"(a|an|the|most|very|his|her|my|of) _ (man|men|woman|women|people|person|scholars?|professors?|judges?|"
        r"friends?|colleagues?|society|societies|doctors?|priests?|discussion|journals?|counsel|professions?|books?)",
    ),
    "aged": (
        "JPVN", "EY1 JH AH0 D",
        r"(a|an|the|his|her|my|their|our) _ (man|men|woman|women|people|person|couple|mother|father|parents?|aunt|"
        r"uncle|king|queen|poet)|(the|for|of) _ (and|is|are|were)",
    ),
    "axes": ("N", "AE1 K S IY2 Z", r"x|y|x\.|y\.|coordinate|plot|graph|rotation|vertical|horizontal"),
}  # fmt: skip
_IRREGULAR = frozenset(("houses", "mouths", "uses", "lives", "winds", "deserts"))  # their plurals follow no rule


@cache
def table() -> dict[str, dict[str, Phones]]:
    """{word: {class: phones}} of `heteronyms.txt`."""
    readings: dict[str, dict[str, Phones]] = {}
    for line in Path(__file__).with_name("heteronyms.txt").read_text(encoding="ascii").splitlines():
        if line and not line.startswith("#"):
            word, *parts = line.split(" | ")
            readings[word] = {part[0]: tuple(part[2:].split()) for part in parts}
    return readings


@cache
def readings_of(word: str) -> Mapping[str, Phones]:
    """{class: phones} of a word or of what it is the plural or the third person of; empty for other words."""
    if word in table():
        return table()[word]
    if word.endswith("s") and word[:-1] in table() and word not in _IRREGULAR:
        base = table()[word[:-1]]
        return {kind: (*phones, *sibilant_ending(list(phones))) for kind, phones in base.items()}
    return {}


def class_of(tag: str) -> str:
    """'VBD' -> 'P', 'NNS' -> 'N', 'VB' -> 'V', 'JJ' -> 'J'; empty for other tags."""
    return "P" if tag in ("VBD", "VBN") else {"N": "N", "V": "V", "J": "J", "R": "J"}.get(tag[:1], "")


_INSTEAD = {"P": "VJN", "V": "PJN", "N": "JV", "J": "NPV", "": ""}


def mend(words: Sequence[str], tags: Sequence[str]) -> list[str]:
    """`tags` where a clause without a verb gets one: 'the dates conflict', 'the roads wind through the hills'.

    A heteronym that follows a plural or a pronoun is then the verb. A clause ends at a pause.
    """
    mended = list(tags)
    start = 0
    for end in [place for place, word in enumerate(words) if word == PAUSE] + [len(words)]:
        if not any(tag[:1] in ("V", "M") for tag in tags[start:end]):
            for place in range(start + 1, end):
                if tags[place - 1] in ("NNS", "PRP") and "V" in readings_of(words[place]):
                    mended[place] = "VBP"
                    break
        start = end + 1
    return mended


def choose(words: Sequence[str], place: int, tag: str) -> Phones:
    """Phones of the heteronym `words[place]`, which is tagged `tag`."""
    word, kind = words[place], class_of(tag)
    readings = readings_of(word)
    if word in _SENSES:
        classes, phones, cues = _SENSES[word]
        sentence = " ".join("_" if index == place else other for index, other in enumerate(words))
        if (kind or "N") in classes and re.search(rf"(?:^| )(?:{cues})(?: |$)", sentence):
            return tuple(phones.split())
    if "P" in readings and kind in "VP":
        # 'have you read it', but 'they read every day': the tagger sees two words to each side.
        if any(re.fullmatch("(ha(ve|s|d)|having)(n't)?|.*'ve", before) for before in words[max(0, place - 3) : place]):
            kind = "P"
        elif re.search("every|daily|often|usually|always", " ".join(words[place + 1 : place + 4])):
            kind = "V"
    for other in kind + _INSTEAD[kind]:
        if other in readings:
            return readings[other]
    return next(iter(readings.values()))
