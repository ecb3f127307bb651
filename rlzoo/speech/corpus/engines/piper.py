"""Speak with Piper (package `piper-tts`) and any of its voice files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rlzoo.errors import DataError, PluginError
from rlzoo.speech.corpus.engines import Engine, Spoken
from rlzoo.speech.text import TextFrontend


@dataclass(frozen=True)
class PiperEngine(Engine):
    """A Piper voice: MODEL.onnx with MODEL.onnx.json beside it."""

    name: ClassVar[str] = "piper"
    licence: ClassVar[str] = "that of the voice file"
    times: ClassVar[str] = ""

    model: str = ""
    """Path of the .onnx file."""

    @property
    def label(self) -> str:
        """The file's name."""
        return Path(self.model).stem.lower().replace(".", "-").replace("_", "-")

    def version(self) -> str:
        """Version of the package. PluginError if it is missing."""
        try:
            import piper  # noqa: F401
        except ImportError as error:
            raise PluginError("the engine 'piper' needs piper-tts", "pip install 'rlzoo-speech[piper]'") from error
        return f"piper-tts {version('piper-tts')}"

    def check(self) -> None:
        """Raise DataError unless the voice's two files exist."""
        for path in (Path(self.model), Path(f"{self.model}.json")):
            if not path.is_file():
                hint = "give a voice with --voice FILE.onnx; FILE.onnx.json belongs beside it"
                raise DataError(f"Piper voice '{path}' does not exist", hint)

    @cached_property
    def _voice(self) -> Any:
        from piper import PiperVoice

        return PiperVoice.load(self.model)

    def speak(self, text: str) -> Spoken:
        """One sentence at the voice's own rate, without its random variation, so that it can be repeated."""
        from piper import SynthesisConfig

        steady = SynthesisConfig(noise_scale=0.0, noise_w_scale=0.0)
        chunks = list(self._voice.synthesize(text, steady))
        if not chunks:
            raise DataError(f"Piper spoke nothing for '{text}'", hint="remove the sentence")
        wave = np.concatenate([chunk.audio_float_array for chunk in chunks]).astype(np.float64)
        return Spoken(wave, chunks[0].sample_rate, TextFrontend("cmu").say(text))
