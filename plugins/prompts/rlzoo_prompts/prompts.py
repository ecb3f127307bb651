"""The prompt sets. Each reads its files when it is made, so that a bad file stops a run before anything is loaded."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlzoo.api import Prompt, PromptSet, Samples
from rlzoo.corpus import read_metadata, recordings_in
from rlzoo.errors import DataError
from rlzoo_prompts import LJSpeechOptions, SentencesOptions, ShortOptions, TextOptions, ZeroShotOptions
from rlzoo_prompts.files import (
    digest,
    held_out,
    prompt_id,
    read_lines,
    read_prompts,
    read_zero_shot,
    require_words,
    safe_id,
)

_DATA = Path(__file__).parent / "data"


class ShortPrompts(PromptSet):
    """Phrases of two to four words: 32 to train on, 16 held out."""

    def __init__(self, options: ShortOptions) -> None:
        self._train = _prompts(read_prompts(_DATA / "short-train.txt"))
        self._heldout = _prompts(read_prompts(_DATA / "short-heldout.txt"))

    def train(self) -> list[Prompt]:
        """The training prompts, in a fixed order."""
        return list(self._train)

    def heldout(self) -> list[Prompt]:
        """The held-out prompts, in a fixed order."""
        return list(self._heldout)


class SentencesPrompts(PromptSet):
    """Varied sentences: 207 to train on, 64 held out."""

    def __init__(self, options: SentencesOptions) -> None:
        self._train = _prompts(read_prompts(_DATA / "train.txt"))
        self._heldout = _prompts(read_prompts(_DATA / "heldout.txt"))

    def train(self) -> list[Prompt]:
        """The training prompts, in a fixed order."""
        return list(self._train)

    def heldout(self) -> list[Prompt]:
        """The held-out prompts, in a fixed order."""
        return list(self._heldout)


class TextPrompts(PromptSet):
    """The lines of the user's text file; the held-out ones never occur among the training ones.

    Raises:
        DataError: a file that is missing, empty, binary or has a line without letters; too few lines to hold one out.
    """

    def __init__(self, options: TextOptions) -> None:
        texts = read_prompts(options.path)
        if options.heldout_path is not None:
            kept = read_prompts(options.heldout_path)
            texts = [text for text in texts if text not in set(kept)]
            if not texts:
                raise DataError(
                    f"every line of '{options.path}' is held out by '{options.heldout_path}'", hint="use two files"
                )
        else:
            if len(texts) < 2:
                raise DataError(
                    f"'{options.path}' has one line, and one has to be held out", hint="add lines, or set heldout_path"
                )
            out = held_out(texts, min(options.heldout_fraction, 1 - 1 / len(texts)))
            kept = [text for text in texts if text in out]
            texts = [text for text in texts if text not in out]
        self._train, self._heldout = _prompts(texts), _prompts(kept)

    def train(self) -> list[Prompt]:
        """The training prompts, in the file's order."""
        return list(self._train)

    def heldout(self) -> list[Prompt]:
        """The held-out prompts, in the file's order."""
        return list(self._heldout)


class ZeroShotPrompts(PromptSet):
    """Texts with the voice that shall speak each: attributes `voice`, a recording, and `voice_text`, what it says.

    Raises:
        DataError: a file that is missing or malformed, recordings that are not there, too few lines to hold one out.
    """

    def __init__(self, options: ZeroShotOptions) -> None:
        prompts = [Prompt(*line) for line in read_zero_shot(options.path)]
        if options.heldout_path is not None:
            self._heldout = [Prompt(*line) for line in read_zero_shot(options.heldout_path)]
            out = {prompt.id for prompt in self._heldout}
        else:
            if len(prompts) < 2:
                raise DataError(
                    f"'{options.path}' has one line, and one has to be held out", hint="add lines, or set heldout_path"
                )
            out = held_out([prompt.id for prompt in prompts], min(options.heldout_fraction, 1 - 1 / len(prompts)))
            self._heldout = [prompt for prompt in prompts if prompt.id in out]
        self._train = [prompt for prompt in prompts if prompt.id not in out]
        if not self._train:
            raise DataError(
                f"every line of '{options.path}' is held out by '{options.heldout_path}'", hint="use two files"
            )

    def train(self) -> list[Prompt]:
        """The training prompts, in the file's order."""
        return list(self._train)

    def heldout(self) -> list[Prompt]:
        """The held-out prompts, in the file's order."""
        return list(self._heldout)


class LJSpeechPrompts(PromptSet):
    """Texts and recordings of a folder in LJSpeech's layout; ids are the folder's own.

    A prompt whose recording exists carries its path as the attribute "audio".

    Raises:
        DataError: metadata that is missing or malformed, a split that does not exist or names unknown ids.
    """

    def __init__(self, options: LJSpeechOptions) -> None:
        metadata = options.path / "metadata.csv" if options.path.is_dir() else options.path
        self._folder = metadata.parent
        texts = read_metadata(metadata).texts
        for name, text in texts.items():
            require_words(f"'{metadata}', '{name}'", text)
        wavs = self._folder / "wavs"
        self._recordings = recordings_in(wavs) if wavs.is_dir() else {}
        self._safe = {name: safe_id(name) for name in texts}
        if len(set(self._safe.values())) < len(texts):
            raise DataError(f"'{metadata}': two ids differ only in signs that a file name cannot have", "rename one")
        train, heldout = self._splits(texts, options)
        heldout = sorted(heldout, key=digest)[: options.heldout_limit]
        both = set(train) & set(heldout)
        if both:
            raise DataError(
                f"'{sorted(both)[0]}' is in '{options.split}' and in '{options.heldout_split}'",
                hint="splits must not overlap",
            )
        self._train = [self._prompt(name, texts[name]) for name in train]
        self._heldout = [self._prompt(name, texts[name]) for name in heldout]

    def train(self) -> list[Prompt]:
        """The training prompts, in the order of the file of ids or the metadata."""
        return list(self._train)

    def heldout(self) -> list[Prompt]:
        """The held-out prompts, ordered by a hash of their ids, so that a limit takes a fair sample."""
        return list(self._heldout)

    def recordings(self, prompts: Sequence[Prompt], sample_rate: int | None) -> Samples:
        """N prompts -> their recordings, data (N, L) float32 in [-1, 1], at `sample_rate` hertz (None: the files' own).

        Raises:
            DataError: a prompt without a recording, an unreadable file, or files at different rates.
        """
        from rlzoo.audio import read_audio, to_samples

        waves, rate = [], sample_rate
        for prompt in prompts:
            path = prompt.attributes.get("audio")
            if not isinstance(path, str):
                wav = self._folder / "wavs" / f"{prompt.id}.wav"
                raise DataError(f"prompt '{prompt.id}' has no recording", hint=f"put it at '{wav}'")
            wave, found = read_audio(path, rate, on_rate="error" if sample_rate is None else "resample")
            waves.append(wave)
            rate = found
        if rate is None:
            raise DataError("no prompts, so no recordings", hint="ask for at least one")
        return to_samples(waves, rate)

    def _splits(self, texts: dict[str, str], options: LJSpeechOptions) -> tuple[list[str], list[str]]:
        if not any((self._folder / f"{name}.txt").exists() for name in (options.split, options.heldout_split)):
            if options.split != "train" or options.heldout_split != "validation":
                raise DataError(
                    f"'{self._folder}' has neither '{options.split}.txt' nor '{options.heldout_split}.txt'",
                    hint="name splits that exist, or leave both options at their defaults",
                )
            if len(texts) < 2:
                raise DataError(f"'{self._folder}' has one utterance, and one has to be held out", hint="add more")
            out = held_out(texts, min(options.heldout_fraction, 1 - 1 / len(texts)))
            return [name for name in texts if name not in out], [name for name in texts if name in out]
        return self._ids(options.split, texts), self._ids(options.heldout_split, texts)

    def _ids(self, split: str, texts: dict[str, str]) -> list[str]:
        path = self._folder / f"{split}.txt"
        names = list(
            dict.fromkeys(unicodedata.normalize("NFC", line) for _, line in read_lines(path, "expected one id a line"))
        )
        for name in names:
            if name not in texts:
                raise DataError(f"'{path}' names '{name}', which the metadata lacks", hint="make the split again")
        return names

    def _prompt(self, name: str, text: str) -> Prompt:
        wav = self._recordings.get(name)
        return Prompt(self._safe[name], text, {} if wav is None else {"audio": str(wav)})


def _prompts(texts: Iterable[str]) -> list[Prompt]:
    return [Prompt(prompt_id(text), text) for text in texts]
