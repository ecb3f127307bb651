"""One inventory of phones from corpus to synthesis: whether a corpus teaches what the front end will ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlzoo.errors import DataError
from rlzoo.speech.text import SILENCES, TextFrontend
from rlzoo.speech.text.frontend import Style
from rlzoo.speech.text.phones import nearest, strip_stress
from rlzoo.speech.text.signs import PAUSE

if TYPE_CHECKING:
    from rlzoo.speech.corpus.speech import SpeechCorpus

_TOLERATED = 0.01
"""Share of the words whose phones the corpus may lack: rare ones, spoken otherwise than the dictionary says."""


@dataclass(frozen=True)
class Coverage:
    """Phones that the front end makes of the texts of a corpus, compared with those in its recordings."""

    words: int
    lacking: dict[str, int]
    """{word: how often} of the words with a phone that is not taught, and that no phone of another stress replaces."""
    phones: dict[str, int]
    """{phone: how often it is asked for}, of those that are not taught."""
    replaced: dict[str, str]
    """{phone: the phone of another stress that will be spoken for it}."""

    @property
    def share(self) -> float:
        """Phones of the words that are missing."""
        return sum(self.lacking.values()) / max(self.words, 1)


def measure(texts: Iterable[str], taught: Counter[str], style: Style) -> Coverage:
    """Compare. Texts that cannot be read are passed over: `rlzoo corpus check` and the aligner name them."""
    frontend = TextFrontend(style)
    found: dict[str, str | None] = {}
    lacking: Counter[str] = Counter()
    phones: Counter[str] = Counter()
    count = 0
    for text in texts:
        try:
            words = frontend.words(text)
        except DataError:
            continue
        for word, sound in zip(words, frontend.pronunciations(words), strict=True):
            if word == PAUSE:
                continue
            count += 1
            spoken = sound if frontend.stress else [strip_stress(phone) for phone in sound]
            for phone in spoken:
                if phone not in found:
                    found[phone] = nearest(phone, taught)
            missing = [phone for phone in spoken if found[phone] is None or _merged(phone, found[phone])]
            if missing:
                lacking[word] += 1
                phones.update(missing)
    replaced = {phone: other for phone, other in found.items() if other is not None and other != phone}
    return Coverage(count, dict(lacking.most_common()), dict(phones.most_common()), dict(sorted(replaced.items())))


def _merged(phone: str, other: str | None) -> bool:
    """True if a vowel with stress meets one without, or the other way round: two spellings, not a rare phone."""
    return other is not None and other != phone and phone[-1].isdigit() != other[-1].isdigit()


def check_coverage(corpus: SpeechCorpus, style: Style) -> Coverage:
    """Refuse a corpus whose phones are not what `style` will ask for when the voice speaks.

    Raises:
        DataError: with the phones, the number of words that would be spoken by phones never trained, and a remedy.
    """
    taught = Counter(phone for item in corpus for phone in item.phones)
    found = measure((item.text for item in corpus), taught, style)
    if found.share <= _TOLERATED:
        return found
    other: Style = "flite" if style == "cmu" else "cmu"
    better = measure((item.text for item in corpus), taught, other).share <= _TOLERATED
    remedy = (
        f"its phones are spelled as in style '{other}': --set text_style={other}"
        if better
        else f"align it again: rlzoo corpus align {corpus.folder} --overwrite"
    )
    words = ", ".join(f"'{word}'" for word in list(found.lacking)[:5])
    raise DataError(
        f"'{corpus.folder}' does not teach {len(found.phones)} phone(s) that style '{style}' asks for "
        f"({_some(list(found.phones))}): {sum(found.lacking.values())} of {found.words} words would be gibberish, "
        f"such as {words}",
        remedy,
    )


def style_of(taught: Iterable[str]) -> Style:
    """'cmu' where vowels have stress, else 'flite'."""
    stressed = [phone for phone in taught if phone not in SILENCES and phone[-1].isdigit() and phone != "AH0"]
    return "cmu" if stressed else "flite"


def _some(items: Sequence[str], count: int = 6) -> str:
    return ", ".join(items[:count]) + (" ..." if len(items) > count else "")
