"""Every reader against damaged and hostile files: an error of ours or a value, within bounds on time and memory.

The default run tries a few files per reader, the same ones each time; `make fuzz` tries thousands of new ones and
prints per reader how many were tried, read, refused and bad.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sqlite3
import struct
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from bench_tools import document
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rlzoo_f5tts.checkpoint import read_model, read_vocoder, write_model
from rlzoo_f5tts.mel import Vocos
from rlzoo_f5tts.network import DiT, DiTConfig
from rlzoo_preference.encoders import EncoderSettings
from rlzoo_preference.model import Head
from rlzoo_preference.model import load as load_preference
from rlzoo_preference.model import save as save_preference
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.network import WaveGrad2Network
from tiny_wavegrad2 import TINY

from rlzoo.audio import read_audio
from rlzoo.bench import collect, report
from rlzoo.bench.compare import evaluated
from rlzoo.bench.jobs import Job, read_outcome
from rlzoo.bench.suite import load as load_suite
from rlzoo.bench.summary import Summary
from rlzoo.config.layers import override, read
from rlzoo.config.opening import open_run
from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine import checkpoint
from rlzoo.engine.loop import train
from rlzoo.engine.report import write_plot, write_report
from rlzoo.errors import RlzooError
from rlzoo.files.evaluations import read_evaluations, read_index
from rlzoo.files.rundir import RunDirectory
from rlzoo.files.safepickle import load_untrusted
from rlzoo.listen.export import pairs
from rlzoo.listen.prepare import prepare
from rlzoo.listen.report import report as count
from rlzoo.listen.sources import open_sources
from rlzoo.listen.study import DATABASE, Settings, Study
from rlzoo.preferences import read_preferences
from rlzoo.pretraining.loop import read_log
from rlzoo.speech.corpus.align import read_pronunciations
from rlzoo.speech.corpus.metadata import read_metadata
from rlzoo.speech.corpus.speech import SpeechCorpus
from rlzoo.speech.corpus.textgrids import read_textgrid, write_textgrid
from rlzoo.testing.toy_runs import start, toy_run

TRIES = int(os.environ.get("RLZOO_FUZZ", "0"))
"""Files per reader; 0: the few of the default run."""
SECONDS = 2.0
"""Of processor time for one file of a few kilobytes."""
MEMORY = 400 << 20
"""Bytes by which one test's files may make the process grow."""

# --- files -----------------------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**31, 2**63, -(10**30), 10**400, 1e300, 0.5, float("nan"), float("inf")]),
    st.sampled_from(["", "x", "../x", "/etc/passwd", "a\0b", "\ud800", "é" * 50, "0" * 5000, "-1", "nan", "step"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document has a value."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


@st.composite
def documents(draw: st.DrawFn, valid: Any) -> Any:
    """A document with up to three values replaced, removed or added."""
    changed = deepcopy(valid)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(changed))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return draw(VALUES)
            continue
        *above, last = path
        parent = changed
        for key in above:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                parent[last] = draw(VALUES)
            case "remove":
                del parent[last]
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=5))] = draw(VALUES)
            case _:
                parent.insert(last, deepcopy(parent[last]))
    return changed


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes cut, changed, repeated or put in; now and then none of the valid ones."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(["cut", "set", "put", "repeat", "number"])):
            case "cut":
                end = place + draw(st.integers(1, 40))
                del content[place : end if draw(st.integers(0, 3)) else None]
            case "set" if content:
                content[place] = draw(st.integers(0, 255))
            case "put":
                piece = st.binary(max_size=8) | st.sampled_from(
                    [b"\n", b"|", b"[" * 3000, b"\0", b"\xff\xfe", b"9" * 5000]
                )
                content[place:place] = draw(piece)
            case "repeat":
                content[place:place] = content[place : place + draw(st.integers(1, 40))] * draw(st.integers(1, 30))
            case "number":
                number = draw(st.sampled_from([0, 1, 0x7FFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 2**20]))
                content[place : place + 4] = struct.pack("<I", number)
    return bytes(content)


def lines(rows: list[Any]) -> st.SearchStrategy[bytes]:
    """JSON lines with one document changed, or with damaged bytes."""
    return documents(rows).map(as_lines) | damaged(as_lines(rows))


def as_lines(rows: Any) -> bytes:
    return b"".join(as_json(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows]))


def json_file(valid: Any) -> st.SearchStrategy[bytes]:
    return documents(valid).map(as_json) | damaged(as_json(valid))


def safetensors_file(valid: bytes) -> st.SearchStrategy[bytes]:
    """The header changed as a document, its length told rightly, or bytes damaged."""
    size = int.from_bytes(valid[:8], "little")
    header, rest = json.loads(valid[8 : 8 + size]), valid[8 + size :]

    def packed(value: Any) -> bytes:
        content = as_json(value)
        return len(content).to_bytes(8, "little") + content + rest

    about = {key: json.loads(text) for key, text in header.get("__metadata__", {}).items() if text[:1] == "{"}

    def described(value: Any) -> bytes:
        texts = {key: json.dumps(item) for key, item in value.items()} if isinstance(value, dict) else {}
        return packed({**header, "__metadata__": {**header.get("__metadata__", {}), **texts}})

    return documents(header).map(packed) | documents(about).map(described) | damaged(valid)


def zip_file(valid: bytes) -> st.SearchStrategy[bytes]:
    """The pickle in the archive damaged, its checksum right, or the archive damaged."""
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in parts if name.endswith("data.pkl"))

    def packed(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as made:
            for part, old in parts.items():
                made.writestr(part, content if part == name else old)
        return buffer.getvalue()

    opcodes = st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [b"c__builtin__\neval\n"]), max_size=60)
    made_up = opcodes.map(lambda codes: b"\x80\x02" + b"".join(codes) + b".")
    return damaged(parts[name]).map(packed) | made_up.map(packed) | damaged(valid)


# --- readers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """What reads the file at `path` and which files it is given."""

    valid: bytes
    files: st.SearchStrategy[bytes]
    path: Path
    read: Callable[[], object]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = toy_run(
        train={"steps": 2, "eval_every": 1, "self_checks": False}, eval={"prompts": 2, "samples_per_prompt": 1}
    )
    rundir = start(run, tmp_path_factory.mktemp("fuzz") / "run")
    train(run, rundir)
    return rundir.path


def json_readers(run: Path) -> dict[str, Reader]:
    rundir = RunDirectory(run)

    def reader(name: str, read: Callable[[], object]) -> Reader:
        valid = (run / name).read_bytes()
        return Reader(valid, json_file(json.loads(valid)), run / name, read)

    def of_lines(name: str, rows: list[Any], read: Callable[[], object]) -> Reader:
        return Reader(as_lines(rows), lines(rows), run / name, read)

    registry = toy_run_registry()
    job = Job("a", run, (), 1)
    job.beside("").parent.mkdir()
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    index = [json.loads(line) for line in (run / "samples/000002/index.jsonl").read_text().splitlines()]
    for row in index:
        row["attributes"] = {"style": "calm"}
    log = [{"step": 1, "seconds": 0.1, "loss": 0.5}, {"step": 2, "seconds": 0.2, "validation/mcd": 3.0}]
    return {
        "config.json": reader("config.json", lambda: ResolvedRun.from_dict(rundir.config(), registry)),
        "config.json of a stranger": reader("config.json", lambda: open_run(rundir)),
        "status.json": reader("status.json", lambda: (rundir.status(), evaluated(run))),
        "env.json": reader("env.json", lambda: evaluated(run)),
        "eval/*.json": reader("eval/000002.json", lambda: (read_evaluations(run), evaluated(run))),
        "metrics.jsonl": of_lines("metrics.jsonl", metrics, lambda: evaluated(run)),
        "index.jsonl": of_lines("index.jsonl", index, lambda: read_index(run / "index.jsonl")),
        "outcome": Reader(as_json(OUTCOME), json_file(OUTCOME), run / "cells/a.json", lambda: read_outcome(job)),
        "report": reader("eval/000002.json", lambda: write_report(rundir)),
        "plot": of_lines("metrics.jsonl", metrics, lambda: write_plot(rundir)),
        "DONE": reader("checkpoints/000002/DONE", lambda: checkpoint._verify(run / "checkpoints/000002")),
        "train.jsonl": of_lines("train.jsonl", log, lambda: read_log(run / "train.jsonl")),
    }


OUTCOME = {
    "key": "a",
    "state": "done",
    "exit_code": 0,
    "seconds": 1.5,
    "memory_mb": 800.0,
    "gpu_memory_mb": None,
    "attempts": 1,
    "error": "",
}


def toy_run_registry() -> Any:
    from rlzoo.config.registry import discover
    from rlzoo.testing import toy_runs

    return discover(files=[Path(toy_runs.__file__)])


def other_readers(folder: Path, run: Path) -> dict[str, Reader]:
    found: dict[str, Reader] = {}

    def add(
        label: str,
        name: str,
        valid: bytes,
        kind: Callable[[bytes], st.SearchStrategy[bytes]],
        read: Callable[[Path], object],
    ) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        found[label] = Reader(valid, kind(valid), folder / name, lambda: read(folder / name))

    def of_json(valid: bytes) -> st.SearchStrategy[bytes]:
        return json_file(json.loads(valid))

    def of_lines(valid: bytes) -> st.SearchStrategy[bytes]:
        return lines([json.loads(line) for line in valid.splitlines()])

    add("run TOML", "run.toml", TOML, damaged, read)
    add("--set", "set.txt", b'train={steps=3, device="cpu"}', damaged, set_option)
    add("suite TOML", "suite.toml", SUITE_TOML, damaged, lambda path: load_suite(str(path)).cells())
    results = as_json(document({"a": 0.1, "b": 0.2}, {"a": 0.1, "b": 0.2}, seeds=(0, 1)))
    add("results.json", "results.json", results, of_json, tables)
    saved = (run / "checkpoints/000002/engine.pt").read_bytes()
    add("checkpoint", "engine.pt", saved, zip_file, checkpoint._load)
    add("untrusted checkpoint", "x.ckpt", saved, zip_file, load_untrusted)
    add("voice", "v.safetensors", voice(folder), safetensors_file, VOICES.load)
    add(
        "preference model",
        "p.safetensors",
        preference(folder),
        safetensors_file,
        lambda p: load_preference(p, {"log-mel": 3}),
    )
    add("F5-TTS model", "f.safetensors", f5_model(folder), safetensors_file, read_model)
    add("vocoder", "w.safetensors", vocoder(), safetensors_file, read_vocoder)
    add("WAV", "a.wav", sound("WAV"), damaged, lambda path: read_audio(path, 16_000, on_rate="resample"))
    add("FLAC", "a.flac", sound("FLAC"), damaged, read_audio)
    write_textgrid(folder / "t.TextGrid", ["AH0", "sil", "B"], [0.1, 0.25, 0.4])
    add("TextGrid", "t.TextGrid", (folder / "t.TextGrid").read_bytes(), damaged, read_textgrid)
    texts = "a1|It is 3:30.|it is three thirty\na2|Schön.|schön\n".encode()
    add("metadata.csv", "metadata.csv", texts, damaged, read_metadata)
    phones = as_lines([{"id": "a1", "phones": ["sil", "AH0", "sil"], "ends": [0.02, 0.05, 0.1]}])
    (folder / "corpus/wavs").mkdir(parents=True)
    (folder / "corpus/wavs/a1.wav").write_bytes(sound("WAV"))
    (folder / "corpus/metadata.csv").write_text("a1|A.|a\n")
    add("phones.jsonl", "corpus/phones.jsonl", phones, of_lines, lambda path: list(SpeechCorpus.open(path.parent)))
    pair = {
        "prompt": {"id": "hi", "text": "Hi."},
        "preferred": "q1.wav",
        "rejected": "q2.wav",
        "rater": "1",
        "tie": False,
    }
    for name in ("q1", "q2"):
        (folder / f"{name}.wav").write_bytes(sound("WAV"))
    add("preferences", "pairs.jsonl", as_lines([pair, pair]), of_lines, read_preferences)
    words = b"hello HH AH0 L OW1\nworld W ER1 L D ;;; x\n"
    add("pronunciations", "words.dict", words, damaged, read_pronunciations)
    add("listening test", f"study/{DATABASE}", study(folder), damaged, look_at_study)
    return found


TOML = b"""seed = 1
[policy]
name = "wavegrad2"
[[rewards]]
name = "dnsmos"
weight = 2.0
[train]
steps = 3
"""
SUITE_TOML = b"""name = "tiny"
summary = "two"
seeds = [0, 1]
[[rewards]]
label = "toy"
terms = ["guard"]
[run.train.budget]
samples = 16
[[algorithms]]
name = "ddpo"
"""


def set_option(path: Path) -> object:
    return override({}, path.read_bytes().decode("latin-1"))


def tables(path: Path) -> object:
    found = Summary(collect.read(path))
    return report.table(found, "md"), report.rows_csv(found), [report.findings(section) for section in found.sections]


def f5_model(folder: Path) -> bytes:
    config = DiTConfig(dim=64, depth=1, heads=1, ff=8, text_dim=4, text_blocks=1, text_ff=4, vocabulary=9)
    write_model(folder / "made.safetensors", DiT(config), config, {"step": 7})
    return (folder / "made.safetensors").read_bytes()


def vocoder() -> bytes:
    from safetensors.torch import save

    return save(Vocos(8, 16, 1).state_dict(), {"format": "pt"})


def voice(folder: Path) -> bytes:
    path = folder / "made.safetensors"
    VOICES.save(path, WaveGrad2Network(TINY).state_dict(), {"network": TINY.model_dump(), "text": "flite"})
    return path.read_bytes()


def preference(folder: Path) -> bytes:
    settings_ = EncoderSettings(name="log-mel", level_dbfs=-26.0, layer=0, sha256="")
    save_preference(folder / "made.safetensors", Head(3, 4), settings_, 4, {})
    return (folder / "made.safetensors").read_bytes()


def sound(kind: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.sin(np.arange(800) / 5), 8000, format=kind, subtype="PCM_16")
    return buffer.getvalue()


def study(folder: Path) -> bytes:
    """A listening test with an answer."""
    for side in ("one", "two"):
        (folder / side).mkdir()
        wave = np.random.default_rng(len(side) + ord(side[0])).normal(0, 0.1, 4000)
        for name in ("p", "q"):
            soundfile.write(folder / side / f"{name}.wav", wave, 8000)
    a, b = open_sources([folder / "one", folder / "two"])
    made = prepare(folder / "made", a, b, Settings(pairs=2, repeats=0, anchors=0))
    rater = made.rater(made.join("Ann"))
    assert rater is not None
    trial = made.current(rater.id)
    assert trial is not None
    made.answer(rater.id, trial.id, "first", 1.0, 2)
    made.close()
    connection = sqlite3.connect(folder / "made" / DATABASE)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return (folder / "made" / DATABASE).read_bytes()


def look_at_study(path: Path) -> object:
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with closing(Study.open(path.parent)) as found:
        return count(found), pairs(found, set())


# --- tests -----------------------------------------------------------------------------------------------------------


class Endless(BaseException):
    """A reader did not come to an end."""


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """At most so many seconds of the processor, and so much more memory; else an error that no reader expects."""

    def ring(*_: object) -> None:
        raise Endless(f"no end after {seconds} s")

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, ring)
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, before[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(label: str, reader: Reader, tries: int) -> None:
    """Raises AssertionError that names the first files that were neither read nor refused, and keeps them."""
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    before = reader.path.read_bytes() if reader.path.exists() else None
    if label != "config.json of a stranger":
        reader.path.write_bytes(reader.valid)
        reader.read()
    fixed = settings(max_examples=tries, derandomize=not TRIES, deadline=None, database=None, phases=[Phase.generate])

    @settings(fixed, suppress_health_check=list(HealthCheck))
    @given(content=reader.files)
    def check(content: bytes) -> None:
        reader.path.write_bytes(content)
        counted["tried"] += 1
        started = time.process_time()
        try:
            with bounded(5 * SECONDS):
                reader.read()
            kind = "read"
        except RlzooError:
            kind = "refused"
        except (Exception, Endless):
            kind = traceback.format_exc(limit=-4)
        if (took := time.process_time() - started) > SECONDS:
            kind = f"{took:.1f} s"
        if kind not in ("read", "refused"):
            kept = reader.path.with_name(f"bad-{counted['bad']}-{reader.path.name}")
            kept.write_bytes(content)
            wrong.append(f"{kept}\n{kind}")
            kind = "bad"
        counted[kind] += 1

    check()
    if before is not None:
        reader.path.write_bytes(before)
    figures = ", ".join(f"{name} {counted[name]}" for name in ("tried", "read", "refused", "bad"))
    print(f"{label}: {figures}")
    assert not wrong, f"{label}: {figures}\n" + "\n".join(wrong[:4])


JSON_READERS = (
    "config.json",
    "config.json of a stranger",
    "status.json",
    "env.json",
    "eval/*.json",
    "metrics.jsonl",
    "index.jsonl",
    "outcome",
    "report",
    "plot",
    "DONE",
    "train.jsonl",
)
OTHER_READERS = (
    "run TOML",
    "--set",
    "suite TOML",
    "results.json",
    "checkpoint",
    "untrusted checkpoint",
    "voice",
    "preference model",
    "F5-TTS model",
    "vocoder",
    "WAV",
    "FLAC",
    "TextGrid",
    "metadata.csv",
    "phones.jsonl",
    "preferences",
    "pronunciations",
    "listening test",
)
SLOW = {"suite TOML": 10, "config.json of a stranger": 10, "plot": 5}
"""Fewer files for what takes longer: looking for plugins, drawing."""


@pytest.fixture(scope="module")
def readers(run_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    found = json_readers(run_directory)
    assert tuple(found) == JSON_READERS
    others = other_readers(tmp_path_factory.mktemp("readers"), run_directory)
    assert tuple(others) == OTHER_READERS
    return found | others


@pytest.mark.parametrize("label", [*JSON_READERS, *OTHER_READERS])
def test_a_reader_reads_or_refuses(label: str, readers: dict[str, Reader]) -> None:
    few = SLOW.get(label, 25)
    fuzz(label, readers[label], TRIES * few // 25 if TRIES else few)


def test_the_fuzzing_notices_a_reader_that_fails(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"[1]")
    careless = Reader(
        b"[1, 2]", json_file([1, 2]), tmp_path / "x", lambda: json.loads((tmp_path / "x").read_bytes())[0]
    )
    with pytest.raises(AssertionError, match="TypeError"):
        fuzz("careless", careless, 50)
    endless = Reader(
        b"[1, 2]",
        json_file([1, 2]),
        tmp_path / "x",
        lambda: bytearray(1 << (40 if (tmp_path / "x").read_bytes() != b"[1, 2]" else 0)),
    )
    with pytest.raises(AssertionError, match="MemoryError"):
        fuzz("endless", endless, 5)
