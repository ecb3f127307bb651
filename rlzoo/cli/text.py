"""`rlzoo text`: what will be said, and by which phones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rlzoo.cli.recordings import StyleName
from rlzoo.engine.console import columns, out
from rlzoo.errors import ConfigError


def text(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...", help="Texts, each in quotes.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="UTF-8 text, one line a text.")] = None,
    style: Annotated[StyleName, typer.Option("--style", help="Pronunciation: cmu has stress.")] = StyleName.cmu,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a text.")] = False,
) -> None:
    """Show how a text is read: its words and their phones. Guessed words are marked with '?'."""
    from rlzoo.speech.corpus.metadata import read_text
    from rlzoo.speech.text import TextFrontend
    from rlzoo.speech.text.signs import PAUSE

    lines = [*(texts or []), *(read_text(file, "one text a line").split("\n") if file else [])]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ConfigError("no text is given", 'rlzoo text "Dr. Lee paid $3.50."')
    frontend = TextFrontend(style.value)
    for line in lines:
        words = frontend.words(line)
        if as_json:
            said = {"text": line, "words": frontend.say(line), "phones": frontend.phones(line)}
            out.print(json.dumps(said, ensure_ascii=False))
            continue
        out.print(f"{line}\n  says: {frontend.say(line)}\n  phones: {' '.join(frontend.phones(line))}")
        rows = [
            [f"    {word}{'?' if frontend.guesses(word) else ''}", " ".join(sound)]
            for word, sound in dict.fromkeys(zip(words, frontend.pronunciations(words), strict=True))
            if word != PAUSE
        ]
        out.print(columns(rows))
