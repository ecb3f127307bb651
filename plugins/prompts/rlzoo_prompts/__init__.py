"""Prompt sets: two that ship (short phrases, sentences) and three that read the user's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from rlzoo.plugin import Options, PromptSpec, hookimpl


class ShortOptions(Options):
    """Nothing to set: the set is fixed, so that results can be compared."""


class SentencesOptions(Options):
    """Nothing to set: the set is fixed, so that results can be compared."""


class TextOptions(Options):
    """A plain text file, one prompt a line."""

    path: Path
    """UTF-8 text, one prompt a line. Blank lines are skipped, repeated lines count once."""
    heldout_path: Path | None = None
    """Held-out prompts, in the same form; without it some lines of `path` are held out."""
    heldout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the lines of `path` to hold out, at least one, chosen by a hash; unused with `heldout_path`."""


class LJSpeechOptions(Options):
    """A folder in LJSpeech's layout: metadata.csv, wavs/, and perhaps train.txt, validation.txt, test.txt with ids."""

    path: Path
    """The folder, or its metadata file (lines `id|text` or `id|text|normalised text`; the last column is spoken)."""
    split: str = "train"
    """Name of the file of ids, without `.txt`, that gives the training prompts."""
    heldout_split: str = "validation"
    """Name of the file of ids, without `.txt`, that gives the held-out prompts."""
    heldout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Share to hold out (at least one), chosen by a hash of the id, where the folder has no files of ids at all."""
    heldout_limit: Annotated[int, Field(ge=1, le=10_000)] = 64
    """At most this many held-out prompts, the first ones by a hash of the id."""


class ZeroShotOptions(Options):
    """Texts, each with a recording of the voice that shall speak it."""

    path: Path
    """UTF-8 text, one prompt a line: `recording|what it says|text to speak`, or Seed-TTS-eval's `id|what the recording
    says|recording|text to speak`, perhaps with a recording of that text as a fifth column. Recordings are looked for
    beside the file."""
    heldout_path: Path | None = None
    """Held-out prompts, in the same form; without it some lines of `path` are held out."""
    heldout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the lines of `path` to hold out, at least one, chosen by a hash; unused with `heldout_path`."""


@hookimpl
def rlzoo_prompts() -> Iterator[PromptSpec]:
    yield PromptSpec(
        name="short",
        summary="48 phrases of two to four words, about a second each; quick on a CPU",
        target="rlzoo_prompts.prompts:ShortPrompts",
        options=ShortOptions,
    )
    yield PromptSpec(
        name="sentences",
        summary="271 varied English sentences of 6 to 12 words",
        target="rlzoo_prompts.prompts:SentencesPrompts",
        options=SentencesOptions,
    )
    yield PromptSpec(
        name="text",
        summary="your own text file, one prompt a line",
        target="rlzoo_prompts.prompts:TextPrompts",
        options=TextOptions,
    )
    yield PromptSpec(
        name="ljspeech",
        summary="a folder in LJSpeech's layout, with its recordings",
        target="rlzoo_prompts.prompts:LJSpeechPrompts",
        options=LJSpeechOptions,
    )
    yield PromptSpec(
        name="zero-shot",
        summary="texts with a recording of the voice that shall speak each; Seed-TTS-eval's lists too",
        target="rlzoo_prompts.prompts:ZeroShotPrompts",
        options=ZeroShotOptions,
    )
