"""Read a corpus for pretraining: an LJSpeech-layout folder plus phone times (phones.jsonl or MFA TextGrids).

Everything is checked when the corpus is opened, so a training run does not die in its third hour over one file.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rlzoo.errors import DataError
from rlzoo.speech.corpus._files import read_jsonl
from rlzoo.speech.corpus.metadata import missing_recording, read_metadata, read_text, recordings_in
from rlzoo.speech.corpus.splits import digest, split_of
from rlzoo.speech.corpus.textgrids import find_textgrids, read_textgrid
from rlzoo.speech.text import ARPABET

if TYPE_CHECKING:
    from torch import Tensor

SILENCES = frozenset({"sil", "sp", "spn", ""})
"""Labels that are not speech: silence, short pause, and the aligner's mark for an unknown word."""

SPLITS = ("train", "validation", "test")

_OVERHANG_SECONDS = 0.025  # aligners round to their own frame grid; a corpus that is further off is a wrong corpus
_REST_SECONDS = 0.5  # audio behind the last phone; aligners label silence, so more of it is a part without phones
_RATE_HINT = "resample the corpus first, or ask for the rate it has"


@dataclass(frozen=True)
class SpeechItem:
    """One utterance. Times are seconds from `start`, the beginning of the part that is used."""

    id: str
    text: str
    """Normalised text where the corpus has one, else the text."""
    phones: tuple[str, ...]
    ends: tuple[float, ...]
    """End of each phone in seconds, never decreasing; the last one is the length of the used part."""
    wav: Path
    sample_rate: int
    """Hertz."""
    start: float = 0.0
    """Start of the used part in the file, in seconds."""
    clean: bool = True
    """False if the corpus says under which recording condition it was rendered."""

    @property
    def durations(self) -> tuple[float, ...]:
        """Seconds of each phone."""
        return tuple(end - begin for begin, end in zip((0.0, *self.ends), self.ends, strict=False))

    @property
    def seconds(self) -> float:
        """Length of the used part."""
        return self.ends[-1]

    def load(self) -> Tensor:
        """Read the used part: (L,) float32 in [-1, 1], L = round(seconds * sample_rate) or less at the end of the file.

        Raises:
            DataError: unreadable, not mono, or not finite.
        """
        from rlzoo.speech.audio import read_audio

        return self.cut(*read_audio(self.wav, self.sample_rate))

    def load_clean(self) -> Tensor | None:
        """The used part before its recording condition, from clean/ beside wavs/; None if the corpus has none.

        Raises:
            DataError: see `load`.
        """
        from rlzoo.speech.audio import read_audio

        path = self.wav.parent.parent / "clean" / self.wav.name
        return self.cut(*read_audio(path, self.sample_rate)) if path.is_file() else None

    def cut(self, wave: Tensor, rate: int) -> Tensor:
        """The used part of the whole recording (L,) at `rate` hertz."""
        first = round(self.start * rate)
        return wave[first : first + round(self.seconds * rate)]


class SpeechCorpus(Sequence[SpeechItem]):
    """The utterances of one split, in the order of metadata.csv."""

    def __init__(self, folder: Path, items: Sequence[SpeechItem], sample_rate: int) -> None:
        self.folder = folder
        self.sample_rate = sample_rate
        self._items = tuple(items)
        self._by_name = {item.id: item for item in self._items}

    @classmethod
    def open(
        cls,
        folder: Path | str,
        *,
        split: str | None = None,
        textgrids: Path | str | None = None,
        sample_rate: int | None = None,
        trim_silence: bool = False,
        skip_missing: bool = False,
    ) -> SpeechCorpus:
        """Read and check the corpus in `folder`.

        Args:
            folder: has metadata.csv (id|text or id|text|normalised text), wavs/ and, without `textgrids`, phones.jsonl.
            split: 'train', 'validation' or 'test'; None reads all. Without split files the split is by a hash of the
                text, 2 % each for validation and test, at least one utterance for validation.
            textgrids: folder of the aligner's TextGrids, named after the ids; read instead of phones.jsonl.
            sample_rate: the rate in hertz that is wanted; None accepts any, as long as all files agree.
            trim_silence: leave out the silences at both ends, as WaveGrad 2's released preprocessing does.
            skip_missing: leave out utterances without phone times instead of refusing the corpus; those that the
                aligner has left out are left out anyway.

        Raises:
            DataError: what is wrong, in which file, and what to do.
        """
        root = Path(folder)
        texts = read_metadata(root / "metadata.csv").texts
        recordings = recordings_in(root / "wavs")
        times = _times(root, Path(textgrids) if textgrids is not None else None, texts)
        names = _split(root, texts, split, times)
        left_out = _left_out(root) if textgrids is None else set()
        untimed = [name for name in names if name not in times and name not in left_out]
        if untimed and not skip_missing:
            raise DataError(
                f"'{root}': {len(untimed)} of {len(names)} utterances have no phone times, the first is '{untimed[0]}'",
                hint="align them with `rlzoo corpus align`, or take their lines out of metadata.csv (skip_missing)",
            )
        items: list[SpeechItem] = []
        for name in names:
            if name in times:
                if name not in recordings:
                    raise missing_recording(root, name)
                items.append(_item(recordings[name], name, texts[name], times[name], sample_rate, trim_silence))
        if not items:
            raise DataError(f"'{root}': no utterance in split '{split}'", hint="record more utterances")
        rate = items[0].sample_rate
        for item in items:
            if item.sample_rate != rate:
                raise DataError(
                    f"'{item.wav}' has {item.sample_rate} Hz, '{items[0].wav}' has {rate} Hz", hint=_RATE_HINT
                )
        return cls(root, items, rate)

    @staticmethod
    def around(recording: Path, *, trim_silence: bool = False) -> SpeechCorpus | None:
        """All of the corpus that CORPUS/wavs/ID.wav belongs to, read once; None if none with phones.jsonl is."""
        folder = next((parent.parent for parent in recording.parents if parent.name == "wavs"), None)
        if folder is None or not (folder / "phones.jsonl").is_file():
            return None
        return _whole(folder.absolute(), trim_silence)

    def item(self, name: str) -> SpeechItem:
        """The utterance with that id. DataError if metadata.csv does not name it."""
        name = unicodedata.normalize("NFC", name)
        if name not in self._by_name:
            raise DataError(f"'{self.folder / 'metadata.csv'}' does not name '{name}'", "add its line, and align again")
        return self._by_name[name]

    @property
    def phones(self) -> tuple[str, ...]:
        """Every phone that occurs, sorted."""
        return tuple(sorted({phone for item in self._items for phone in item.phones}))

    @property
    def hours(self) -> float:
        """Hours of used audio."""
        return sum(item.seconds for item in self._items) / 3600

    @property
    def card(self) -> dict[str, Any]:
        """Description of the corpus for the card of a voice that was trained on it."""
        counts = Counter(phone for item in self._items for phone in item.phones)
        return {
            "sentences": len(self),
            "hours_of_speech": round(self.hours, 3),
            "phones": dict(sorted(counts.items())),
        }

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[SpeechItem]:
        return iter(self._items)

    @overload
    def __getitem__(self, index: int) -> SpeechItem: ...
    @overload
    def __getitem__(self, index: slice) -> SpeechCorpus: ...
    def __getitem__(self, index: int | slice) -> SpeechItem | SpeechCorpus:
        if isinstance(index, slice):
            return SpeechCorpus(self.folder, self._items[index], self.sample_rate)
        return self._items[index]


@lru_cache(maxsize=8)
def _whole(folder: Path, trim_silence: bool) -> SpeechCorpus:
    return SpeechCorpus.open(folder, trim_silence=trim_silence)


def frame_durations(ends: Sequence[float], hop_seconds: float, total_frames: int) -> list[int]:
    """Phone ends in seconds -> frames per phone, round(end / hop) - round(start / hop), summing to `total_frames`.

    Rounding end times instead of durations keeps errors from piling up. The last phone takes up the frame or two by
    which the audio's own frame count differs.

    Raises:
        DataError: no phones, times that decrease or are not finite, or ends more than 2 frames from `total_frames`.
    """
    check_ends(ends, "the phone times")
    if hop_seconds <= 0 or total_frames < 1:
        raise DataError(f"cannot make {total_frames} frames of {hop_seconds} s", hint="both must be positive")
    boundaries = [round(end / hop_seconds) for end in ends]
    if abs(boundaries[-1] - total_frames) > 2:
        raise DataError(
            f"phone times make {boundaries[-1]} frames, the audio has {total_frames}",
            hint="check the hop, the rate, and that both belong to the same recording",
        )
    boundaries = [min(boundary, total_frames) for boundary in boundaries[:-1]] + [total_frames]
    return [end - start for start, end in zip([0, *boundaries], boundaries, strict=False)]


def trim(phones: Sequence[str], ends: Sequence[float]) -> tuple[list[str], list[float], float]:
    """Leave out silences at both ends -> phones, ends in seconds from the new start, and that start.

    Raises:
        DataError: nothing but silence.
    """
    spoken = [index for index, phone in enumerate(phones) if phone not in SILENCES]
    if not spoken:
        raise DataError("nothing but silence", hint="remove the utterance")
    first, last = spoken[0], spoken[-1]
    start = ends[first - 1] if first else 0.0
    return list(phones[first : last + 1]), [end - start for end in ends[first : last + 1]], start


def canonical(phone: str, name: str) -> str:
    """'ah0 ' -> 'AH0', '' -> 'sil': a phone as the one inventory spells it. `name` is the utterance's, for the error.

    Raises:
        DataError: no ARPAbet.
    """
    spelled = phone.strip() if isinstance(phone, str) else repr(phone)[:40]
    if spelled.lower() in _SILENT:
        return _SILENT[spelled.lower()]
    if spelled.upper() in ARPABET:
        return spelled.upper()
    raise DataError(
        f"'{name}': '{spelled}' is not an ARPAbet phone",
        "align with an ARPAbet dictionary (Montreal Forced Aligner: english_us_arpa), or with rlzoo corpus align",
    )


_SILENT = {"": "sil", "sil": "sil", "sp": "sp", "spn": "spn", "<eps>": "sil", "pau": "sil", "silence": "sil"}


def check_ends(ends: Sequence[float], what: str, seconds: float | None = None) -> None:
    """Raise DataError, naming `what`, unless the end times exist, are finite, never decrease and end above zero; and
    with the audio, where its `seconds` are given."""
    if not ends:
        raise DataError(f"{what}: no phones", hint="align the recording again")
    previous = 0.0
    for index, end in enumerate(ends):
        if not isinstance(end, int | float) or not math.isfinite(end):
            raise DataError(f"{what}: end time {index} is {end!r}", hint="align the recording again")
        if end < previous:
            raise DataError(f"{what}: end time {index} goes back, {previous} -> {end}", hint="give END times in order")
        previous = end
    if previous <= 0:
        raise DataError(f"{what}: all times are zero", hint="align the recording again")
    if seconds is not None and previous > seconds + _OVERHANG_SECONDS:
        raise DataError(
            f"{what}: phone times end at {previous:.3f} s, its audio at {seconds:.3f} s",
            hint="times and audio are of different recordings, or the audio was trimmed",
        )
    if seconds is not None and previous < seconds - _REST_SECONDS:
        raise DataError(
            f"{what}: phone times end at {previous:.3f} s, {seconds - previous:.1f} s before its audio",
            hint="times and audio are of different recordings, or the times were cut: align it again",
        )


@dataclass(frozen=True)
class _Times:
    phones: list[str]
    ends: list[float]
    clean: bool = True


class _TextGridTimes(dict[str, _Times]):
    """{id: times}, each file parsed when it is first asked for."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __missing__(self, name: str) -> _Times:
        return _Times(*read_textgrid(self._files[name]))


def _times(root: Path, textgrids: Path | None, texts: Iterable[str]) -> dict[str, _Times]:
    if textgrids is not None:
        return _TextGridTimes(find_textgrids(textgrids))
    path = root / "phones.jsonl"
    if not path.exists():
        raise DataError(
            f"'{root}' has no phone times (no phones.jsonl)",
            hint="give the aligner's TextGrids, or make them: rlzoo corpus align DIR",
        )
    known = set(texts)
    times: dict[str, _Times] = {}
    for number, row in enumerate(read_jsonl(path), 1):
        name, phones, ends = row.get("id"), row.get("phones"), row.get("ends")
        if not isinstance(name, str) or not isinstance(phones, list) or not isinstance(ends, list):
            raise DataError(f"'{path}', line {number}: expected the keys id, phones, ends", hint="make the file again")
        if name in times:
            raise DataError(f"'{path}', line {number}: the id '{name}' occurs twice", hint="ids must be unique")
        if name in known:
            times[name] = _Times(phones, ends, clean=not row.get("condition"))
    return times


def _left_out(root: Path) -> set[str]:
    """Ids that `rlzoo corpus align` has left out and listed."""
    path = root / "left_out.jsonl"
    return {str(row.get("id")) for row in read_jsonl(path)} if path.is_file() else set()


def _split(root: Path, texts: dict[str, str], split: str | None, timed: Collection[str]) -> list[str]:
    if split is None:
        return list(texts)
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'", hint=f"splits: {', '.join(SPLITS)}")
    if not any((root / f"{name}.txt").exists() for name in SPLITS):
        places = {n: split_of(t, seed=0, validation_fraction=0.02, test_fraction=0.02) for n, t in texts.items()}
        usable = [name for name in places if name in timed]
        if len(usable) > 1 and all(places[name] != "validation" for name in usable):
            # Of a small corpus one utterance is held out, whichever comes first by its text.
            places[min(usable, key=lambda name: (digest(texts[name]), name))] = "validation"
        return [name for name, place in places.items() if place == split]
    path = root / f"{split}.txt"
    lines = read_text(path, "one id a line").split("\n")
    wanted = [unicodedata.normalize("NFC", line.strip()) for line in lines if line.strip()]
    unknown = [name for name in wanted if name not in texts]
    if unknown:
        raise DataError(f"'{path}' names '{unknown[0]}', which metadata.csv lacks", hint="make the split again")
    chosen = set(wanted)
    return [name for name in texts if name in chosen]


def _item(wav: Path, name: str, text: str, times: _Times, sample_rate: int | None, trim_ends: bool) -> SpeechItem:
    import soundfile

    from rlzoo.speech.audio import check_rate

    phones, ends = times.phones, times.ends
    try:
        info = soundfile.info(str(wav))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DataError(f"'{wav}' cannot be read as audio: {error}", hint="restore it, or remove its line") from error
    check_rate(info.samplerate, f"'{wav}'")
    if sample_rate is not None and info.samplerate != sample_rate:
        raise DataError(f"'{wav}' has {info.samplerate} Hz, {sample_rate} Hz were asked for", hint=_RATE_HINT)
    if len(phones) != len(ends):
        raise DataError(f"'{name}': {len(phones)} phones, {len(ends)} end times", hint="align the recording again")
    seconds = info.frames / info.samplerate
    check_ends(ends, f"'{name}'", seconds)
    phones = [canonical(phone, name) for phone in phones]
    ends = [min(float(end), seconds) for end in ends]
    start = 0.0
    if trim_ends:
        try:
            phones, ends, start = trim(phones, ends)
        except DataError as error:
            raise DataError(f"'{name}': {error.message}", hint=error.hint) from None
    return SpeechItem(name, text, tuple(phones), tuple(ends), wav, info.samplerate, start, times.clean)
