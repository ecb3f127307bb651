"""Phone times for recordings that have none: forced alignment with pocketsphinx (BSD), which brings its own model.

Good to a frame or two of 10 ms for read speech. For the published recipe use the Montreal Forced Aligner and read its
TextGrids; this needs nothing but `pip install`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlzoo.errors import DataError, PluginError
from rlzoo.files.writing import append_lines, sweep
from rlzoo.speech.corpus._files import read_jsonl, write_jsonl
from rlzoo.speech.corpus.metadata import missing_recording, read_metadata, read_text, recordings_in
from rlzoo.speech.corpus.waves import resample
from rlzoo.speech.text import ARPABET, SILENCES, VOWELS, TextFrontend, strip_stress
from rlzoo.speech.text.frontend import Style, shared_lexicon
from rlzoo.speech.text.heteronyms import readings_of
from rlzoo.speech.text.lexicon import Phones
from rlzoo.speech.text.phones import CONSONANTS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_RATE = 16_000  # the model's
_FRAME_SECONDS = 0.01
_FASTEST, _SLOWEST = 28, 2.5  # phones a second
_POOR, _MOST_POOR = -40, 0.45  # score of a frame, share of the phones
_AS_LOUD_DB, _LEFT_OVER_SECONDS = 8.0, 0.4


@dataclass(frozen=True)
class AlignReport:
    """Result of `align_corpus`."""

    aligned: int
    failed: Mapping[str, str]
    """{id: why it is left out}, such as a text that does not fit its recording."""
    guessed_words: tuple[str, ...]
    """Words that no dictionary has; their phones come from the letter-to-sound rules, as in speaking."""
    notes: tuple[str, ...] = ()
    """Notes on metadata.csv."""


@dataclass(frozen=True)
class Alignment:
    """Phones of one utterance with their end times in seconds, and how well they fit."""

    phones: list[str]
    ends: list[float]
    fit: float
    """Mean log-likelihood of a spoken frame against that of the best state of the model: 0 is the best."""
    problem: str = ""
    """Why the text seems to be of another recording; empty if it fits."""


class Aligner:
    """Text and audio of one utterance -> the phones that the front end speaks it with, and their end times."""

    def __init__(self, pronunciations: Mapping[str, Sequence[str]] | None = None, style: Style = "cmu") -> None:
        """`pronunciations`: {word: phones}, before those of the dictionary; vowels without a digit get one.

        With style `cmu` vowels have stress and pauses inside a sentence are `sp`; see `rlzoo.speech.text.frontend`.
        """
        try:
            import pocketsphinx
        except ImportError as error:
            raise PluginError("alignment needs pocketsphinx", hint="pip install 'rlzoo-speech[corpus]'") from error
        self._engine = pocketsphinx
        self._frontend = TextFrontend(style)
        self._own = {word.lower(): with_stress(phones) for word, phones in (pronunciations or {}).items()}
        self.guessed: set[str] = set()

    def align(self, text: str, wave: npt.NDArray[np.float64], rate: int) -> Alignment:
        """Text, (L,) audio in [-1, 1], hertz -> phones and end times in seconds.

        Raises:
            DataError: nothing to say in the text.
        """
        import numpy as np

        words = self._frontend.words(text)
        sounds = self._frontend.pronunciations(words)
        spoken = [(word, self._variants(word, sound)) for word, sound in zip(words, sounds, strict=True) if sound]
        seconds = len(wave) / rate
        if problem := _pace(sum(len(variants[0]) for _, variants in spoken), seconds):
            return Alignment([], [], 0.0, problem)
        self.guessed.update(word for word, _ in spoken if word not in self._own and self._frontend.guesses(word))
        pcm = np.clip(np.rint(resample(wave, rate, _RATE) * 32767.0), -32768, 32767).astype("<i2").tobytes()
        names = {entry: f"w{place}" for place, entry in enumerate(dict.fromkeys(spoken))}
        decoder = self._decoder({name: variants for (_, variants), name in names.items()})
        decoder.set_align_text(" ".join(names[entry] for entry in spoken))
        if not _decode(decoder, pcm) or decoder.hyp() is None:
            return Alignment([], [], 0.0, "the search did not reach the end of the text")
        decoder.set_alignment()
        if not _decode(decoder, pcm):
            return Alignment([], [], 0.0, "the search did not reach the end of the text")
        stressed = {(name, _bare(phones)): phones for (_, variants), name in names.items() for phones in variants}
        found = _read(decoder.get_alignment(), stressed, seconds, self._frontend)
        return replace(found, problem=found.problem or _left_over(found, wave, rate))

    def _variants(self, word: str, sound: Phones) -> tuple[Phones, ...]:
        """Pronunciations of the word: that of the front end in this place, and others of the dictionary.

        A heteronym keeps the reading that its sentence asks for.
        """
        if word in self._own:
            return (self._own[word],)
        if readings_of(word):
            return (sound,)
        others = [other for other in shared_lexicon().variants(word) if self._frontend.style == "cmu"]
        seen = {_bare(sound): sound}
        for other in (("DH", "AH0"), ("DH", "IY0")) if word == "the" else others:
            seen.setdefault(_bare(other), other)
        return tuple(seen.values())

    def _decoder(self, words: Mapping[str, Sequence[Phones]]) -> Any:
        """A new decoder that knows these words only.

        A used one keeps cepstral means and the best Gaussians of the last frame, which moves the next utterance's
        boundaries by a frame: results would depend on the order of the files, and on whether a run was resumed.
        """
        with tempfile.TemporaryDirectory(prefix="rlzoo-align-") as folder:
            path = Path(folder, "words.dict")
            entries = ((name, place, phones) for name, every in words.items() for place, phones in enumerate(every, 1))
            path.write_text(
                "".join(
                    f"{name if n == 1 else f'{name}({n})'} {' '.join(_bare(phones))}\n" for name, n, phones in entries
                )
            )
            # With its lattice rescoring (bestpath) the word pass gives times that the phone pass often cannot follow.
            return self._engine.Decoder(loglevel="FATAL", lm=None, dict=str(path), bestpath=False, cmn="batch")


def _decode(decoder: Any, pcm: bytes) -> bool:
    """One pass; False when the search ends without reaching the end of the text."""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    try:
        decoder.end_utt()
    except RuntimeError:  # all pocketsphinx says of a text that does not fit
        return False
    return True


def align_corpus(
    folder: Path | str,
    *,
    pronunciations: Mapping[str, Sequence[str]] | None = None,
    style: Style = "cmu",
    overwrite: bool = False,
    progress: bool = True,
) -> AlignReport:
    """Write `folder`/phones.jsonl for a corpus in LJSpeech's layout; an interrupted call is continued by the next.

    Utterances whose text does not fit are left out, and `folder`/left_out.jsonl says why.

    Raises:
        DataError: no such corpus, phones.jsonl exists already, unreadable audio, or nothing could be aligned.
        PluginError: pocketsphinx is not installed.
    """
    root = Path(folder)
    metadata = read_metadata(root / "metadata.csv")
    texts = metadata.texts
    out, journal = root / "phones.jsonl", root / "align.jsonl"
    if out.exists() and not overwrite:
        raise DataError(f"'{out}' exists", hint="give --overwrite to make it again")
    aligner = Aligner(pronunciations, style)
    sweep(root)
    done = _continued(journal, texts, style)
    write_jsonl(journal, done.values())
    for row in _align_all(aligner, root, {k: v for k, v in texts.items() if k not in done}, style, progress):
        append_lines(journal, [row])
        done[row["id"]] = row
    for row in done.values():
        aligner.guessed.update(row.get("guessed", ()))
    failed = {name: str(done[name]["problem"]) for name in texts if done[name].get("problem")}
    if len(failed) == len(texts):
        name, why = next(iter(failed.items()))
        raise DataError(
            f"'{root}': no utterance could be aligned; '{name}': {why}",
            done[name].get("hint") or "are the texts English and of these recordings?",
        )
    kept = ("id", "phones", "ends", "fit")
    write_jsonl(out, ({key: done[name][key] for key in kept} for name in texts if name not in failed))
    left_out = root / "left_out.jsonl"
    if failed:
        write_jsonl(left_out, ({"id": name, "problem": why, "text": texts[name]} for name, why in failed.items()))
    else:
        left_out.unlink(missing_ok=True)
    journal.unlink()
    return AlignReport(len(texts) - len(failed), failed, tuple(sorted(aligner.guessed)), metadata.notes)


def _continued(journal: Path, texts: Mapping[str, str], style: str) -> dict[str, dict[str, Any]]:
    """Rows that an interrupted call aligned for these texts in this style; those of earlier versions are repeated."""
    if not journal.exists():
        return {}
    rows = {str(row.get("id")): row for row in read_jsonl(journal, torn_tail=True)}
    return {
        n: row for n, row in rows.items() if n in texts and (row.get("text"), row.get("style")) == (texts[n], style)
    }


def read_pronunciations(path: Path) -> dict[str, list[str]]:
    """A pronunciation file, 'word PH1 PH2 ...' a line (';;;' begins a comment) -> {word: phones}.

    Raises:
        DataError: missing, not text, or a line without phones.
    """
    lines = read_text(path, "expected 'word PH1 PH2 ...' a line").split("\n")
    words: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split(";;;")[0].split()
        if len(parts) == 1:
            raise DataError(f"'{path}', line {number}: '{parts[0]}' has no phones", hint="expected 'word PH1 PH2 ...'")
        if parts:
            words[parts[0].lower()] = parts[1:]
    return words


def with_stress(phones: Sequence[str]) -> Phones:
    """Phones as somebody writes them -> phones of the inventory: the first bare vowel gets stress, others none.

    Raises:
        DataError: a phone that is not ARPAbet.
    """
    known = set(ARPABET)
    given = [phone.upper() for phone in phones]
    if strange := [phone for phone in given if phone not in known]:
        raise DataError(f"'{strange[0]}' is not an ARPAbet phone", f"available: {', '.join(CONSONANTS + VOWELS)}")
    if not any(phone[-1].isdigit() for phone in given):
        first = next((place for place, phone in enumerate(given) if phone in VOWELS), None)
        given = [f"{p}{1 if place == first else 0}" if p in VOWELS else p for place, p in enumerate(given)]
    return tuple(given)


def _align_all(
    aligner: Aligner, root: Path, texts: Mapping[str, str], style: str, progress: bool
) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import track

    from rlzoo.speech.audio import read_audio

    recordings = recordings_in(root / "wavs")
    for name in texts:
        if name not in recordings:
            raise missing_recording(root, name)
    for name in track(list(texts), "aligning", console=Console(stderr=True), disable=not progress):
        row: dict[str, Any] = {"id": name, "text": texts[name], "style": style}
        try:
            wave, rate = read_audio(recordings[name])
            found = aligner.align(texts[name], wave.double().numpy(), rate)
        except DataError as error:
            yield row | {"problem": error.message, "hint": error.hint}
            continue
        row |= {"phones": found.phones, "ends": found.ends, "fit": round(found.fit, 2), "problem": found.problem}
        guessed, aligner.guessed = sorted(aligner.guessed), set()
        yield row | {"guessed": guessed}


def _pace(phones: int, seconds: float) -> str:
    """Why a text cannot be of a recording by its length alone. Read speech has 8 to 20 phones a second."""
    pace = phones / max(seconds, 1e-3)
    if pace > _FASTEST:
        return f"{phones} phones in {seconds:.1f} s are more than {_FASTEST} a second"
    if seconds > 2 and pace < _SLOWEST:
        return f"{phones} phones in {seconds:.1f} s are less than {_SLOWEST} a second"
    return ""


def _read(
    alignment: Any, stressed: Mapping[tuple[str, Phones], Phones], seconds: float, frontend: TextFrontend
) -> Alignment:
    """Words -> phones; frames become seconds, neighbouring pauses become one, the last phone ends the audio."""
    pause = "sil" if frontend.style == "flite" else "sp"
    phones: list[str] = []
    ends: list[float] = []
    spoken: list[tuple[int, int]] = []
    for word in alignment:
        parts = list(word)
        names = stressed.get((word.name.partition("(")[0], tuple(part.name for part in parts)))
        for place, part in enumerate(parts):
            name = pause if names is None else names[place]
            end = min(round((part.start + part.duration) * _FRAME_SECONDS, 3), seconds)
            if names is not None:
                spoken.append((part.duration, part.score))
            if phones and name == phones[-1] == pause:
                ends[-1] = end
            else:
                phones.append(name)
                ends.append(end)
    ends[-1] = round(seconds, 4)
    for place in (0, -1):
        phones[place] = "sil" if phones[place] == pause else phones[place]
    if not frontend.stress:
        phones = [strip_stress(phone) for phone in phones]
    frames = sum(duration for duration, _ in spoken)
    fit = sum(score for _, score in spoken) / max(frames, 1)
    return Alignment(phones, ends, fit, _misfit(spoken))


def _misfit(spoken: Sequence[tuple[int, int]]) -> str:
    """Why the sounds do not fit: too many of them score far below the best state of the model in their frames.

    Measured share below: right texts 0 to 10 %, in noise of 5 dB up to 30 %; texts of other recordings 50 % and more.
    """
    poor = sum(score < _POOR * duration for duration, score in spoken)
    if poor > _MOST_POOR * len(spoken):
        return f"{poor} of {len(spoken)} phones of the text are not heard where they should be"
    return ""


def _left_over(found: Alignment, wave: npt.NDArray[np.float64], rate: int) -> str:
    """Times of speech inside an aligned pause: the text lacks words there."""
    import numpy as np

    size = max(1, round(rate * _FRAME_SECONDS))
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    level = 10 * np.log10((frames**2).mean(1) + 1e-12)
    inside = np.zeros(len(level), bool)
    pauses = []
    for phone, start, end in zip(found.phones, [0.0, *found.ends], found.ends, strict=False):
        first, last = round(start / _FRAME_SECONDS), round(end / _FRAME_SECONDS)
        inside[first:last] = phone not in SILENCES
        if phone in SILENCES:
            pauses.append((first, last))
    if not inside.any():
        return ""
    loud = level > np.median(level[inside]) - _AS_LOUD_DB
    for first, last in pauses:
        seconds = float(loud[first:last].sum()) * _FRAME_SECONDS
        if seconds > _LEFT_OVER_SECONDS:
            return (
                f"{seconds:.1f} s of sound between {first / 100:.1f} and {last / 100:.1f} s have no words in the text"
            )
    return ""


def _bare(phones: Sequence[str]) -> Phones:
    return tuple(phone.rstrip("012") for phone in phones)
