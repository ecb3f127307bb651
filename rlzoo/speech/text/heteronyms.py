"""Words with more than one reading: 'they record a record', 'a lead pipe', 'they live here'.

What a word is in its sentence (noun, verb, adjective, past) decides by the table `heteronyms.txt`; a few have several
readings as the same part of speech, which words nearby decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

from rlzoo.speech.text.lexicon import Phones, sibilant_ending
from rlzoo.speech.text.normalize import PAUSE
from rlzoo.speech.text.tagger import shipped

_SENSES: Sequence[tuple[str, str, str, str]] = (
    # Word, classes that it concerns, phones, and the words (before | after, '_' for the word) that tell.
    (
        "bass", "NJ", "B AE1 S",
        r"fish|fished|fishing|caught|catch|lake|river|pond|largemouth|trout|bait|swam|swims?|swimming|tank|sea _|"
        r"aquarium|grilled|fried|ate|eats?|cooked|baked|hooked|fillets?|lakes|rivers|hook|(fresh|smoked) _|_ (live|"
        r"swim|bite|bit|bites|for (dinner|lunch))",
    ),
    (
        "bow", "N", "B AW1",
        r"ship|ships|ship's|boat|stern|deck|hull|waves|crew|captain|sailors?|at the _|"
        r"(took|take|takes|made|gave|final|deep|low|polite|slight|quick|graceful|formal) (a )?_|audience|(^_|"
        r"(please|must|never) _) (before|to|down|low)",
    ),
    (
        "row", "NV", "R AW1",
        r"(have|had|having) (an?|another) (\w+ )?_(?! of)|(a|the|their|this|big|public) _ (was |is )?(about|over|"
        r"with|broke)|"
        r"(angry|furious|bitter|loud|terrible|awful|blazing|family) _(?! of)|_ was (loud|bitter|ugly|silly)|quarrel|"
        r"argument",
    ),
    (
        "tear", "N", "T EH1 R",
        r"_ in(?! (\w+ )?\w+ eyes?)|wear and _|(muscle|ligament|meniscus) _|ripped|seam|(sew|sewed|mend|mended|"
        r"patch|patched|"
        r"fix|fixed|repair|repaired|stitch|stitched) (up )?(the|a|this|that|his|her|my|your) _",
    ),
    ("tears", "N", "T EH1 R Z", r"_ in (the|his|her|my|a) (cloth|fabric|paper|shirt|jacket|sail|page|skin|dress)"),
    (
        "lead", "NJ", "L EH1 D",
        r"of _(?! (singer|guitar|actor|actress|role|author|writer|vocals|vocalist|part|character|engineer))|"
        r"_ (pipe|pipes|paint|poisoning|pencil|pencils|bullet|bullets|weights?|shot|crystal|acid|glass|level|levels|"
        r"mines?|ore|roof|balloon)|metal|metals|melt|melts|melted|heavy|toxic|copper|zinc|iron|tin|gold|silver|"
        r"mercury|water|gasoline|poisons?|poisoned|poisonous|(?<![\w'] )_ (is|was|has)|(is|are|was|were) _(?= ,|$)|"
        r"(contains?|contained|like|with|from|pencil|mines?|mined|some) _|_ in it|(uses?|used|ban|banned) _(?= ,|$)|"
        r"_ in (the|a|my|his|her|your|our|their) (\w+ )?(pencils?|pipes?|paint|water|gasoline|soil|toys?)",
    ),
    (
        "polish", "NJ", "P OW1 L IH0 SH",
        r"(speak|speaks|spoke|speaking|learn|learned|learning|understands?|studied|taught|in|is|are|was|were) _|poland|"
        r"warsaw|czech|german|russian|_ (army|man|woman|people|government|border|language|king|food|city|town|"
        r"president|"
        r"troops|history|american|team|player|poet|writer|girl|boy|friend|soldiers?|words?|songs?|zloty|sausages?|"
        r"name)|"
        r"^_ is",
    ),
    (
        "content", "NJ", "K AH0 N T EH1 N T",
        r"(feel|feels|felt|feeling|seem|seems|seemed|look|looks|looked|quite|perfectly|remain|remains|remained|stay|"
        r"stayed|became|become) _|_ (man|men|woman|women|child|children|people|boy|girl|baby|cat|dog|person|smile|"
        r"sigh)|"
        r"(am|is|are|was|were|be|been|not|very|so|more|less|too) _(?= (with|to|in|as|here|now|there|at)( |$)| ,|$)",
    ),
    (
        "minute", "NJ", "M AY0 N UW1 T",
        r"(was|is|looks?|looked) _(?= ,|$)|(were|are|so|very|too|extremely|almost|incredibly|seem|seems|seemed) _|"
        r"(a|the|some|with) _ (gaps?|spots?|crystals?|hairs?|shells?|beads?|parts?)|_ (traces?|amounts?|quantit(y|"
        r"ies)|details?|differences?|particles?|"
        r"fractions?|changes?|doses?|portions?|holes?|cracks?|"
        r"variations?|inspection|examination|organisms?|creatures?|size|specks?|bits?|"
        r"pieces?|scratch|scratches|dots?|grains?|insects?|drops?|errors?|flaws?|fragments?|dust)",
    ),
    (
        "learned", "JPVN", "L ER1 N AH0 D",
        r"(a|an|the|most|very|his|her|my|of) _ (man|men|woman|women|people|person|scholars?|professors?|judges?|"
        r"friends?|colleagues?|society|societies|doctors?|priests?|discussion|journals?|counsel|professions?|books?)",
    ),
    (
        "aged", "JPVN", "EY1 JH AH0 D",
        r"(a|an|the|his|her|my|their|our) _ (man|men|woman|women|people|person|couple|mother|father|parents?|aunt|"
        r"uncle|king|queen|poet)|(the|for|of) _ (and|is|are|were)",
    ),
    ("axes", "N", "AE1 K S IY2 Z", r"x|y|x\.|y\.|coordinate|plot|graph|rotation|vertical|horizontal"),
    (
        "minute", "J", "M IH1 N AH0 T",
        r"_ (hands?|walk|drive|break|rest|ride|wait|silence|timer|warning|mark|steak|man|men|video|song|speech|meeting|"
        r"by|later|ago|or|to|more|i|he|she|it|we|you|they)|(one|two|three|four|five|ten|\w+teen|\w+ty|per|every) _",
    ),
    (
        "does", "VN", "D OW1 Z",
        r"(the|two|three|four|five|six|several|female|those) _|_ and (the )?(bucks?|fawns?|stags?)|"
        r"(bucks|stags|fawns) and (the )?_|some _ (have|are|were)",
    ),
    (
        "used", "VPJ", "Y UW1 S T",
        r"(?!(is|are|was|were|be|been|being|often|also|only|not|still|never|mostly|mainly|\w+ly)\b)[\w']+ _ to|"
        r"(is|are|was|were|be|been|not) _ to (it|this|that|the|them|him|her|me|us|a|an|my|his|your|our|their|\w+ing)",
    ),
    (
        "wound", "PV", "W UW1 N D",
        r"_ (him|me|us|them|her|you|people|soldiers?|animals?)(?! up)|(bullets?|arrows?|knives|swords?|words) _|"
        r"(to|can|may) _",
    ),
    (
        "wound", "PV", "W AW1 N D",
        r"(?<!can )(?<!did )(?<!do )(?<!could )(?<!will )(?<!would )(i|we|you|they|and) _ "
        r"(it|up|down|round|around|through|along|back|(the|a|his|her|my|our|their|some)"
        r"(?! (enemy|man|men|woman|boy|girl|child|king|bear|deer|soldiers?|animals?|guards?|feelings)))",
    ),
    ("lead", "VP", "L EH1 D", r"(has|have|had|no|from) _ in"),
    ("wound", "PVNJ", "W AW1 N D", r"(is|are|was|were|be|been|being|gets?|got) _"),
    (
        "invalid", "J", "IH1 N V AH0 L AH0 D",
        r"(a|an|the|old|young|poor|his|her|my|their) _ (lay|sat|slept|woke|wept|fell|left|spoke|ate|died|is|was|has|"
        r"had|can|could|needs?|\w+ed|in)",
    ),
    (
        "number", "NVJ", "N AH1 M ER0",
        r"(grow|grew|feel|feels|felt|get|gets|got|getting|is|are|even|much) _(?= (and|than|now|still)( |$)| ,|$)|"
        r"_ and _",
    ),
    (
        "wound", "PVN", "W AW1 N D",
        r"(?!(the|a|his|her|my|its|this|that|deep|old|open|\w+ed|knife|bullet|gunshot|stab|head) )[\w']+ _ "
        r"(south|north|east|west|up|down|round|around|through|along|across|past|between|into|back|its|(up|"
        r"down)(hill|wards?))",
    ),
    (
        "dove", "N", "D OW1 V",
        r"(?!(the|a|his|her|one|this|that|white|grey|gray|turtle|mourning|wild|little) )[\w']+ _ "
        r"(in|into|off|down|under|for|deep|from|headfirst|after|behind|right|straight)",
    ),
    (
        "refuse", "V", "R EH1 F Y UW2 S",
        r"^_ (lay|is|was|piled)|(throws?|threw|collects?|collected|collecting|burns?|burned|dumps?|dumped|removes?|"
        r"removed|of|household|garden|kitchen) _|"
        r"_ (bins?|dumps?|collection|collectors?|heaps?|trucks?|bags?|sacks?|pile)",
    ),
    ("sow", "N", "S OW1", r"^_"),
    ("beloved", "JNPV", "B IH0 L AH1 V D", r"_ (by|of)"),
    ("dogged", "JNPV", "D AO1 G D", r"_ (by|him|her|me|us|them|it|the|his|my)"),
    (
        "live", "JN", "L IH1 V",
        r"(fish|people|men|women|children|sheep|deer|mice|many|most|some|who) _ "
        r"(here|there|in|on|near|nearby|alone|with|under|by|at|long)",
    ),
    (
        "live", "VN", "L AY1 V",
        r"(sang|sings?|plays?|played|performs?|performed|broadcast|airs?|aired|watch|watched|shown|streams?|streamed) "
        r"(it |them |him |her |us )?_|(go|goes|going|went) _(?= (on|at)( |$)| ,|$)",
    ),
    (
        "close", "VN", "K L OW1 S",
        r"(keep|keeps|kept|hold|held) (?!to )[\w']+ ((?!a |the )[\w']+ )?_|(draws?|drew|came|comes?|stay|stayed|"
        r"stands?|stood|sits?|sat|got|moved?|stick|stuck|leaned) _",
    ),
    ("use", "V", "Y UW1 S", r"(put|puts|putting) ([\w']+ ){1,3}to (good |better |great )?_"),
    (
        "produce", "V", "P R OW1 D UW0 S",
        r"(buys?|bought|sells?|sold|grows?|grew|eats?|ate|fresh|organic|local|farm|of) _",
    ),
)  # fmt: skip
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


def _has_ending(word: str) -> bool:
    """True for 'records' and 'uses', which is a plural or a third person; not for 'progress'."""
    return word.endswith("s") and not word.endswith("ss")


def class_of(tag: str) -> str:
    """'VBD' -> 'P', 'NNS' -> 'N', 'VB' -> 'V', 'JJ' -> 'J'; empty for other tags."""
    return "P" if tag in ("VBD", "VBN") else {"N": "N", "V": "V", "J": "J", "R": "J"}.get(tag[:1], "")


_INSTEAD = {"P": "VJN", "V": "PJN", "N": "JV", "J": "NPV", "": ""}


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
_HABIT = frozenset(str.split("every daily often usually always lot"))
_THIRD_PERSON = frozenset(str.split("he she it"))
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
    return bool(before) and (tags[at] == "NN" or before[at] in _THIRD_PERSON) and not _HELPERS.intersection(before)


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


def choose(words: Sequence[str], place: int, tag: str) -> Phones:
    """Phones of the heteronym `words[place]`, which is tagged `tag`."""
    word, kind = words[place], class_of(tag)
    readings = readings_of(word)
    sentence = " ".join("_" if index == place else other for index, other in enumerate(words))
    for other, classes, phones, cues in _SENSES:
        if other == word and (kind or "N") in classes and re.search(rf"(?:^| )(?:{cues})(?: |$)", sentence):
            return tuple(phones.split())
    if "P" in readings and kind in "VP" and words[max(0, place - 1)] != "to":
        # 'have you read it', but 'they read every day': the tagger sees two words to each side.
        if any(re.fullmatch("(ha(ve|s|d)|having)(n't)?|.*'ve", before) for before in words[max(0, place - 3) : place]):
            kind = "P"
        elif _HABIT & {*words[max(0, place - 1) : place + 4]} and not _THIRD_PERSON & {*words[:place]}:
            kind = "V"
    for other in kind + _INSTEAD[kind]:
        if other in readings:
            return readings[other]
    return next(iter(readings.values()))
