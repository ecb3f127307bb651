"""Speech while it is being made: sentence by sentence, into a WAV file or a pipe.

One pass over a text cannot be handed out early and stay exact: in each of K denoising steps a sample depends on some
frames behind it, and decoding may look at the whole utterance, as wavegrad2's does for its offset. So the text is cut
where its sentences end, and each sentence is an utterance of its own, with its own seed.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from typing import BinaryIO

import soundfile
from torch import Tensor

from rlzoo.core.policy import Policy
from rlzoo.core.types import Prompt, Samples
from rlzoo.engine.speak import speak

AHEAD = 8
"""Sentences that may wait for a slow reader before the next one is made."""
UNKNOWN = 0x7FFFF000
"""Bytes of audio in the header of a WAV whose length is not known yet: sox's convention. Players read to the end."""

_CLOSING, _OPENING = "\"'”’»)]", "\"'“‘«(["
_END = re.compile(rf"[.!?…]+[{re.escape(_CLOSING)}]*(?=\s)|\n[ \t\r]*\n")
_STOPPED_WORD = re.compile(rf"([^\W\d_][\w.]*)\.[{re.escape(_CLOSING)}]*$")
_INITIALS = re.compile(r"(?!I$)[A-Z](\.[A-Z])*")  # but "So did I."
_ABBREVIATIONS = re.compile(
    r"(?i)mrs?|ms|messrs|dr|prof|st|sr|jr|gen|col|lt|capt|sgt|maj|rev|hon|gov|sen|rep|e\.g|i\.e|cf|vs"
)
_BEFORE_NUMBERS = re.compile(r"(?i)nos?|figs?|vol|ch|sec|pp?|eq|approx|ca")


def sentences(text: str) -> list[str]:
    """'Dr. No left. Why?' -> ['Dr. No left.', 'Why?']; at least one.

    A sentence ends at `.`, `!`, `?` or `…` before a space, unless a small letter follows or the word is a title, an
    initial or a common abbreviation; and at an empty line. A piece without a letter or a digit is left out.
    """
    pieces, begin = [], 0
    for end in _END.finditer(text):
        if _ends(text[begin : end.end()], text[end.end() :].lstrip().lstrip(_OPENING)[:1]):
            pieces.append(text[begin : end.end()].strip())
            begin = end.end()
    pieces.append(text[begin:].strip())
    return [piece for piece in pieces if any(char.isalnum() for char in piece)] or [text]


def _ends(before: str, following: str) -> bool:
    if before.endswith("\n"):
        return True
    if following.islower():
        return False
    word = _STOPPED_WORD.search(before)
    if word is None:
        return True
    if following.isdigit() and _BEFORE_NUMBERS.fullmatch(word[1]):
        return False
    return not (_INITIALS.fullmatch(word[1]) or _ABBREVIATIONS.fullmatch(word[1]))


def speak_sentences(
    policy: Policy,
    text: str,
    seed: int,
    num_steps: int | None = None,
    attributes: Mapping[str, str | int | float] | None = None,
) -> Iterator[Samples]:
    """One sample (1, L) per sentence; the i-th, counted from 0, is what `speak` makes of it with seed `seed + i`.

    Every sentence is a prompt with these `attributes`, such as its voice.
    """
    for index, sentence in enumerate(sentences(text)):
        # Its number is its name in errors.
        yield speak(policy, [Prompt(f"sentence {index + 1}", sentence, attributes or {})], [seed + index], num_steps)


def pcm(wave: Tensor, sample_rate: int) -> bytes:
    """(L,) in [-1, 1] -> 16-bit samples, as `write_audio` stores them."""
    made = BytesIO()
    data = wave.detach().cpu().float().clamp(-1, 1).numpy()
    soundfile.write(made, data, sample_rate, subtype="PCM_16", format="RAW", endian="LITTLE")
    return made.getvalue()


def header(sample_rate: int, size: int = UNKNOWN) -> bytes:
    """The 44 bytes before `size` bytes of 16-bit mono audio."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def write_wav(waves: Iterable[Tensor], sample_rate: int, file: BinaryIO, *, finish: bool) -> int:
    """Write waves (L,), one behind the other, each as soon as it is there; the number of samples written.

    Writing has a thread of its own, so that the next wave is made while a player is still busy with the last ones.
    `finish`: put the length into the header at the end, also after an error; for files that can seek.

    Raises:
        OSError: what `file` raises.
    """
    size = 0

    def write(data: bytes) -> None:
        nonlocal size
        file.write(data)
        file.flush()
        size += len(data)

    waiting: deque[Future[None]] = deque()
    file.write(header(sample_rate))
    try:
        with ThreadPoolExecutor(1) as writer:
            for wave in waves:
                waiting.append(writer.submit(write, pcm(wave, sample_rate)))
                while waiting and (waiting[0].done() or len(waiting) > AHEAD):
                    waiting.popleft().result()
        for last in waiting:
            last.result()
    finally:
        if finish:
            file.seek(0)
            file.write(header(sample_rate, min(size, UNKNOWN)))
    return size // 2
