"""Speak with any program: a command with {text} and {out} in it."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from typing import ClassVar

import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus.engines import Engine, Spoken, run_program
from rlzoo.speech.text import TextFrontend


@dataclass(frozen=True)
class CommandEngine(Engine):
    """A program that writes one sentence into a file that soundfile reads."""

    name: ClassVar[str] = "command"
    licence: ClassVar[str] = "that of the program"
    times: ClassVar[str] = ""

    template: str = ""
    """Split as a shell splits words; {text} and {out} are then put in place. No shell runs it, so a text cannot."""

    @property
    def label(self) -> str:
        """The program's name."""
        return os.path.basename(self._words[0]).lower().replace("_", "-") if self._words else "command"

    @property
    def _words(self) -> list[str]:
        try:
            return shlex.split(self.template)
        except ValueError as error:
            raise DataError(f"cannot split the command '{self.template}': {error}", "close its quotes") from error

    def version(self) -> str:
        """Path of the program. DataError if it is not installed."""
        found = shutil.which(self._words[0]) if self._words else None
        if found is None:
            hint = "give a command such as 'espeak-ng -w {out} {text}'"
            raise DataError(f"no program to run in --command '{self.template}'", hint)
        return found

    def check(self) -> None:
        """Raise DataError unless both {text} and {out} are named."""
        for place in ("{text}", "{out}"):
            if place not in self.template:
                raise DataError(f"--command '{self.template}' has no {place}", "such as: espeak-ng -w {out} {text}")

    def speak(self, text: str) -> Spoken:
        """One sentence as the program speaks it; the first channel of what it writes."""
        with tempfile.TemporaryDirectory(prefix="rlzoo-command-") as folder:
            out = os.path.join(folder, "out.wav")
            words = [word.replace("{out}", out).replace("{text}", text) for word in self._words]
            run_program(words, text, "install it, or check the command")
            try:
                wave, rate = soundfile.read(out, dtype="float64", always_2d=True)
            except (OSError, soundfile.LibsndfileError) as error:
                raise DataError(f"{words[0]} wrote no audio for '{text}'", "does it write to {out}?") from error
        if not len(wave):
            raise DataError(f"{words[0]} wrote no samples for '{text}'", hint="remove the sentence")
        return Spoken(wave[:, 0], rate, TextFrontend("cmu").say(text))
