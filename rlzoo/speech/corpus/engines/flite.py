"""Speak with flite (CMU, MIT-like licence), which prints the end time of every phone that it speaks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import ClassVar

import soundfile

from rlzoo.errors import DataError
from rlzoo.speech.corpus.engines import Engine, Spoken, run_program

# flite's US English phone set (cmulex) and nothing else; `pau` is silence, `ax` is the schwa, which ARPAbet writes AH0.
_SPECIAL = {"pau": "sil", "ax": "AH0"}
_CONSONANTS = ("b", "ch", "d", "dh", "f", "g", "hh", "jh", "k", "l", "m", "n", "ng", "p", "r", "s", "sh", "t", "th")
_VOWELS = ("aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
_PLAIN = frozenset((*_CONSONANTS, "v", "w", "y", "z", "zh", *_VOWELS))


@dataclass(frozen=True)
class FliteEngine(Engine):
    """The program `flite` and one of its voices."""

    name: ClassVar[str] = "flite"
    licence: ClassVar[str] = "MIT-like"
    times: ClassVar[str] = "flite's own, exact to a millisecond"

    voice: str = "rms"
    """One of `flite -lv`."""
    features: tuple[tuple[str, str], ...] = ()
    """Features given to flite, such as ("duration_stretch", "1.2")."""

    @property
    def label(self) -> str:
        """The voice's name: ids of sentences begin with it."""
        return self.voice

    def version(self) -> str:
        """First words of `flite --version`, such as 'flite-2.2-current Sep 2018'.

        Raises:
            DataError: the program is not installed.
        """
        if shutil.which("flite") is None:
            hint = "apt-get install flite (or brew install flite)"
            raise DataError("the program 'flite' is not installed", hint=hint)
        # flite prints its version and exits with 1.
        done = subprocess.run(["flite", "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"version: (\S+ \w+ \d{4})", done.stdout + done.stderr)
        return found.group(1) if found else "unknown"

    def check(self) -> None:
        """Raise DataError unless `flite -lv` lists the voice: flite itself would quietly speak with another one."""
        done = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False)
        voices = done.stdout.partition(":")[2].split()
        if self.voice not in voices:
            raise DataError(f"flite has no voice '{self.voice}'", hint=f"voices: {', '.join(sorted(set(voices)))}")

    def command(self, text: str, out: str, *relation: str) -> list[str]:
        """The command line for one sentence; `relation` names what flite prints."""
        features: list[str] = []
        for key, value in self.features:
            features += ["--setf" if _is_number(value) else "--sets", f"{key}={value}"]
        return ["flite", "-voice", self.voice, *features, *relation, "-o", out, "-t", text]

    def speak(self, text: str) -> Spoken:
        """One utterance at the voice's own rate.

        Raises:
            DataError: flite failed, said nothing but silence, or its times do not fit its audio.
        """
        with tempfile.TemporaryDirectory(prefix="rlzoo-flite-") as folder:
            raw = os.path.join(folder, "raw.wav")
            times = run_program(self.command(text, raw, "-psdur"), text, "apt-get install flite")
            # A second, silent pass, because flite prints one relation per run: the words as spoken ("forty two").
            # kal shares the text analysis of every US English voice and is the quickest to run.
            spelled = ["flite", "-voice", "kal", "-pr", "Word", "-o", "none", "-t", text]
            words = run_program(spelled, text, "apt-get install flite")
            wave, rate = soundfile.read(raw, dtype="float64")
        phones, ends = parse_durations(times)
        seconds = len(wave) / rate
        if all(phone == "sil" for phone in phones):
            raise DataError(f"flite spoke only silence for '{text}'", hint="remove the sentence")
        if abs(ends[-1] - seconds) > 0.02:
            raise DataError(f"flite's times end at {ends[-1]:.3f} s, its audio at {seconds:.3f} s, for '{text}'")
        return Spoken(wave, rate, " ".join(words.split()), phones, ends)


def arpabet(phone: str) -> str:
    """flite phone -> ARPAbet without stress ('k' -> 'K'), 'AH0' for the schwa and 'sil' for a pause.

    Raises:
        DataError: not a phone of flite's US English voices.
    """
    if phone in _SPECIAL:
        return _SPECIAL[phone]
    if phone in _PLAIN:
        return phone.upper()
    raise DataError(f"flite said the unknown phone '{phone}'", hint="use a US English voice: see `flite -lv`")


def parse_durations(output: str) -> tuple[list[str], list[float]]:
    """Parse `flite -psdur` ('pau:0.176 dh:0.329 ...', end times in seconds) into phones and strictly growing ends.

    Raises:
        DataError: nothing to parse, or a time that goes backwards.
    """
    phones: list[str] = []
    ends: list[float] = []
    for item in output.split():
        name, _, end = item.rpartition(":")
        if not name or not _is_number(end):
            raise DataError(f"unexpected output of `flite -psdur`: '{item}'")
        if ends and float(end) <= ends[-1]:
            # Printed with 1 ms resolution: an equal time is a phone that was too short to print.
            if float(end) == ends[-1]:
                continue
            raise DataError(f"flite's phone times go backwards at '{item}'")
        phones.append(arpabet(name))
        ends.append(float(end))
    if not phones:
        raise DataError("flite printed no phones", hint="is the text empty?")
    return phones, ends


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
