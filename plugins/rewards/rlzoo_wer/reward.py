"""Error rates as rewards: 0 is understood word by word, -`max_rate` not at all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

import jiwer
import torch
from whisper_normalizer.english import EnglishTextNormalizer  # type: ignore[import-untyped]

from rlzoo.api import Prompt, Reward, Samples, Scores
from rlzoo.assets import WAV2VEC2_ASR, obtain
from rlzoo.audio import require_rate
from rlzoo.errors import ConfigError
from rlzoo.text import transcript
from rlzoo_wer import WEROptions
from rlzoo_wer.recognizers import RATE, PocketSphinx, Recognizer, Wav2Vec2


def recognizer_of(options: WEROptions) -> Recognizer:
    """The chosen recogniser, its weights read. Raises DataError or PluginError if it is unavailable."""
    if options.recognizer == "whisper":
        from rlzoo_wer import whisper

        return whisper.Whisper(options.checkpoint or whisper.folder_of(options.model))
    if options.recognizer == "wav2vec2":
        return Wav2Vec2(obtain(WAV2VEC2_ASR, options.checkpoint))
    return PocketSphinx()


class _ErrorRate(Reward[WEROptions]):
    """Texts are compared as they are spoken (`rlzoo.text.transcript`), after Whisper's English normalisation of what
    has several spellings (colour and color, it's and it is). A perfect reading has no errors."""

    sample_rate = RATE
    name: ClassVar[str]

    def __init__(self, options: WEROptions) -> None:
        super().__init__(options)
        self.recognizer = recognizer_of(options)
        self._spelling = EnglishTextNormalizer()

    def normalize(self, text: str) -> str:
        """'It costs $3.50' -> what it has in common with every other way of writing it."""
        return str(self._spelling(transcript(text)))

    @abstractmethod
    def count(self, wanted: str, heard: str) -> tuple[int, int]:
        """Errors, and how many units were wanted."""

    def to(self, device: torch.device | str) -> Self:
        """Move the recogniser, where it can."""
        self.recognizer.to(device)
        return self

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """N samples at 16 kHz and their prompts -> (N,) in [-max_rate, 0]; `parts` has the uncut rate.

        Raises ConfigError for a prompt without words.
        """
        require_rate(samples, self.sample_rate, self.name)
        wanted = [self.normalize(prompt.text) for prompt in prompts]
        for prompt, text in zip(prompts, wanted, strict=True):
            if not text:
                raise ConfigError(
                    f"prompt '{prompt.id}' has no words, so '{self.name}' has nothing to compare with",
                    "leave this reward out, or use prompts with text (of recordings: metadata.csv, `name|text`)",
                )
        rates = []
        for text, heard in zip(wanted, self.recognizer.transcribe(samples), strict=True):
            errors, size = self.count(text, self.normalize(heard))
            rates.append(errors / size)
        rate = torch.tensor(rates, dtype=torch.float32, device=samples.data.device)
        return Scores(-rate.clamp(max=self.options.max_rate), {"rate": rate})


def word_errors(wanted: str, heard: str) -> tuple[int, int]:
    """Substituted, left out and added words, and how many were wanted."""
    result = jiwer.process_words(wanted, heard)
    return result.substitutions + result.deletions + result.insertions, len(wanted.split())


def character_errors(wanted: str, heard: str) -> tuple[int, int]:
    """The same in characters, blanks included."""
    result = jiwer.process_characters(wanted, heard)
    return result.substitutions + result.deletions + result.insertions, len(wanted)


class WERReward(_ErrorRate):
    """Minus the word error rate, at least -`max_rate`."""

    name = "wer"

    def count(self, wanted: str, heard: str) -> tuple[int, int]:
        """Words."""
        return word_errors(wanted, heard)


class CERReward(_ErrorRate):
    """Minus the character error rate, at least -`max_rate`."""

    name = "cer"

    def count(self, wanted: str, heard: str) -> tuple[int, int]:
        """Characters."""
        return character_errors(wanted, heard)
