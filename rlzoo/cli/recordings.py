"""`rlzoo corpus convert`, `check` and `align`: a user's own recordings.

Light: the work is imported when a command runs.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from rlzoo.cli.corpus import app
from rlzoo.engine.console import columns, duration, err, out
from rlzoo.errors import DataError

if TYPE_CHECKING:
    from rlzoo.speech.corpus.check import CorpusReport

__all__ = ["app"]

_SHOWN = 8


class LayoutName(Enum):
    """Layouts of recordings and texts in a folder."""

    auto = "auto"
    ljspeech = "ljspeech"
    pairs = "pairs"
    vctk = "vctk"
    libritts = "libritts"
    table = "table"


class StyleName(Enum):
    """Spelling of phones."""

    cmu = "cmu"
    flite = "flite"


@app.command("convert")
def convert(
    source: Annotated[Path, typer.Argument(help="Folder of recordings and texts, or a table of them.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make, in LJSpeech's layout.")],
    layout: Annotated[
        LayoutName,
        typer.Option(
            "--layout", help="pairs: NAME.txt beside NAME.wav. table: .csv, .tsv or .jsonl with column names."
        ),
    ] = LayoutName.auto,
    speaker: Annotated[str, typer.Option("--speaker", help="Take this speaker only.")] = "",
    rate: Annotated[int | None, typer.Option("--rate", min=4000, help="Hertz to write; default: as recorded.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Write recordings of another layout, rate or file format as a corpus: metadata.csv and wavs/, mono.

    gradtts is trained at 16,000 Hz: --rate 16000.
    """
    from rlzoo.speech.corpus import convert as work

    with Progress(console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("converting", total=None)
        made = work.convert(
            source, folder, layout=layout.value, speaker=speaker, rate=rate,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    out.print(f"{made.folder}: {made.clips} clips, {duration(made.seconds)}, from layout '{made.layout}'")
    if len(made.speakers) > 1 and not speaker:
        err.print(
            f"note: {len(made.speakers)} speakers ({', '.join(made.speakers[:_SHOWN])}): choose one with --speaker"
        )
    _list(f"left out ({len(made.left_out)})", made.left_out)


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="Corpus in LJSpeech's layout: metadata.csv and wavs/.")],
    textgrids: Annotated[Path | None, typer.Option("--textgrids", help="Folder of the aligner's TextGrids.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a page.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Report everything that decides whether a voice can learn from a corpus. Changes nothing.

    Exits with 1 if a problem prevents training.
    """
    from rlzoo.speech.corpus.check import check_corpus

    with Progress(console=Console(stderr=True), disable=quiet or as_json) as bar:
        task = bar.add_task("listening", total=None)
        report = check_corpus(
            folder, textgrids=textgrids, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    if as_json:
        out.print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        _page(report)
    if not report.ready:
        raise typer.Exit(1)


def _page(report: CorpusReport) -> None:
    low, middle, high = report.lengths
    quiet, level, loud = report.levels
    rates = ", ".join(f"{rate} Hz ({count})" for rate, count in sorted(report.rates.items())) or "none"
    rows = [
        ["utterances", f"{report.utterances}, {duration(report.seconds)}"],
        ["length", f"{low:.1f} to {high:.1f} s, median {middle:.1f} s" if report.rates else "unknown"],
        ["rate", rates],
        ["level", f"{quiet:.0f} to {loud:.0f} dBFS, median {level:.0f} dBFS" if report.rates else "unknown"],
        ["speakers", str(report.speakers or "not told")],
        ["phone times", f"style '{report.style}'" if report.style else "none"],
    ]
    out.print(columns(rows))
    for note in report.notes:
        out.print(f"note: {note}")
    _list(f"cannot be used ({len(report.broken)})", report.broken)
    _list(f"left out by the aligner ({len(report.left_out)})", report.left_out)
    if report.untimed:
        out.print(f"without phone times ({len(report.untimed)}): {_some(report.untimed)}")
    _list(f"listen to these ({len(report.doubtful)})", report.doubtful)
    if report.unused:
        out.print(f"not in metadata.csv ({len(report.unused)}): {_some(report.unused)}")
    if report.lacking:
        words = [f"'{word}' ({count})" for word, count in report.lacking.items()]
        out.print(f"words whose phones the times lack ({sum(report.lacking.values())}): {_some(words)}")
        out.print("  the times are spelled otherwise than the front end spells: align again with rlzoo corpus align")
    if report.guessed:
        out.print(f"words that no dictionary has ({len(report.guessed)}): {_some(report.guessed)}")
    if report.rare:
        out.print(f"phones that occur fewer than 20 times ({len(report.rare)}): {', '.join(report.rare)}")
    following = f"rlzoo pretrain --data {report.folder}" if report.style else f"rlzoo corpus align {report.folder}"
    out.print(f"next: {following}" if report.ready else "not ready: see above")


@app.command("align")
def align(
    folder: Annotated[Path, typer.Argument(help="Corpus in LJSpeech's layout: metadata.csv and wavs/.")],
    lexicon: Annotated[Path | None, typer.Option("--lexicon", help="More words: 'word PH1 PH2 ...' a line.")] = None,
    style: Annotated[
        StyleName, typer.Option("--style", help="Spelling of the phones; cmu has stress. pretrain asks for the same.")
    ] = StyleName.cmu,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace phones.jsonl.")] = False,
    textgrids: Annotated[
        Path | None, typer.Option("--textgrids", help="Folder for TextGrids as well, to look at in Praat.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Find phone times by forced alignment and write them to FOLDER/phones.jsonl.

    Utterances whose text does not fit are left out, and listed with the reason in FOLDER/left_out.jsonl.
    """
    from rlzoo.speech.corpus.align import align_corpus, read_pronunciations

    if textgrids is not None and not overwrite and any(textgrids.rglob("*.TextGrid")):
        raise DataError(
            f"'{textgrids}' holds TextGrids already",
            "give another folder, or --overwrite to replace those of this corpus",
        )
    words = read_pronunciations(lexicon) if lexicon else None
    report = align_corpus(folder, pronunciations=words, style=style.value, overwrite=overwrite, progress=not quiet)
    for note in report.notes:
        err.print(f"note: {folder / 'metadata.csv'}: {note}")
    out.print(f"{folder / 'phones.jsonl'}: {report.aligned} utterances")
    if textgrids is not None:
        from rlzoo.speech.corpus._files import read_jsonl
        from rlzoo.speech.corpus.textgrids import write_textgrid

        for row in read_jsonl(folder / "phones.jsonl"):
            write_textgrid(textgrids / f"{row['id']}.TextGrid", row["phones"], row["ends"])
        out.print(f"{textgrids}: {report.aligned} TextGrids")
    if report.guessed_words:
        out.print(f"in no dictionary, pronounced by rule: {', '.join(report.guessed_words)}")
    if report.failed:
        err.print(f"left out ({len(report.failed)}), listed in {folder / 'left_out.jsonl'}:")
        for name, why in list(report.failed.items())[:_SHOWN]:
            err.print(f"  {name}: {why}")


def _list(title: str, problems: dict[str, str]) -> None:
    if not problems:
        return
    out.print(f"{title}:")
    for name, why in list(problems.items())[:_SHOWN]:
        out.print(f"  {name}: {why}")
    if len(problems) > _SHOWN:
        out.print(f"  and {len(problems) - _SHOWN} more (--json lists all)")


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (" ..." if len(items) > _SHOWN else "")
