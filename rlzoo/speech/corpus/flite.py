"""Make a single-speaker corpus with the `flite` program: text in, an LJSpeech-layout folder with exact phone times out.

    metadata.csv   id|text|words as spoken         wavs/ID.wav   mono, 16-bit
    phones.jsonl   {"id", "phones", "ends", ...}    train.txt validation.txt test.txt   ids
    card.json      what it is and how it was made   card.md       the same, to read

flite (CMU, MIT-like licence) prints the end time of every phone it speaks, so durations need no aligner.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlzoo.errors import DataError
from rlzoo.speech.corpus._files import append_jsonl, read_jsonl, write_jsonl, write_text

if TYPE_CHECKING:
    from rlzoo.speech.corpus._render import RenderSettings

_CHUNK = 16  # sentences per worker call: about a second of work, so progress moves and a crash loses little
_JOURNAL = "journal.jsonl"
_TYPOGRAPHY = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "…": "...", "\u00a0": " "})


@dataclass(frozen=True)
class FliteCorpus:
    """What `build_flite_corpus` made."""

    folder: Path
    sentences: int
    """Sentences in the corpus, those of earlier calls included."""
    spoken: int
    """Sentences spoken by this call; the rest were there already."""
    hours: float


def build_flite_corpus(
    texts: Iterable[str],
    out: Path | str,
    *,
    voice: str = "rms",
    sample_rate: int | None = None,
    jobs: int | None = None,
    seed: int = 0,
    flite_features: Mapping[str, str] | None = None,
    monotone_hertz: float | None = None,
    validation_fraction: float = 0.02,
    test_fraction: float = 0.02,
    progress: bool = True,
) -> FliteCorpus:
    """Speak every distinct sentence of `texts` and write the corpus to `out`; call again to resume or to add sentences.

    Two texts that differ only in case or white space are one sentence. A sentence's id and split depend on its text
    (and the split on `seed`), never on its position, so a longer list keeps every earlier file and split.

    Args:
        texts: sentences in English; typographic quotes and accents become ASCII.
        out: folder to make or to continue.
        voice: one of `flite -lv`.
        sample_rate: hertz of the written files, at most the voice's own; None keeps the voice's own.
        jobs: worker processes; None takes every core this process may use.
        seed: seed of the split.
        flite_features: features given to flite, such as {"duration_stretch": "1.2"}.
        monotone_hertz: flatten the pitch to this constant with WORLD (needs pyworld). flite's own `int_f0_target_*`
            features do nothing for voices with a SPAM pitch model, of which rms is one; for awb and kal16 they work.
        validation_fraction, test_fraction: share of sentences in each held-out split, in expectation.
        progress: show a progress bar on stderr.

    Raises:
        DataError: no usable text, unknown voice, flite missing or failing, `out` holds a corpus made otherwise.
    """
    from rlzoo.speech.corpus._render import RenderSettings

    folder = Path(out)
    if not 0 <= validation_fraction + test_fraction < 1 or min(validation_fraction, test_fraction) < 0:
        raise DataError("split fractions must be non-negative and sum to less than 1")
    features = tuple(sorted((flite_features or {}).items()))
    settings = RenderSettings(voice, sample_rate, features, monotone_hertz)
    wanted = distinct_sentences(texts, voice)
    version = flite_version()
    check_voice(voice)
    recipe = {
        **asdict(settings),
        "seed": seed,
        "validation_fraction": validation_fraction,
        "test_fraction": test_fraction,
        "flite_version": version,
    }
    recipe = json.loads(json.dumps(recipe))
    _open_folder(folder, recipe)
    done = _finished(folder)
    todo = [(name, text, folder / "wavs" / f"{name}.wav") for name, text in wanted.items() if name not in done]
    for rows in _render_all(todo, settings, jobs, progress):
        append_jsonl(folder / _JOURNAL, rows)
        done.update((row["id"], row) for row in rows)
    rows = [done[name] for name in sorted(done)]
    _write_lists(folder, rows, seed, validation_fraction, test_fraction)
    _write_card(folder, rows, recipe)
    (folder / _JOURNAL).unlink(missing_ok=True)
    return FliteCorpus(folder, len(rows), len(todo), sum(row["seconds"] for row in rows) / 3600)


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
        sentences.setdefault(f"{voice}-{_digest(plain.lower())[:12]}", plain)
    if not sentences:
        raise DataError("no sentences to speak", hint="give a text file with one sentence a line")
    return sentences


def split_of(text: str, *, seed: int, validation_fraction: float, test_fraction: float) -> str:
    """'train', 'validation' or 'test', from a hash of the text (case ignored) and the seed."""
    place = int(_digest(f"{seed}:{' '.join(text.lower().split())}")[:16], 16) / 2**64
    if place < test_fraction:
        return "test"
    return "validation" if place < test_fraction + validation_fraction else "train"


def flite_version() -> str:
    """First words of `flite --version`, such as 'flite-2.2-current Sep 2018'.

    Raises:
        DataError: the program is not installed.
    """
    if shutil.which("flite") is None:
        raise DataError("the program 'flite' is not installed", hint="apt-get install flite (or brew install flite)")
    # flite prints its version and exits with 1.
    done = subprocess.run(["flite", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version: (\S+ \w+ \d{4})", done.stdout + done.stderr)
    return found.group(1) if found else "unknown"


def check_voice(voice: str) -> None:
    """Raise DataError unless `flite -lv` lists `voice`: flite itself would quietly speak with another one."""
    done = subprocess.run(["flite", "-lv"], capture_output=True, text=True, check=False)
    voices = done.stdout.partition(":")[2].split()
    if voice not in voices:
        raise DataError(f"flite has no voice '{voice}'", hint=f"voices: {', '.join(sorted(set(voices)))}")


def allowed_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _open_folder(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Make the folder, or check that what is there was made by the same recipe."""
    card = folder / "card.json"
    if card.exists():
        try:
            found = json.loads(card.read_text(encoding="utf-8")).get("recipe", {})
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"'{card}' is not JSON", hint="choose another folder") from error
        different = sorted(key for key in recipe if found.get(key) != recipe[key])
        if different:
            raise DataError(
                f"'{folder}' holds a corpus made with another {', '.join(different)}", hint="choose another folder"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(f"'{folder}' is not empty and holds no corpus of ours", hint="choose another folder")
    try:
        (folder / "wavs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make '{folder}': {error.strerror}", hint="choose a folder you can write") from error
    if not card.exists():
        write_text(card, json.dumps({"status": "unfinished", "recipe": recipe}, indent=1) + "\n")


def _finished(folder: Path) -> dict[str, dict[str, Any]]:
    """Sentences of earlier calls: recorded, and their wav is there (it is written first, so it is whole)."""
    rows: dict[str, dict[str, Any]] = {}
    for name in ("phones.jsonl", _JOURNAL):
        path = folder / name
        if path.exists():
            rows.update((row["id"], row) for row in read_jsonl(path, torn_tail=name == _JOURNAL))
    journal = folder / _JOURNAL
    if journal.exists():  # drop a torn last line, or the next record would be glued to it
        write_jsonl(journal, rows.values())
    return {name: row for name, row in rows.items() if (folder / "wavs" / f"{name}.wav").is_file()}


def _render_all(
    todo: Sequence[tuple[str, str, Path]], settings: RenderSettings, jobs: int | None, progress: bool
) -> Iterator[list[dict[str, Any]]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rlzoo.speech.corpus._render import render_many

    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    workers = min(jobs or allowed_cores(), max(1, len(chunks)))
    columns = (TextColumn("speaking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress or not todo) as bar:
        task = bar.add_task("speaking", total=len(todo))
        if workers == 1:
            for chunk in chunks:
                yield render_many(chunk, settings)
                bar.advance(task, len(chunk))
            return
        # spawn: a forked child of a process that has used torch's threads can hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures: list[Future[list[dict[str, Any]]]] = [
                pool.submit(render_many, chunk, settings) for chunk in chunks
            ]
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


def _write_lists(folder: Path, rows: Sequence[Mapping[str, Any]], seed: int, validation: float, test: float) -> None:
    write_jsonl(folder / "phones.jsonl", rows)
    write_text(folder / "metadata.csv", "".join(f"{r['id']}|{r['text']}|{r['words']}\n" for r in rows))
    names: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        split = split_of(row["text"], seed=seed, validation_fraction=validation, test_fraction=test)
        names[split].append(row["id"])
    for split, ids in names.items():
        write_text(folder / f"{split}.txt", "".join(f"{name}\n" for name in ids))


def _write_card(folder: Path, rows: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> None:
    import soundfile

    from rlzoo.speech.corpus._render import RenderSettings, command

    counts = Counter(phone for row in rows for phone in row["phones"])
    splits = {name: len((folder / f"{name}.txt").read_text().split()) for name in ("train", "validation", "test")}
    settings = RenderSettings(
        voice=recipe["voice"], sample_rate=None, features=tuple((key, value) for key, value in recipe["features"])
    )
    card = {
        "status": "complete",
        "sample_rate": soundfile.info(folder / "wavs" / f"{rows[0]['id']}.wav").samplerate,
        "sentences": len(rows),
        "hours": round(sum(row["seconds"] for row in rows) / 3600, 4),
        "splits": splits,
        "phones": dict(sorted(counts.items())),
        "silence": "sil",
        "command": " ".join(command("TEXT", "WAV", settings, "-psdur")),
        "text_sha256": _digest("\n".join(sorted(row["text"] for row in rows))),
        "python": sys.version.split()[0],
        "recipe": recipe,
    }
    write_text(folder / "card.md", _card_text(card))
    write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")


def _card_text(card: Mapping[str, Any]) -> str:
    recipe, splits = card["recipe"], card["splits"]
    pitch = f"flattened to {recipe['monotone_hertz']} Hz with WORLD" if recipe["monotone_hertz"] else "flite's own"
    phones = ", ".join(f"{phone} {count}" for phone, count in card["phones"].items())
    return f"""# Corpus: flite voice `{recipe["voice"]}` at {card["sample_rate"]} Hz

| | |
|---|---|
| sentences | {card["sentences"]} ({", ".join(f"{name} {size}" for name, size in splits.items())}) |
| hours | {card["hours"]:.2f} |
| voice, program | {recipe["voice"]}, {recipe["flite_version"]} |
| command per sentence | `{card["command"]}` |
| pitch | {pitch} |
| text, SHA-256 of the sorted sentences | `{card["text_sha256"]}` |

Synthetic speech: one utterance per sentence, nothing trimmed, resampled with a linear-phase low-pass when the rate
differs from the voice's own. Phone times are flite's own and exact to a millisecond. A sentence's split is a hash of
its text and the seed {recipe["seed"]}.

Phones ({len(card["phones"])}): {phones}
"""
