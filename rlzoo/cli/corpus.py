"""`rlzoo corpus`: make, write and align speech corpora. Light: the work is imported when a command runs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlzoo.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rlzoo.speech.corpus.engines import Engine

app = typer.Typer(help="Make speech corpora for pretraining.", no_args_is_help=True)


class EngineName(Enum):
    """Engines that can speak a corpus."""

    hibari = "hibari"
    flite = "flite"
    piper = "piper"
    command = "command"


class ConditionsName(Enum):
    """Recording conditions of a corpus."""

    none = "none"
    found = "found"


@app.command("speak")
def speak(
    text: Annotated[Path, typer.Option("--text", help="UTF-8 text, one sentence a line; '-' reads standard input.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make, or to continue.")],
    engine: Annotated[
        EngineName,
        typer.Option(
            "--engine", help="Speech synthesiser: hibari sounds natural, flite like a robot; command: any program."
        ),
    ] = EngineName.hibari,
    voice: Annotated[
        str, typer.Option("--voice", help="flite: one of `flite -lv` (default rms). piper: a voice file, FILE.onnx.")
    ] = "",
    command: Annotated[
        str, typer.Option("--command", help="For --engine command, such as 'espeak-ng -w {out} {text}'.")
    ] = "",
    conditions: Annotated[
        ConditionsName,
        typer.Option("--conditions", help="found: render each sentence under a random recording condition."),
    ] = ConditionsName.none,
    rate: Annotated[
        int | None, typer.Option("--rate", min=4000, max=192_000, help="Hertz; default: the engine's own.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Speak at most this many lines.")] = None,
    min_characters: Annotated[int, typer.Option("--min-characters", min=1, help="Skip shorter lines.")] = 1,
    max_characters: Annotated[int, typer.Option("--max-characters", min=1, help="Skip longer lines.")] = 1000,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, max=1024, help="Processes; default: every allowed core.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the split and of the recording conditions.")] = 0,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="KEY=VALUE for flite; may be repeated.")
    ] = None,
    monotone: Annotated[
        float | None, typer.Option("--monotone", min=50, max=400, help="Flatten the pitch to this frequency in hertz.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Speak every distinct line and keep the phone times. Call again to resume or to add lines.

    flite and hibari say when each phone is spoken. Corpora of piper and of other programs are aligned afterwards.
    """
    from rlzoo.speech.corpus.speak import Recipe, speak_corpus

    lines = [line for line in _lines(text) if min_characters <= len(line.strip()) <= max_characters]
    chosen = _engine(engine, voice, command, feature or [])
    recipe = Recipe(chosen, rate, monotone, conditions.value, seed)
    made = speak_corpus(lines[:limit], out, recipe, jobs=jobs, progress=not quiet)
    typer.echo(f"{made.folder}: {made.sentences} sentences, {made.hours:.2f} hours ({made.spoken} spoken now)")
    if made.left_out:
        typer.echo(f"not aligned ({len(made.left_out)}), left out: {', '.join(made.left_out)}", err=True)
    typer.echo(f"card: {made.folder / 'card.md'}")


def _engine(name: EngineName, voice: str, command: str, features: list[str]) -> Engine:
    """The engine with its options; ConfigError for an option of another engine."""
    given = {"--voice": voice, "--command": command, "--feature": features}
    taken = {"flite": ("--voice", "--feature"), "piper": ("--voice",), "command": ("--command",)}.get(name.value, ())
    for option, value in given.items():
        if value and option not in taken:
            raise ConfigError(f"--engine {name.value} takes no {option}", "see rlzoo corpus speak --help")
    if name is EngineName.flite:
        from rlzoo.speech.corpus.engines.flite import FliteEngine

        return FliteEngine(voice or "rms", tuple(sorted(_features(features).items())))
    if name is EngineName.piper:
        from rlzoo.speech.corpus.engines.piper import PiperEngine

        return PiperEngine(voice)
    if name is EngineName.command:
        from rlzoo.speech.corpus.engines.command import CommandEngine

        return CommandEngine(command)
    from rlzoo.speech.corpus.engines.hibari import HibariEngine

    return HibariEngine()


@app.command("sentences")
def sentences(
    count: Annotated[int, typer.Option("--count", min=1, max=10_000_000, help="Number of distinct sentences.")] = 6000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same sentences.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Text file to write; default: standard output.")] = None,
) -> None:
    """Write sentences from the project's own grammar, for `rlzoo corpus speak`."""
    from rlzoo.files.writing import write_text
    from rlzoo.speech.corpus.sentences import generate_sentences

    text = "\n".join(generate_sentences(count, seed)) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.exists():
        raise DataError(f"'{out}' exists", hint="choose another name, or remove it first")
    write_text(out, text)
    typer.echo(f"{out}: {count} sentences")


def _lines(path: Path) -> list[str]:
    import sys

    try:
        raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return raw.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror}", hint="give a text file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not UTF-8 text", hint="give one sentence a line") from error


def _features(pairs: list[str]) -> dict[str, str]:
    features: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals or not value:
            raise ConfigError(f"--feature '{pair}'", hint="write KEY=VALUE, such as duration_stretch=1.2")
        features[key] = value
    return features
