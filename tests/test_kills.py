"""Killed at any file operation, or with the disk full at any size: what was there is whole, and going on loses nothing.

The default run takes a sample of the points of the cheap commands; `-m slow` takes every point of all of them, and
prints how many there were.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from bench_tools import SUITE, here, suite_file
from kills import End, Operation, Point, points, run, spread, strays
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.network import PRESETS
from rlzoo_wavegrad2.pretrain import pretrain
from rlzoo_wavegrad2.tune import tune_schedule
from tiny_wavegrad2 import TINY, make_tones

from rlzoo.assets import Asset
from rlzoo.audio import write_audio
from rlzoo.bench.jobs import execute, make
from rlzoo.bench.suite import load
from rlzoo.engine import plot
from rlzoo.engine.loop import train
from rlzoo.errors import DataError
from rlzoo.files import assets
from rlzoo.files.rundir import RunDirectory, is_torn
from rlzoo.speech.corpus import align
from rlzoo.speech.corpus.engines import Engine, Spoken
from rlzoo.speech.corpus.speak import Recipe, speak_corpus
from rlzoo.testing.toy_runs import start, toy_run

SAMPLE = 4
"""Points of a command in the default run."""


@dataclass(frozen=True)
class Command:
    """What is killed, and what it should leave."""

    work: Callable[[], object]
    """Begins or, if it was begun, goes on, as somebody does who follows the messages."""
    place: Path
    """Folder that it writes in."""
    found: Callable[[], Any]
    """What it has left, without times."""
    before: Callable[[], object] = lambda: None
    """Makes what has to be in `place` before the first call."""

    def reset(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.before()

    def whole(self) -> tuple[Any, tuple[Operation, ...]]:
        """What is left if nothing disturbs it, and its file operations."""
        self.reset()
        self.work()  # what is imported here, no child has to import
        self.reset()
        end = run(self.work, self.place)
        assert end.code == 0, end.error
        return self.found(), end.operations

    def check_kills(self, most: int | None = None) -> None:
        """Kill it at every point, or at `most`, and go on each time."""
        expected, operations = self.whole()
        every = points(operations)
        chosen = every if most is None else spread(every, most)
        for point in chosen:
            self.reset()
            killed = run(self.work, self.place, point)
            assert killed.code == -9, (point, operations[point.number], killed.error)
            self.check_goes_on(expected, (point, operations[point.number]))
        print(f"{len(chosen)} of {len(every)} kills at {len(operations)} operations: all went on, identical")

    def check_full_disks(self, most: int | None = None) -> None:
        """Let the disk be full before, and in the middle of, every write, and go on each time with room again."""
        expected, operations = self.whole()
        rooms, written = [], 0
        for one in operations:
            if one.kind == "write":
                rooms += [written, written + one.size // 2] if one.size > 1 else [written]
                written += one.size
        chosen = rooms if most is None else spread(rooms, most)
        for room in chosen:
            self.reset()
            full = run(self.work, self.place, room=room)
            assert_says_full(full, room)
            self.check_goes_on(expected, room)
        print(f"{len(chosen)} of {len(rooms)} full disks: one error each, all went on, identical")

    def check_goes_on(self, expected: Any, where: object) -> None:
        again = run(self.work, self.place)
        assert again.code == 0, (where, again.error)
        assert strays(self.place) == [], where
        assert self.found() == expected, where


def assert_says_full(end: End, room: int) -> None:
    assert end.code == 4, (room, end.error)
    assert end.error.count("DataError: ") == 1, (room, end.error)
    assert "No space left on device" in end.error, (room, end.error)
    assert "hint: " in end.error


def files(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]


def timeless(value: Any) -> Any:
    """What torch has saved as values that can be compared, without its clock."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if "seconds" not in str(key)}
    if isinstance(value, list | tuple):
        return [timeless(item) for item in value]
    return (str(value.dtype), value.tolist()) if isinstance(value, torch.Tensor) else value


# --- rlzoo run -------------------------------------------------------------------------------------------------------


@cache
def toy() -> Any:
    return toy_run(
        train={"steps": 3, "eval_every": 2, "save_every": 1, "keep_checkpoints": 1, "self_checks": False},
        eval={"prompts": 2, "samples_per_prompt": 1},
    )


def start_or_resume(path: Path) -> None:
    """`--resume`, and where that says that nothing is there, `--out` again."""
    try:
        rundir = RunDirectory.open(path)
    except DataError:
        assert not path.exists() or not any(path.iterdir()) or is_torn(path)
        rundir = start(toy(), path)
        with rundir.lock():
            train(toy(), rundir)
        return
    with rundir.lock():
        train(toy(), rundir, resume=True)


def left_by_run(path: Path) -> dict[str, Any]:
    """Everything, weights and optimiser included, except how long it took and when; the log tells how it came about."""
    rundir = RunDirectory.open(path)
    found: dict[str, Any] = {
        "metrics": without_times(rundir.metrics()),
        "state": rundir.status()["state"],
        "config": rundir.config(),
    }
    for name, content in files(path).items():
        if name.endswith("engine.pt"):
            found[name] = timeless(torch.load(path / name, weights_only=True))
        elif name.endswith("DONE"):
            found[name] = {key: value for key, value in json.loads(content).items() if key != "engine.pt"}
        elif name == "env.json":
            found[name] = {key: value for key, value in json.loads(content).items() if key != "started"}
        elif name not in ("metrics.jsonl", "status.json", "config.json", "log.txt", ".lock"):
            found[name] = content.replace(str(path).encode(), b"")
    return found


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the run, and the same run gives the same picture: it is drawn before anything forks."""
    drawn: dict[str, bytes] = {}
    draw = plot.render

    def render(metrics: list[dict[str, Any]], evaluations: list[dict[str, Any]], title: str) -> bytes:
        key = repr((without_times(metrics), evaluations, title))
        return drawn.get(key) or drawn.setdefault(key, draw(metrics, evaluations, title))

    monkeypatch.setattr(plot, "render", render)


@pytest.fixture
def toy_command(tmp_path: Path, drawn_once: None) -> Command:
    path = tmp_path / "run"
    return Command(lambda: start_or_resume(path), path, lambda: left_by_run(path))


# --- rlzoo bench run -------------------------------------------------------------------------------------------------


@pytest.fixture
def bench_command(tmp_path: Path, drawn_once: None) -> Command:
    text = SUITE.replace("seeds = [0, 1]", "seeds = [0]").replace("samples = 16", "samples = 8")
    suite, place = load(str(suite_file(tmp_path, text))), tmp_path / "grid"

    def work() -> None:
        for cell in suite.cells()[:1]:
            outcome = execute(make(suite, cell, place), here)
            if outcome.state != "done":
                raise DataError(outcome.error, "none")

    def found() -> Any:
        (cell,) = place.glob("cells/*.json")
        outcome = json.loads(cell.read_text())
        (run_folder,) = place.glob("runs/*")
        return {key: outcome[key] for key in ("key", "state", "exit_code", "error")}, left_by_run(run_folder)

    return Command(work, place, found)


# --- rlzoo pretrain and tune-schedule --------------------------------------------------------------------------------

OPTIONS = {
    "text_style": "cmu",
    "preset": "tiny",
    "utterances_per_step": 1,
    "windows_per_utterance": 1,
    "window_frames": 12,
    "precision": "fp32",
    "log_every": 1,
    "save_every": 1,
    "validate_every": 2,
    "validation_utterances": 1,
    "validation_steps": (2,),
    "steps": 3,
}


@pytest.fixture
def tones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return make_tones(tmp_path / "corpus", {"train": (0, 1, 3), "validation": (2,), "test": ()})


def left_by_pretraining(out: Path) -> dict[str, Any]:
    state = timeless(torch.load(out / "train.pt", weights_only=True))
    log = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    voice = (out / "voice.safetensors").read_bytes()
    size = 8 + int.from_bytes(voice[:8], "little")  # the header's card has the minutes
    others = {name: content for name, content in files(out).items() if name.startswith("validation/")}
    return {"state": state, "log": without_times(log), "voice": voice[size:], **others}


@pytest.fixture
def pretrain_command(tmp_path: Path, tones: Path) -> Command:
    out = tmp_path / "voice"
    options = PretrainOptions(**OPTIONS)
    return Command(
        lambda: pretrain(tones, out, options, resume=(out / "train.pt").exists()), out, lambda: left_by_pretraining(out)
    )


@pytest.fixture
def tune_command(tmp_path: Path, tones: Path) -> Command:
    made = pretrain(tones, tmp_path / "voice", PretrainOptions(**OPTIONS | {"steps": 1}))
    place = tmp_path / "tuned"
    voice = place / "voice.safetensors"

    def before() -> None:
        place.mkdir()
        shutil.copyfile(made, voice)

    return Command(lambda: tune_schedule(voice, tones, [3, 2], utterances=1), place, lambda: files(place), before)


# --- rlzoo corpus ----------------------------------------------------------------------------------------------------


class Tone(Engine):
    """A voice that hums each letter."""

    name = "tone"
    licence = "none"
    times = "the engine"
    label = "tone"

    def version(self) -> str:
        return "1"

    def speak(self, text: str) -> Spoken:
        letters = [letter for letter in text.lower() if letter.isalpha()]
        pitch = np.repeat([200.0 + 20 * (ord(letter) - 97) for letter in letters], 400)
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(pitch) / 8000)
        ends = [0.05 * (number + 1) for number in range(len(letters))]
        return Spoken(wave, 8000, text.lower(), ["AA1"] * len(letters), ends)


SENTENCES = [f"{word} cat." for word in ("one", "two", "three")]


def left_by_corpus(place: Path) -> Any:
    return {name: content for name, content in files(place).items() if not name.startswith(".")}


@pytest.fixture
def speak_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    from rlzoo.speech.corpus import speak

    monkeypatch.setattr(speak, "_CHUNK", 1)  # a line of the journal for each sentence
    place, recipe = tmp_path / "corpus", Recipe(Tone(), conditions="found")
    return Command(
        lambda: speak_corpus(SENTENCES, place, recipe, jobs=1, progress=False), place, lambda: left_by_corpus(place)
    )


@pytest.fixture
def align_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """With phones in equal parts of the recording: what is heard where is not what this is about."""

    def equal(self: object, text: str, wave: Any, rate: int) -> align.Alignment:
        ends = [round(len(wave) / rate * (n + 1) / len(text), 3) for n in range(len(text))]
        return align.Alignment(["AA1"] * len(text), ends, -9.0, "half of it is missing" if "two" in text else "")

    monkeypatch.setattr(align.Aligner, "align", equal)
    made, place = tmp_path / "made", tmp_path / "corpus"
    for number in range(3):
        write_audio(made / "wavs" / f"u{number}.wav", 0.1 * torch.ones(800), 8000)
    (made / "metadata.csv").write_text("".join(f"u{n}|{text}\n" for n, text in enumerate(SENTENCES)))

    def work() -> None:
        if not (place / "phones.jsonl").exists() or (place / "align.jsonl").exists():
            align.align_corpus(place, overwrite=True, progress=False)

    return Command(work, place, lambda: left_by_corpus(place), lambda: shutil.copytree(made, place))


# --- rlzoo assets pull -----------------------------------------------------------------------------------------------

CONTENT = bytes(range(256)) * 700


@pytest.fixture
def pull_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            self.wfile.write(CONTENT[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RLZOO_OFFLINE", raising=False)
    # Pieces of one size: as they come, another run would have another number of writes to be killed at.
    as_it_comes = httpx.Response.iter_raw
    monkeypatch.setattr(httpx.Response, "iter_raw", lambda response: as_it_comes(response, 51_200))
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    asset = Asset(
        name="toy",
        url=f"http://127.0.0.1:{http.server_port}/weights.pt",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="MIT",
        commercial_use=True,
        source="this test",
    )
    yield Command(
        lambda: assets.fetch(asset),
        tmp_path / "cache",
        lambda: {name: content for name, content in files(tmp_path / "cache").items() if not name.endswith(".lock")},
    )
    http.shutdown()
    http.server_close()
    thread.join()


CHEAP = ("toy_command", "speak_command", "pull_command")
COSTLY = ("bench_command", "pretrain_command", "tune_command", "align_command")


@pytest.mark.parametrize("name", CHEAP)
def test_a_sample_of_kills(name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name).check_kills(SAMPLE)


@pytest.mark.parametrize("name", CHEAP)
def test_a_sample_of_full_disks(name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name).check_full_disks(SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHEAP, *COSTLY])
def test_every_kill(name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name).check_kills()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHEAP, *COSTLY])
def test_every_full_disk(name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(name).check_full_disks()


def test_the_harness_kills_where_it_should(tmp_path: Path) -> None:
    """Nothing of the process runs after the kill, and a torn write leaves half of it."""
    place = tmp_path / "place"

    def work() -> None:
        place.mkdir()
        try:
            (place / "a").write_text("12345678")
        finally:
            (place / "b").touch()

    end = run(work, place)
    assert [one.kind for one in end.operations] == ["mkdir", "open", "write", "open"]
    left = []
    for point in points(end.operations):
        shutil.rmtree(place)
        assert run(work, place, point).code == -9
        left.append(files(place) if place.exists() else None)
        place.mkdir(exist_ok=True)
    assert points(end.operations) == [Point(0), Point(1), Point(2), Point(2, torn=True), Point(3)]
    assert left == [None, {}, {"a": b""}, {"a": b"1234"}, {"a": b"12345678"}]
    shutil.rmtree(place)
    full = run(work, place, room=5)
    assert (full.code, files(place)) == (99, {"a": b"12345", "b": b""})
