"""Speak with hibari (package `hibari-tts`, Apache-2.0): a natural American voice, from the front end's own phones.

The phones of `TextFrontend("cmu")` are rewritten in hibari's alphabet, so a corpus and the voice that learns from it
spell every word alike. hibari's network computes how long each symbol lasts, in units of 25 ms; these durations are
read from its graph, so no alignment is needed and the times are those that the audio was made from.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rlzoo.errors import DataError, PluginError
from rlzoo.speech.corpus.engines import Engine, Spoken
from rlzoo.speech.text import VOWELS, TextFrontend
from rlzoo.speech.text.signs import PAUSE

RATE = 24_000
HOP = 300
"""Samples of one frame of hibari's spectrum; a unit of duration is two frames."""
LEADING_FRAMES, TRAILING_FRAMES = 8, 12
"""Silence kept before and behind a sentence: 100 ms and 150 ms of the 330 ms and more that hibari speaks."""
DURATIONS = "/Clip_output_0"
"""The output of hibari's graph that holds the duration of each symbol."""

_VOWELS = {
    **{"AA": "ɑ", "AE": "æ", "AH": "ʌ", "AO": "ɔ", "AW": "W", "AY": "I", "EH": "ɛ", "ER": "ɜɹ"},
    **{"EY": "A", "IH": "ɪ", "IY": "i", "OW": "O", "OY": "Y", "UH": "ʊ", "UW": "u"},
}
_REDUCED = {"AH": "ə", "ER": "əɹ"}
_CONSONANTS = {
    **{phone: phone.lower() for phone in ("B", "D", "F", "K", "L", "M", "N", "P", "S", "T", "V", "W", "Z")},
    **{"CH": "ʧ", "DH": "ð", "G": "ɡ", "HH": "h", "JH": "ʤ", "NG": "ŋ"},
    **{"R": "ɹ", "SH": "ʃ", "TH": "θ", "Y": "j", "ZH": "ʒ"},
}
_STRESS = {"1": "ˈ", "2": "ˌ"}
UNSTRESSED = frozenset(
    str.split(
        "a an the and or but nor of to in on at for from with by as into onto upon is are was were be been am do does "
        "did has have had will would can could shall should may might must he she it we you they i his her its our "
        "your their them him us me my that than if so which who whom"
    )
)
"""Function words: a dictionary marks their vowel as stressed, but speakers do not stress them."""


@dataclass(frozen=True)
class HibariEngine(Engine):
    """hibari's built-in voice."""

    name: ClassVar[str] = "hibari"
    licence: ClassVar[str] = "Apache-2.0"
    times: ClassVar[str] = "read from hibari's network, exact to 12.5 ms"

    @property
    def label(self) -> str:
        """The voice's name."""
        return "heart"

    def version(self) -> str:
        """Version of the package. PluginError if it is missing."""
        try:
            import hibari  # noqa: F401
        except ImportError as error:
            raise PluginError("the engine 'hibari' needs hibari-tts", "pip install 'rlzoo-speech[hibari]'") from error
        return f"hibari-tts {version('hibari-tts')}"

    @cached_property
    def _model(self) -> tuple[Any, dict[str, int]]:
        """The network with its durations as an output, and the ids of its symbols."""
        import hibari
        import onnx
        import onnxruntime

        assets = Path(hibari.__file__).parent / "assets"
        model = onnx.load(assets / "hibari.onnx")
        model.graph.output.append(onnx.helper.make_tensor_value_info(DURATIONS, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session, json.loads((assets / "vocab.json").read_text(encoding="utf-8"))

    def speak(self, text: str) -> Spoken:
        """One sentence at 24 kHz, with phones and their end times; the same text always gives the same samples.

        Raises:
            DataError: nothing in `text` can be spoken.
        """
        from hibari import dsp

        session, known = self._model
        phones, symbols = spell(text)
        ids = [0, *(known[char] for symbol in symbols for char in symbol), 0]
        inputs = {"ids": np.array([ids], np.int64), "speed": np.ones(1, np.float32)}
        *spectra, pitch, units = session.run(None, inputs)
        rng = np.random.default_rng(zlib.crc32(text.encode()))
        wave = dsp.synth(*(part[0] for part in spectra), pitch[0], rng)
        frames = 2 * np.asarray(units).reshape(-1).astype(int)
        sizes = share_frames(frames, symbols)
        skip, cut = max(sizes[0] - LEADING_FRAMES, 0), max(sizes[-1] - TRAILING_FRAMES, 0)
        sizes[0], sizes[-1] = sizes[0] - skip, sizes[-1] - cut
        wave = wave[skip * HOP : len(wave) - cut * HOP]
        kept = [(phone, size) for phone, size in zip(phones, sizes, strict=True) if size]
        ends = np.cumsum([size for _, size in kept]) * HOP / RATE
        times = [round(end, 4) for end in ends.tolist()]
        return Spoken(wave.astype(np.float64), RATE, FRONTEND.say(text), [phone for phone, _ in kept], times)


FRONTEND = TextFrontend("cmu", silence_ends=True)


def spell(text: str) -> tuple[list[str], list[str]]:
    """'Hello, Bob.' -> phones and, for each of them, hibari's symbols: ['sil', 'HH', ...], ['', 'h', ...].

    A space between words stands before the symbols of the phone that follows it.
    """
    phones, symbols, space = ["sil"], [""], ""
    words = FRONTEND.words(text)
    for word, pronounced in zip(words, FRONTEND.pronunciations(words), strict=True):
        if word == PAUSE:
            # Quotes and brackets can put several pauses in one place, or one before the first word.
            if phones[-1] not in ("sil", "sp"):
                phones.append("sp")
                symbols.append(",")
            continue
        for place, phone in enumerate(pronounced):
            symbol = symbol_of(phone, stress=word not in UNSTRESSED)
            if phone == "T" and is_flapped(pronounced, place):
                symbol = "T"
            phones.append(phone)
            symbols.append(space + symbol if place == 0 else symbol)
        space = " "
    if phones[-1] == "sp":
        phones.pop()
        symbols.pop()
    return [*phones, "sil"], [*symbols, "."]


def symbol_of(phone: str, *, stress: bool) -> str:
    """'EH1' -> 'ˈɛ', or 'ɛ' without stress; 'AH0' -> 'ə'."""
    if phone in _CONSONANTS:
        return _CONSONANTS[phone]
    vowel, digit = phone[:2], phone[2:]
    if digit == "0" and vowel in _REDUCED:
        return _REDUCED[vowel]
    return (_STRESS.get(digit, "") if stress else "") + _VOWELS[vowel]


def is_flapped(phones: Sequence[str], place: int) -> bool:
    """True if the T at `place` is the flap of American 'water': between a vowel or R and an unstressed vowel."""
    if not 0 < place < len(phones) - 1:
        return False
    before, after = phones[place - 1], phones[place + 1]
    return (before[:2] in VOWELS or before == "R") and after[:2] in VOWELS and after.endswith("0")


def share_frames(frames: np.ndarray, symbols: Sequence[str]) -> list[int]:
    """Frames of each id, the pads at both ends among them -> frames of each phone.

    The frames of a space are shared by the phones beside it.
    """
    sizes, place = [int(frames[0])], 1
    for symbol in symbols[1:]:
        own = frames[place : place + len(symbol)]
        place += len(symbol)
        if symbol.startswith(" "):
            sizes[-1] += int(own[0]) // 2
            sizes.append(int(own[0]) - int(own[0]) // 2 + int(own[1:].sum()))
        else:
            sizes.append(int(own.sum()))
    sizes[-1] += int(frames[place:].sum())
    if sum(sizes) != int(frames.sum()):
        raise DataError("hibari's durations do not fit its symbols")
    return sizes
