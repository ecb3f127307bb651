"""Everything about a folder of recordings that decides whether a voice can learn from it, before hours are spent."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlzoo.errors import DataError
from rlzoo.speech.corpus._files import read_jsonl
from rlzoo.speech.corpus.coverage import measure, style_of
from rlzoo.speech.corpus.metadata import Metadata, read_metadata, recordings_in
from rlzoo.speech.corpus.speech import canonical, check_ends
from rlzoo.speech.corpus.textgrids import find_textgrids, read_textgrid
from rlzoo.speech.text import ARPABET, TextFrontend
from rlzoo.speech.text.phones import strip_stress
from rlzoo.speech.text.signs import PAUSE

_RARE = 20
_CLIPPED, _OFFSET = 0.999, 0.03
_QUIET_DBFS, _SILENT_DBFS = -45.0, -70.0
_LONG_SILENCE, _SHORT, _LONG = 1.0, 0.6, 20.0  # seconds
_FASTEST, _SLOWEST = 28.0, 2.5  # phones a second


@dataclass
class CorpusReport:
    """Result of `check_corpus`. Lists of problems map an id to a sentence."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    """Notes on metadata.csv, and advice."""
    utterances: int = 0
    seconds: float = 0.0
    rates: dict[int, int] = field(default_factory=dict)
    """{hertz: files}; more than one is a problem for training."""
    speakers: int = 0
    lengths: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shortest, median and longest recording, seconds."""
    levels: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Lowest, median and highest level, dB of full scale."""
    broken: dict[str, str] = field(default_factory=dict)
    """Cannot be used: no file, unreadable, silent, a text that cannot be read."""
    doubtful: dict[str, str] = field(default_factory=dict)
    """Worth listening to: clipped, quiet, long silences, too much or too little text."""
    unused: list[str] = field(default_factory=list)
    """Recordings that metadata.csv does not name."""
    untimed: list[str] = field(default_factory=list)
    """Without phone times, though others have them: pretrain refuses the corpus."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Utterances that the aligner left out, with the reason; pretrain leaves them out too."""
    style: str = ""
    """Spelling of the phone times; empty if there are none."""
    phones: dict[str, int] = field(default_factory=dict)
    """{phone: how often}: of the phone times, else of what the front end reads in the texts."""
    rare: list[str] = field(default_factory=list)
    """Phones, stress aside, that occur fewer than 20 times."""
    lacking: dict[str, int] = field(default_factory=dict)
    """{word: how often} of words with phones that the times lack: they would be gibberish."""
    guessed: list[str] = field(default_factory=list)
    """Words that no dictionary has."""

    @property
    def ready(self) -> bool:
        """True if nothing stands in the way of training."""
        return not (self.broken.keys() - self.left_out.keys() or self.lacking or self.untimed or len(self.rates) > 1)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**self.__dict__, "folder": str(self.folder), "ready": self.ready}


def check_corpus(
    folder: Path | str,
    *,
    textgrids: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CorpusReport:
    """Read every recording and every text of a corpus in LJSpeech's layout.

    Raises:
        DataError: no metadata, or one that cannot be read. What is wrong with single utterances is reported instead.
    """
    import numpy as np

    root = Path(folder)
    metadata = read_metadata(root / "metadata.csv")
    report = CorpusReport(root, notes=list(metadata.notes), utterances=len(metadata.texts))
    report.speakers = len(set(metadata.speakers.values()))
    recordings = recordings_in(root / "wavs") if (root / "wavs").is_dir() else {}
    if not recordings:
        raise DataError(
            f"'{root / 'wavs'}' holds no recording", "put them there, or convert: rlzoo corpus convert DIR OUT"
        )
    report.unused = sorted(recordings.keys() - metadata.texts.keys())
    frontend = TextFrontend("cmu")
    asked = _read_texts(metadata, frontend, report)
    others = {unicodedata.normalize("NFC", path.stem): path.name for path in (root / "wavs").rglob("*.*")}
    seconds: dict[str, float] = {}
    levels: list[float] = []
    for done, name in enumerate(metadata.texts, 1):
        found = _listen(recordings.get(name), name, others.get(name, ""), asked.get(name, 0), report)
        if found is not None:
            seconds[name] = found[0]
            levels.append(found[1])
        progress(done, len(metadata.texts))
    if seconds:
        lengths = list(seconds.values())
        report.seconds = sum(lengths)
        report.lengths = (min(lengths), float(np.median(lengths)), max(lengths))
        report.levels = (min(levels), float(np.median(levels)), max(levels))
    if report.speakers > 1:
        report.notes.append(f"{report.speakers} speakers: a voice is one speaker, and learns their mean from several")
    if len(report.rates) > 1:
        report.notes.append("several rates: rlzoo corpus convert DIR OUT --rate HERTZ writes one")
    _read_times(root, textgrids, metadata, seconds, report)
    return report


def _read_texts(metadata: Metadata, frontend: TextFrontend, report: CorpusReport) -> dict[str, int]:
    """{id: phones of its text}; texts that cannot be read are broken, words that are guessed are listed."""
    asked: dict[str, int] = {}
    guessed: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for name, text in metadata.texts.items():
        try:
            words = frontend.words(text)
        except DataError as error:
            report.broken[name] = error.message
            continue
        sounds = frontend.pronunciations(words)
        asked[name] = sum(map(len, sounds))
        counts.update(phone for sound in sounds for phone in sound)
        guessed.update(word for word in words if word != PAUSE and frontend.guesses(word))
    report.guessed = [word for word, _ in guessed.most_common()]
    report.phones = dict(sorted(counts.items()))
    return asked


def _listen(path: Path | None, name: str, other: str, phones: int, report: CorpusReport) -> tuple[float, float] | None:
    """Length in seconds and level in dBFS of a recording; what is wrong with it goes to the report."""
    import numpy as np

    from rlzoo.speech.audio import read_audio

    if path is None:
        report.broken[name] = "no recording of this name in wavs/" + (f"; {other} cannot be read here" if other else "")
        return None
    try:
        wave, rate = read_audio(path)
    except DataError as error:
        report.broken[name] = f"{error.message} ({error.hint})"
        return None
    report.rates[rate] = report.rates.get(rate, 0) + 1
    audio = wave.double().numpy()
    seconds, offset = len(audio) / rate, float(audio.mean())
    peak = float(np.abs(audio).max())
    clipped = int((np.abs(audio) >= max(_CLIPPED, _CLIPPED * peak)).sum())
    audio -= offset
    frames = audio[: len(audio) // (rate // 50) * (rate // 50)].reshape(-1, rate // 50)
    power = 10 * np.log10((frames**2).mean(1) + 1e-12) if len(frames) else np.array([-120.0])
    loud = power > power.max() - 30
    level = float(10 * np.log10((10 ** (power[loud] / 10)).mean()))
    if not len(frames):
        report.broken[name] = f"only {len(audio)} samples long"
        return None
    if level < _SILENT_DBFS:
        report.broken[name] = f"silent ({level:.0f} dBFS)"
        return seconds, level
    problems = []
    if peak >= _CLIPPED and clipped > 4:
        problems.append(f"clipped ({clipped} samples at full scale)")
    if peak > 1.001:
        problems.append(f"samples up to {peak:.1f}, beyond full scale")
    if abs(offset) > _OFFSET:
        problems.append(f"a constant offset of {offset:.2f}")
    if level < _QUIET_DBFS:
        problems.append(f"quiet ({level:.0f} dBFS)")
    first, last = (int(np.argmax(row)) * 0.02 for row in (loud, loud[::-1]))
    if max(first, last) > _LONG_SILENCE:
        problems.append(f"{first:.1f} s of silence before and {last:.1f} s behind the speech")
    if not _SHORT <= seconds <= _LONG:
        problems.append(f"{seconds:.1f} s long")
    spoken = max(seconds - first - last, 0.02)
    if phones and not _SLOWEST <= phones / spoken <= _FASTEST:
        problems.append(f"{phones / spoken:.1f} phones a second: is it the right text?")
    if problems:
        report.doubtful[name] = "; ".join(problems)
    return seconds, level


@contextmanager
def _listed(name: str, problems: dict[str, str]) -> Iterator[None]:
    """A DataError inside becomes the problem of `name`."""
    try:
        yield
    except DataError as error:
        problems[name] = error.message


def _read_times(
    root: Path, textgrids: Path | None, metadata: Metadata, seconds: Mapping[str, float], report: CorpusReport
) -> None:
    times: dict[str, list[str]] = {}
    reasons: Mapping[str, str] = {}

    def take(name: str, phones: Sequence[str], ends: Sequence[float]) -> None:
        check_ends(ends, f"'{name}'", seconds.get(name))
        times[name] = [canonical(phone, name) for phone in phones]

    if textgrids is not None:
        for name, path in find_textgrids(textgrids).items():
            with _listed(name, report.broken):
                take(name, *read_textgrid(path))
    elif (root / "phones.jsonl").is_file():
        for row in read_jsonl(root / "phones.jsonl"):
            with _listed(str(row.get("id")), report.broken):
                take(str(row.get("id")), row.get("phones", ()), row.get("ends", ()))
        left_out = root / "left_out.jsonl"
        if left_out.is_file():
            reasons = {str(row.get("id")): str(row.get("problem")) for row in read_jsonl(left_out)}
    else:
        report.notes.append(f"no phone times yet: rlzoo corpus align {root}")
    if times:
        without = [name for name in metadata.texts if name not in times]
        report.left_out = {name: reasons[name] for name in without if name in reasons}
        report.untimed = [name for name in without if name not in reasons and name not in report.broken]
        taught = Counter(phone for name, phones in times.items() if name in metadata.texts for phone in phones)
        report.phones = dict(sorted(taught.items()))
        style = style_of(taught)
        report.style = style
        coverage = measure((t for n, t in metadata.texts.items() if n in times), taught, style)
        if coverage.share > 0.01:
            report.lacking = coverage.lacking
    bare: Counter[str] = Counter()
    for phone, count in report.phones.items():
        bare[phone if phone == "AH0" else strip_stress(phone)] += count
    wanted = {strip_stress(phone) for phone in ARPABET}
    report.rare = sorted((phone for phone in wanted if bare[phone] < _RARE), key=lambda phone: (bare[phone], phone))
