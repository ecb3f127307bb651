"""Phone times for recordings that have none: forced alignment with pocketsphinx (BSD), which brings its own model.

Good to a frame or two of 10 ms for read speech. For the published recipe use the Montreal Forced Aligner and read its
TextGrids; this needs nothing but `pip install`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlzoo.errors import DataError, PluginError
from rlzoo.speech.corpus._files import append_jsonl, read_jsonl, write_jsonl
from rlzoo.speech.corpus.engines.flite import arpabet
from rlzoo.speech.corpus.speech import read_metadata
from rlzoo.speech.corpus.waves import resample

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_RATE = 16_000  # the model's
_FRAME_SECONDS = 0.01


@dataclass(frozen=True)
class AlignReport:
    """What `align_corpus` did."""

    aligned: int
    failed: tuple[str, ...]
    """Ids without an alignment: the text does not fit the recording."""
    guessed_words: tuple[str, ...]
    """Words that the dictionary lacks; their phones came from flite."""


class Aligner:
    """Text and audio of one utterance -> phones and their end times."""

    def __init__(self, pronunciations: Mapping[str, Sequence[str]] | None = None) -> None:
        """`pronunciations`: {word: phones without stress}, before those of pocketsphinx's own dictionary."""
        try:
            import pocketsphinx
        except ImportError as error:
            raise PluginError("alignment needs pocketsphinx", hint="pip install 'rlzoo-speech[corpus]'") from error
        self._engine = pocketsphinx
        self._words = _dictionary(Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")))
        self.guessed: set[str] = set()
        for word, phones in (pronunciations or {}).items():
            self._words[word.lower()] = [" ".join(_unstressed(phone) for phone in phones)]

    def align(self, text: str, wave: npt.NDArray[np.float64], rate: int) -> tuple[list[str], list[float]] | None:
        """Text, (L,) audio in [-1, 1], hertz -> phones (no stress, "sil" for pauses) and end times in seconds.

        Returns None when the text does not fit the audio.

        Raises:
            DataError: a word that neither the dictionary nor flite can say.
        """
        import numpy as np

        words = tokens(text)
        if not words:
            raise DataError(f"no word to align in '{text}'", hint="remove the utterance")
        for word in words:
            if word not in self._words:
                self._words[word] = [" ".join(spell(word))]
                self.guessed.add(word)
        pcm = np.clip(np.rint(resample(wave, rate, _RATE) * 32767.0), -32768, 32767).astype("<i2").tobytes()
        decoder = self._decoder(words)
        decoder.set_align_text(" ".join(words))
        if not _decode(decoder, pcm) or decoder.hyp() is None:
            return None
        decoder.set_alignment()
        if not _decode(decoder, pcm):
            return None
        return _phones(decoder.get_alignment(), len(wave) / rate)

    def _decoder(self, words: Sequence[str]) -> Any:
        """A new decoder that knows these words only.

        A used one keeps cepstral means and the best Gaussians of the last frame, which moves the next utterance's
        boundaries by a frame: results would depend on the order of the files, and on whether a run was resumed.
        """
        with tempfile.TemporaryDirectory(prefix="rlzoo-align-") as folder:
            path = Path(folder, "words.dict")
            entries = (
                (word, place, spoken) for word in set(words) for place, spoken in enumerate(self._words[word], 1)
            )
            path.write_text("".join(f"{word if n == 1 else f'{word}({n})'} {spoken}\n" for word, n, spoken in entries))
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


def _dictionary(path: Path) -> dict[str, list[str]]:
    """{word: its pronunciations}; further ones stand in the file as 'word(2)'."""
    words: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, phones = line.partition(" ")
        words.setdefault(re.sub(r"\(\d+\)$", "", name), []).append(phones.strip())
    return words


def align_corpus(
    folder: Path | str,
    *,
    pronunciations: Mapping[str, Sequence[str]] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> AlignReport:
    """Write `folder`/phones.jsonl for a corpus in LJSpeech's layout; an interrupted call is continued by the next.

    Raises:
        DataError: no such corpus, phones.jsonl exists already, unreadable audio, or nothing could be aligned.
        PluginError: pocketsphinx is not installed.
    """
    root = Path(folder)
    texts = read_metadata(root / "metadata.csv")
    out, journal = root / "phones.jsonl", root / "align.jsonl"
    if out.exists() and not overwrite:
        raise DataError(f"'{out}' exists", hint="give --overwrite to make it again")
    done = {row["id"]: row for row in read_jsonl(journal, torn_tail=True)} if journal.exists() else {}
    write_jsonl(journal, done.values())
    aligner = Aligner(pronunciations)
    failed: list[str] = []
    for row in _align_all(aligner, root, {k: v for k, v in texts.items() if k not in done}, failed, progress):
        append_jsonl(journal, [row])
        done[row["id"]] = row
    if not done:
        raise DataError(f"'{root}': no utterance could be aligned", hint="is the text English and of these recordings?")
    write_jsonl(out, (done[name] for name in texts if name in done))
    journal.unlink()
    return AlignReport(len(done), tuple(failed), tuple(sorted(aligner.guessed)))


def read_pronunciations(path: Path) -> dict[str, list[str]]:
    """A pronunciation file, 'word PH1 PH2 ...' a line (';;;' begins a comment) -> {word: phones}.

    Raises:
        DataError: missing, not text, or a line without phones.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read '{path}': {error}", hint="expected 'word PH1 PH2 ...' a line") from error
    words: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split(";;;")[0].split()
        if len(parts) == 1:
            raise DataError(f"'{path}', line {number}: '{parts[0]}' has no phones", hint="expected 'word PH1 PH2 ...'")
        if parts:
            words[parts[0].lower()] = parts[1:]
    return words


def tokens(text: str) -> list[str]:
    """Text -> lower-case words; apostrophes inside a word stay, a hyphen separates."""
    return [word.strip("'") for word in re.findall(r"[a-z0-9']+", text.lower().replace("’", "'")) if word.strip("'")]


def spell(word: str) -> list[str]:
    """Phones (no stress) of one word as flite says it, numbers included.

    Raises:
        DataError: flite is not installed or cannot say it.
    """
    if shutil.which("flite") is None:
        raise DataError(
            f"the dictionary has no '{word}'", hint="apt-get install flite, or give a pronunciation file: --lexicon"
        )
    arguments = ["flite", "-voice", "kal", "-ps", "-o", "none", "-t", word]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    phones = [_unstressed(arpabet(phone)) for phone in done.stdout.split() if phone != "pau"]
    if done.returncode or not phones:
        raise DataError(f"flite cannot say '{word}'", hint="give a pronunciation file: --lexicon")
    return phones


def _align_all(
    aligner: Aligner, root: Path, texts: Mapping[str, str], failed: list[str], progress: bool
) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import track

    from rlzoo.speech.audio import read_audio

    names = track(list(texts), "aligning", console=Console(stderr=True), disable=not progress)
    for name in names:
        wave, rate = read_audio(root / "wavs" / f"{name}.wav")
        found = aligner.align(texts[name], wave.double().numpy(), rate)
        if found is None:
            failed.append(name)
        else:
            yield {"id": name, "phones": found[0], "ends": found[1]}


def _phones(alignment: Any, seconds: float) -> tuple[list[str], list[float]]:
    """Words -> phones; frames become seconds, neighbouring pauses become one, the last phone ends the audio."""
    phones: list[str] = []
    ends: list[float] = []
    for word in alignment:
        for phone in word:
            name = "sil" if phone.name in ("SIL", "+NSN+", "+SPN+") else phone.name
            end = min(round((phone.start + phone.duration) * _FRAME_SECONDS, 3), seconds)
            if phones and name == phones[-1] == "sil":
                ends[-1] = end
            else:
                phones.append(name)
                ends.append(end)
    ends[-1] = round(seconds, 4)
    return phones, ends


def _unstressed(phone: str) -> str:
    return phone.rstrip("012")
