"""Make a single-speaker corpus with a program or a model that speaks: text in, an LJSpeech-layout folder out.

    metadata.csv   id|text                          wavs/ID.wav   mono, 16-bit
    phones.jsonl   {"id", "phones", "ends", ...}    train.txt validation.txt test.txt   ids
    card.json      what it is and how it was made   card.md       the same, to read
    clean/ID.wav   the recordings before their recording conditions, if conditions were asked for

Engines that know when each phone is spoken need no aligner; corpora of the others are aligned.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rlzoo.errors import DataError
from rlzoo.files.reading import as_object, read_object
from rlzoo.files.writing import append_lines, is_stray, sweep, write_text
from rlzoo.speech.corpus._files import read_jsonl, write_jsonl
from rlzoo.speech.corpus.splits import digest, split_of

if TYPE_CHECKING:
    from rlzoo.speech.corpus.engines import Engine

_CHUNK = 16  # sentences per worker call: about a second of work, so progress moves and a crash loses little
_JOURNAL = "journal.jsonl"
_TYPOGRAPHY = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "...", "\u00a0": " "})

Conditions = Literal["none", "found"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class SpokenCorpus:
    """Result of `speak_corpus`."""

    folder: Path
    sentences: int
    """Sentences in the corpus, those of earlier calls included."""
    spoken: int
    """Sentences spoken by this call; the rest were there already."""
    hours: float
    left_out: tuple[str, ...] = ()
    """Ids that could not be aligned, for engines without phone times."""


@dataclass(frozen=True)
class Recipe:
    """Settings shared by every sentence of a corpus."""

    engine: Engine
    sample_rate: int | None = None
    """Rate of the written files in hertz, at most the engine's own; None keeps that."""
    monotone_hertz: float | None = None
    """Flatten the pitch to this constant with WORLD (needs pyworld). flite's own `int_f0_target_*` features do nothing
    for voices with a SPAM pitch model, of which rms is one."""
    conditions: Conditions = "none"
    """Render every sentence under a recording condition drawn from `rlzoo.speech.corpus.conditions.FOUND`."""
    seed: int = 0
    """Seed of the split and of the conditions."""
    validation_fraction: float = 0.02
    """Share of sentences, in expectation; likewise below."""
    test_fraction: float = 0.02

    def card(self) -> dict[str, Any]:
        """The same as JSON values, with the engine's version."""
        from rlzoo.speech.corpus.conditions import FOUND

        own = {name: value for name, value in asdict(self).items() if name != "engine"}
        if self.conditions != "none":
            own["distribution"] = asdict(FOUND)
        values: dict[str, Any] = json.loads(json.dumps({**self.engine.recipe(), **own}))
        return values


def speak_corpus(
    texts: Iterable[str], out: Path | str, recipe: Recipe, *, jobs: int | None = None, progress: bool = True
) -> SpokenCorpus:
    """Speak every distinct sentence of `texts` and write the corpus to `out`; call again to resume or to add sentences.

    Two texts that differ only in case or white space are one sentence. A sentence's id, split and recording condition
    depend on its text (and on the recipe's seed), never on its position, so a longer list keeps every earlier file.

    Args:
        texts: sentences in English; typographic quotes and accents become ASCII.
        out: folder to make or to continue.
        jobs: worker processes; None takes every core that this process may use.
        progress: show a progress bar on stderr.

    Raises:
        DataError: no usable text, an engine that is missing or fails, `out` holds a corpus made otherwise.
        PluginError: a package that the engine needs is missing.
    """
    folder, engine = Path(out), recipe.engine
    held_out = recipe.validation_fraction + recipe.test_fraction
    if not 0 <= held_out < 1 or min(recipe.validation_fraction, recipe.test_fraction) < 0:
        raise DataError("split fractions must be non-negative and sum to less than 1")
    wanted = distinct_sentences(texts, engine.label)
    card = recipe.card()
    engine.check()
    _open_folder(folder, card)
    record = folder / ("phones.jsonl" if engine.times else "spoken.jsonl")
    done = _finished(folder, record)
    todo = [(name, text, folder / "wavs" / f"{name}.wav") for name, text in wanted.items() if name not in done]
    for rows in _in_workers("speaking", _speak_some, todo, recipe, jobs, progress):
        append_lines(folder / _JOURNAL, rows)
        done.update((row["id"], row) for row in rows)
    rows = [done[name] for name in sorted(done)]
    _write_lists(folder, rows, recipe)
    write_jsonl(record, rows)
    left_out: tuple[str, ...] = ()
    if not engine.times:
        left_out = _align(folder, progress=progress)
    if recipe.conditions != "none":
        _render_conditions(folder, recipe, jobs, progress)
    _write_card(folder, rows, recipe, card, len(left_out))
    (folder / _JOURNAL).unlink(missing_ok=True)
    return SpokenCorpus(folder, len(rows), len(todo), sum(row["seconds"] for row in rows) / 3600, left_out)


def clean_text(text: str) -> str:
    """One sentence as flite can speak it: ASCII, single spaces.

    Raises:
        DataError: no letter or digit in it, a '|' (the column separator), or a character without an ASCII form.
    """
    decomposed = unicodedata.normalize("NFKD", text.translate(_TYPOGRAPHY))
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    plain = " ".join(plain.split())
    for char in plain:
        if not " " <= char <= "~" or char == "|":
            raise DataError(f"cannot speak the character {char!r} in '{text.strip()}'", hint="spell it out")
    if not re.search(r"[A-Za-z0-9]", plain):
        raise DataError(f"no letter in '{text.strip()}'", hint="remove the line")
    return plain


def distinct_sentences(texts: Iterable[str], voice: str) -> dict[str, str]:
    """Texts -> {id: text} without duplicates, first spelling wins; blank lines are skipped.

    Raises:
        DataError: nothing left, or a line that cannot be spoken (its number is in the message).
    """
    sentences: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            plain = clean_text(text)
        except DataError as error:
            raise DataError(f"line {number}: {error}", hint=error.hint) from None
        sentences.setdefault(f"{voice}-{digest(plain.lower())[:12]}", plain)
    if not sentences:
        raise DataError("no sentences to speak", hint="give a text file with one sentence a line")
    return sentences


def allowed_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open_folder(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Make the folder, or check that what is there was made by the same recipe."""
    card = folder / "card.json"
    if card.exists():
        found = as_object(read_object(card, "choose another folder").get("recipe", {}), f"the recipe in '{card}'")
        different = sorted(key for key in recipe if found.get(key) != recipe[key])
        if different:
            raise DataError(
                f"'{folder}' holds a corpus made with another {', '.join(different)}", hint="choose another folder"
            )
    elif folder.exists() and not _is_begun(folder):
        raise DataError(f"'{folder}' is not empty and holds no corpus of ours", hint="choose another folder")
    try:
        (folder / "wavs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make '{folder}': {error.strerror}", hint="choose a folder you can write") from error
    for place in (folder, folder / "wavs", folder / "clean"):
        sweep(place)
    if not card.exists():
        write_text(card, json.dumps({"status": "unfinished", "recipe": recipe}, indent=1) + "\n")


def _is_begun(folder: Path) -> bool:
    """Whether there is nothing in the folder but what a call makes before it writes its card."""
    wavs = folder / "wavs"
    return all(path == wavs or is_stray(path) for path in folder.iterdir()) and not (
        wavs.exists() and any(wavs.iterdir())
    )


def _finished(folder: Path, record: Path) -> dict[str, dict[str, Any]]:
    """Sentences of earlier calls: recorded, and their wav is there (it is written first, so it is whole)."""
    rows: dict[str, dict[str, Any]] = {}
    for path in (record, folder / _JOURNAL):
        if path.exists():
            rows.update((row["id"], row) for row in read_jsonl(path, torn_tail=path.name == _JOURNAL))
    journal = folder / _JOURNAL
    if journal.exists():  # drop a torn last line, or the next record would be glued to it
        write_jsonl(journal, rows.values())
    places = (folder / "wavs", folder / "clean")
    return {name: row for name, row in rows.items() if any((place / f"{name}.wav").is_file() for place in places)}


def _speak_some(jobs: Sequence[tuple[str, str, Path]], recipe: Recipe) -> list[dict[str, Any]]:
    """Speak (id, text, path) triples; the unit of work of one worker call."""
    from rlzoo.speech.corpus.waves import flatten_pitch, resample, write_wave

    rows: list[dict[str, Any]] = []
    for name, text, path in jobs:
        spoken = recipe.engine.speak(text)
        wave, rate = spoken.wave, spoken.rate
        target = recipe.sample_rate or rate
        if target > rate:
            raise DataError(
                f"engine '{recipe.engine.name}' speaks at {rate} Hz, {target} Hz were asked for",
                hint=f"use --rate {rate} or lower",
            )
        if recipe.monotone_hertz is not None:
            wave = flatten_pitch(wave, rate, recipe.monotone_hertz)
        write_wave(path, resample(wave, rate, target), target)
        row = {"id": name, "text": text, "words": spoken.words, "seconds": round(len(wave) / rate, 4)}
        rows.append(row if spoken.phones is None else {**row, "phones": spoken.phones, "ends": spoken.ends})
    return rows


def _align(folder: Path, *, progress: bool) -> tuple[str, ...]:
    """Write phones.jsonl by forced alignment -> ids that could not be aligned."""
    from rlzoo.speech.corpus.align import align_corpus

    return tuple(align_corpus(folder, overwrite=True, progress=progress).failed)


def _render_conditions(folder: Path, recipe: Recipe, jobs: int | None, progress: bool) -> None:
    """Move each recording to clean/ and write what it becomes under its condition; the rows of phones.jsonl name it."""
    from rlzoo.speech.corpus.conditions import FOUND, draw

    (folder / "clean").mkdir(exist_ok=True)
    rows = list(read_jsonl(folder / "phones.jsonl"))
    for row in rows:
        row["condition"] = draw(FOUND, condition_seed(row["id"], recipe.seed)).card()
    todo = []
    for row in rows:
        heard, clean = folder / "wavs" / f"{row['id']}.wav", folder / "clean" / f"{row['id']}.wav"
        if not clean.exists():
            heard.rename(clean)
        if not heard.exists():
            todo.append((condition_seed(row["id"], recipe.seed), clean, heard))
    for _ in _in_workers("recording conditions", _render_some, todo, recipe, jobs, progress):
        pass
    write_jsonl(folder / "phones.jsonl", rows)


def _render_some(jobs: Sequence[tuple[int, Path, Path]], recipe: Recipe) -> list[None]:
    """Render (seed, clean recording, path to write) triples; the unit of work of one worker call."""
    import soundfile

    from rlzoo.speech.corpus.conditions import FOUND, apply, draw
    from rlzoo.speech.corpus.waves import write_wave

    for seed, clean, heard in jobs:
        wave, rate = soundfile.read(clean, dtype="float64")
        write_wave(heard, apply(wave, rate, draw(FOUND, seed), seed), rate)
    return [None] * len(jobs)


def condition_seed(name: str, seed: int) -> int:
    """Seed of the recording condition of the sentence with that id."""
    return int(digest(f"condition:{seed}:{name}")[:12], 16)


def _in_workers(
    title: str,
    work: Callable[[Sequence[T], Recipe], list[R]],
    todo: Sequence[T],
    recipe: Recipe,
    jobs: int | None,
    progress: bool,
) -> Iterator[list[R]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    workers = min(jobs or allowed_cores(), max(1, len(chunks)))
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress or not todo) as bar:
        task = bar.add_task(title, total=len(todo))
        if workers == 1:
            for chunk in chunks:
                yield work(chunk, recipe)
                bar.advance(task, len(chunk))
            return
        # spawn: a forked child of a process that has used torch's threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures: list[Future[list[R]]] = [pool.submit(work, chunk, recipe) for chunk in chunks]
            try:
                for future in as_completed(futures):
                    rows = future.result()
                    yield rows
                    bar.advance(task, len(rows))
            except BrokenProcessPool as error:
                raise DataError(
                    "a worker process was killed, perhaps for want of memory",
                    hint="call again to go on, with a smaller --jobs",
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _write_lists(folder: Path, rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> None:
    write_text(folder / "metadata.csv", "".join(f"{r['id']}|{r['text']}\n" for r in rows))
    names: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    shares = {"validation_fraction": recipe.validation_fraction, "test_fraction": recipe.test_fraction}
    for row in rows:
        names[split_of(row["text"], seed=recipe.seed, **shares)].append(row["id"])
    for split, ids in names.items():
        write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in ids))


def _write_card(
    folder: Path, rows: Sequence[Mapping[str, Any]], recipe: Recipe, made: Mapping[str, Any], left_out: int
) -> None:
    import soundfile

    timed = list(read_jsonl(folder / "phones.jsonl"))
    card = {
        "status": "complete",
        "sample_rate": soundfile.info(folder / "wavs" / f"{rows[0]['id']}.wav").samplerate,
        "sentences": len(rows),
        "hours": round(sum(row["seconds"] for row in rows) / 3600, 4),
        "splits": {name: len((folder / f"{name}.txt").read_text().split()) for name in ("train", "validation", "test")},
        "phones": dict(sorted(Counter(phone for row in timed for phone in row["phones"]).items())),
        "silence": "sil",
        "times": recipe.engine.times or "forced alignment",
        "not_aligned": left_out,
        "clean": sum(not row.get("condition") for row in timed),
        "text_sha256": digest("\n".join(sorted(row["text"] for row in rows))),
        "python": sys.version.split()[0],
        "recipe": dict(made),
    }
    write_text(folder / "card.md", _card_text(card, recipe.engine))
    write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")


def _card_text(card: Mapping[str, Any], engine: Engine) -> str:
    recipe, splits = card["recipe"], card["splits"]
    pitch = f"flattened to {recipe['monotone_hertz']} Hz with WORLD" if recipe["monotone_hertz"] else "the engine's own"
    phones = ", ".join(f"{phone} {count}" for phone, count in card["phones"].items())
    conditions = "none: all recordings are clean"
    if recipe["conditions"] != "none":
        conditions = (
            f"`{recipe['conditions']}`; {card['clean']} recordings are clean; phones.jsonl names each condition"
        )
    settings = {name: recipe[name] for name in asdict(engine)}
    return f"""# Corpus: {engine.name} voice `{engine.label}` at {card["sample_rate"]} Hz

| | |
|---|---|
| sentences | {card["sentences"]} ({", ".join(f"{name} {size}" for name, size in splits.items())}) |
| hours | {card["hours"]:.2f} |
| engine | {engine.name}, {recipe["version"]}, {settings}, licence {recipe["licence"]} |
| phone times | {card["times"]}; {card["not_aligned"]} sentences could not be aligned |
| pitch | {pitch} |
| recording conditions | {conditions} |
| text, SHA-256 of the sorted sentences | `{card["text_sha256"]}` |

Synthetic speech: one utterance per sentence, resampled with a linear-phase low-pass where the rate differs from the
engine's own. A sentence's split is a hash of its text and the seed {recipe["seed"]}.

Phones ({len(card["phones"])}): {phones}
"""
