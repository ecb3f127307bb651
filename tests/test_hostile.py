"""Run directories and files from somebody else, or damaged: they run nothing, and cost one line of explanation."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import rlzoo
from rlzoo import cli
from rlzoo.audio import read_audio, resample
from rlzoo.config.layers import override, read
from rlzoo.config.registry import Registry
from rlzoo.core.specs import KINDS
from rlzoo.engine.loop import train
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory
from rlzoo.testing.toy_runs import start, toy_run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command(*arguments)` -> (exit code, standard output, standard error), in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rlzoo", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = toy_run(train={"steps": 2, "self_checks": False})
    rundir = start(run, tmp_path_factory.mktemp("hostile") / "run")
    train(run, rundir)
    return rundir.path


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((run / "config.json").read_text())
    change(values)
    (run / "config.json").write_text(json.dumps(values))


def foreign(run: Path) -> Path:
    """As it arrives from somebody else: with a plugin of theirs, and a scorer that is a program."""
    evil = run / "evil.py"
    evil.write_text(f"open({str(run / 'PWNED')!r}, 'w')\n")
    scorer = {"name": "process", "requested": "process", "weight": 1.0, "command": ["touch", str(run / "PWNED")]}

    def change(values: dict[str, Any]) -> None:
        values["plugin_files"].append(str(evil))
        values["rewards"].append(scorer)

    edit(run, change)
    return run


READING = (
    ("synth", "--checkpoint", "RUN", "--text", "hi", "--out", "o.wav"),
    ("synth", "--checkpoint", "RUN/checkpoints/000002", "--text", "hi", "--out", "o.wav"),
    ("eval", "RUN"),
    ("eval", "RUN/checkpoints/000002"),
    ("eval", "RUN", "--base", "RUN"),
    ("noise-scale", "RUN", "--reward", "toy"),
    ("run", "--resume", "RUN", "--steps", "3"),
    ("run", "--resume", "RUN", "--device", "cpu"),
)
LOOKING = (
    ("compare", "RUN", "RUN"),
    ("listen", "RUN", "--port", "0", "--out", "study"),
    ("bench", "report", "tiny.toml", "--out", "grid"),
)


@pytest.mark.parametrize("arguments", READING)
def test_a_foreign_run_directory_runs_nothing(copy: Path, command: Command, arguments: tuple[str, ...]) -> None:
    foreign(copy)
    code, _, err = command(*(word.replace("RUN", str(copy)) for word in arguments))
    assert not (copy / "PWNED").exists()
    assert "Traceback" not in err
    assert code == 4
    assert "was not made by you on this machine" in err
    assert "--trust" in err
    assert "evil.py" in err


def test_all_that_a_foreign_run_would_do_is_named_at_once_and_as_it_is(copy: Path, command: Command) -> None:
    """Who has looked at the plugin and says --trust has been told of the program, too; and nothing hides a name."""
    foreign(copy)
    edit(copy, lambda values: values["plugin_files"].append("evil\x1b[2K\u202e.py"))
    code, _, err = command("eval", copy)
    assert code == 4
    assert "load the plugin" in err
    assert f"start a program ('process', command = ['touch', '{copy / 'PWNED'}'])" in err
    assert "evil\\u001b[2K\\u202e.py" in err
    assert "start a program" not in command("synth", "--checkpoint", copy, "--text", "hi", "--out", "o.wav")[2]


@pytest.mark.parametrize("arguments", LOOKING)
def test_looking_at_a_foreign_run_directory_runs_nothing(
    copy: Path, command: Command, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """These use its figures and recordings only, so that they neither ask nor refuse."""
    from rlzoo.listen import serve

    with_recordings(foreign(copy))
    as_a_cell(copy, Path("grid"))
    monkeypatch.setattr(serve, "serve", lambda study, listening, started: started())  # what follows is the raters'
    code, _, err = command(*(word.replace("RUN", str(copy)) for word in arguments))
    assert not (copy / "PWNED").exists()
    assert "Traceback" not in err
    match arguments[0]:
        case "compare":
            assert code == 0, err
        case "listen":
            assert code == 0, err
            assert Path("study/listen.sqlite").is_file()
        case "bench":
            assert code == 4
            assert "left out" in err or "no finished run" in err


def test_the_report_of_a_foreign_run_directory_runs_nothing(copy: Path) -> None:
    from rlzoo.engine.report import write_report

    foreign(copy)
    (copy / "report.html").unlink()
    write_report(RunDirectory.open(copy))
    assert not (copy / "PWNED").exists()
    assert (copy / "report.html").is_file()


def with_recordings(run: Path) -> None:
    """A toy has no audio: give it some, as a run that speaks leaves it."""
    for step in ("000000", "000002"):
        rows = [json.loads(line) for line in (run / f"samples/{step}/index.jsonl").read_text().splitlines()]
        for number, row in enumerate(rows):
            row["file"] = f"samples/{step}/{row['prompt']}-{row['index']}.wav"
            soundfile.write(run / row["file"], 0.1 * np.sin(np.arange(8000) / (5 + number + int(step))), 8000)
        (run / f"samples/{step}/index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_a_cell(run: Path, folder: Path) -> None:
    """The run as the only cell of a suite's folder, the suite beside it."""
    from bench_tools import SUITE

    Path("tiny.toml").write_text(SUITE)
    (folder / "runs").mkdir(parents=True)
    shutil.copytree(run, folder / "runs/ddpo--toy--0")


def test_a_foreign_run_without_plugins_may_be_heard_but_its_scorer_is_not_started(copy: Path, command: Command) -> None:
    """What a command does not use is not asked about; a scorer inside a composite reward is one, too."""
    foreign(copy)
    edit(copy, lambda values: values.update(plugin_files=[]))
    part = {"name": "process", "options": {"command": ["touch", str(copy / "PWNED")]}}
    from rlzoo.config.opening import open_run

    toys = toy_run().to_dict()["plugin_files"]
    code, _, _ = command("eval", copy, *(word for file in toys for word in ("--plugin", file)))
    assert code != 0
    assert not (copy / "PWNED").exists()
    for extra in ({"name": "process", "command": ["x"]}, {"name": "composite", "parts": [part]}):
        core = {"requested": extra["name"], "weight": 1.0, "on_missing": "error"}
        edit(copy, lambda values, extra=extra, core=core: values.update(rewards=[{**extra, **core}]))
        edit(copy, lambda values: values.update(policy={"name": "gradtts"}, prompts={"name": "short"}))
        edit(copy, lambda values: values.update(algorithm={"name": "nft"}, eval={}, rollout={}, train={}))
        rundir = RunDirectory.open(copy)
        assert open_run(rundir, uses=("policy",)).policy.spec.name == "gradtts"
        with pytest.raises(DataError, match=r"this would start a program .*command") as caught:
            open_run(rundir, uses=("policy", "rewards"))
        assert "--trust" in caught.value.hint
        assert open_run(rundir, uses=("rewards",), trust=True).rewards[0].spec.name == extra["name"]


def test_own_runs_are_known_wherever_they_lie(copy: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy, and a run whose values `--resume --steps` has changed, stay one's own; elsewhere they are foreign."""
    assert command("run", "--resume", copy, "--steps", 3, "--device", "cpu")[0] == 0
    assert RunDirectory.open(copy).is_own()
    assert command("eval", copy, "--device", "cpu")[0] == 0
    monkeypatch.setenv("XDG_STATE_HOME", str(copy / "elsewhere"))
    assert not RunDirectory.open(copy).is_own()
    assert command("eval", copy, "--device", "cpu")[0] == 4
    assert command("eval", copy, "--device", "cpu", "--trust")[0] == 0
    assert command("run", "--resume", copy, "--steps", 4, "--device", "cpu", "--trust")[0] == 0
    assert RunDirectory.open(copy).is_own()
    key = copy / "elsewhere" / "rlzoo" / "key"
    assert key.stat().st_mode & 0o77 == 0


def test_without_a_place_for_the_key_runs_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    rundir = start(toy_run(), tmp_path / "run")
    assert not rundir.is_own()
    assert rundir.config()["seed"] == 0


DEEP = "[" * 100_000 + "]" * 100_000
BAD_JSON = ("", "{", "[]", "null", '"x"', "{}", DEEP, '{"a":' * 300 + "1" + "}" * 300, "1" * 5000, "\udcff")


def overwrite(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", BAD_JSON)
def test_damaged_documents_are_one_line(copy: Path, command: Command, text: str, tmp_path: Path) -> None:
    """Each document of a run directory in turn; whoever reads it says which one is damaged."""
    for name, arguments in {
        "config.json": ("compare", copy, copy),
        "status.json": ("compare", copy, copy),
        "eval/000002.json": ("compare", copy, copy),
        "checkpoints/000002/DONE": ("eval", copy, "--device", "cpu"),
    }.items():
        if (name, text) == ("status.json", "{}"):
            continue
        kept = (copy / name).read_bytes()
        overwrite(copy / name, text)
        code, _, err = command(*arguments)
        assert (code, "Traceback" in err) == (4, False), (name, text[:20], err[-500:])
        assert Path(name).name in err.replace("'", "")
        (copy / name).write_bytes(kept)
    overwrite(tmp_path / "results.json", text)
    assert command("bench", "report", tmp_path / "results.json")[0] == 4


@pytest.mark.parametrize(
    "line", ["[]", "1", "{}", '{"step": "1"}', '{"step": 1, "x": "y"}', '{"step": 0}', DEEP, "{", "\udcff"]
)
def test_damaged_metrics_are_one_line(copy: Path, command: Command, line: str) -> None:
    text = (copy / "metrics.jsonl").read_text()
    overwrite(copy / "metrics.jsonl", line + "\n" + text)
    for arguments in (("compare", copy, copy), ("run", "--resume", copy, "--steps", 3)):
        code, _, err = command(*arguments)
        assert (code, "Traceback" in err) == (4, False), err[-500:]
        assert "metrics.jsonl" in err


def test_a_report_takes_nothing_from_outside_its_run(copy: Path, tmp_path: Path) -> None:
    from rlzoo.engine.report import write_report

    (copy / "eval/000002.json").read_text()
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, np.zeros(800), 8000)
    for file in ("../secret.wav", str(secret), "samples/../../secret.wav"):
        document = json.loads((copy / "eval/000002.json").read_text())
        document["rows"][0]["file"] = file
        (copy / "eval/000002.json").write_text(json.dumps(document))
        with pytest.raises(DataError, match="lies outside the run directory"):
            write_report(RunDirectory.open(copy))
    for name in ("eval/000000.json", "eval/000002.json"):
        document = json.loads((copy / name).read_text())
        document["rows"][0]["file"] = "link.wav"
        (copy / name).write_text(json.dumps(document))
    (copy / "link.wav").symlink_to(secret)
    with pytest.raises(DataError, match="lies outside the run directory"):
        write_report(RunDirectory.open(copy))


def test_a_report_takes_no_picture_from_outside_its_run(copy: Path) -> None:
    from rlzoo.engine.report import write_report

    (copy / "reward.png").unlink()
    (copy / "reward.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match=r"reward\.png' lies outside the run directory"):
        write_report(RunDirectory.open(copy))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("eval/000002.json", lambda found: found["scores"]["total"].update(gain="1e999")),
        ("eval/000002.json", lambda found: found["scores"]["total"].pop("gain_error")),
        ("eval/000002.json", lambda found: found["scores"]["total"].update(mean="0.5")),
        ("eval/000002.json", lambda found: found["rows"][0].update(file="\ud800")),
        ("metrics.jsonl", lambda row: row.update({"reward/total": 10**400})),
    ],
)
def test_a_report_of_figures_that_are_none_is_refused(
    copy: Path, name: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """And neither the plot nor the summary fails for them."""
    from rlzoo.engine.report import write_plot, write_report

    *before, last = [(copy / name).read_text()] if name.endswith(".json") else (copy / name).read_text().splitlines()
    document = json.loads(last)
    change(document)
    (copy / name).write_text("\n".join([*before, json.dumps(document), ""]))
    for use in (write_plot, write_report, lambda rundir: (rlzoo.Run(rundir.path).metrics, str(rlzoo.Run(rundir.path)))):
        with pytest.raises(DataError, match=re.escape(Path(name).name)):
            use(RunDirectory.open(copy))


def test_a_report_shows_what_both_evaluations_have(copy: Path) -> None:
    """Samples are joined by prompt and number, and a step without its budget has none."""
    from rlzoo.engine.report import write_report

    document = json.loads((copy / "eval/000002.json").read_text())
    del document["rows"][0]
    document["scores"]["new"] = document["scores"]["total"]
    for row in document["rows"]:
        row["scores"]["new"] = 0.0
    (copy / "eval/000002.json").write_text(json.dumps(document))
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    (copy / "metrics.jsonl").write_text("".join(json.dumps({"step": row["step"]}) + "\n" for row in rows))
    page = write_report(RunDirectory.open(copy)).read_text()
    assert page.count("<figcaption>") == 2 * len(document["rows"])
    assert "Used: – samples" in page


def test_a_checkpoint_without_its_hashes_is_no_checkpoint(copy: Path, command: Command) -> None:
    for text in ("{}", '{"../../config.json": {}}'):
        overwrite(copy / "checkpoints/000002/DONE", text)
        code, _, err = command("eval", copy / "checkpoints/000002", "--device", "cpu")
        assert code == 4
        assert "DONE does not list its files" in err


@pytest.mark.parametrize("rows", ['{"file": 1}', "[]", '{"file": "a.wav"}', '{"file": "a.wav", "prompt": []}', DEEP])
def test_a_malformed_index_of_recordings_is_one_line(tmp_path: Path, command: Command, rows: str) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    overwrite(tmp_path / "index.jsonl", rows + "\n")
    code, _, err = command("eval", tmp_path, "--judges", "guard")
    assert (code, "Traceback" in err) == (4, False), err[-500:]
    assert "index.jsonl" in err


def test_metadata_in_another_encoding_is_one_line(tmp_path: Path, command: Command) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    (tmp_path / "metadata.csv").write_bytes("a|schön\n".encode("latin-1"))
    code, _, err = command("eval", tmp_path, "--judges", "guard")
    assert code == 4
    assert "metadata.csv', line 1: byte 0xf6 is not UTF-8 text" in err


def test_a_voice_of_a_network_that_cannot_be_built_is_one_line(tmp_path: Path) -> None:
    from rlzoo_wavegrad2.checkpoint import VOICES
    from tiny_wavegrad2 import TINY

    description = {"network": {**TINY.model_dump(), "dilations": ((1, 2),) * len(TINY.factors)}, "text": "flite"}
    VOICES.save(tmp_path / "v.safetensors", {}, description)
    with pytest.raises(DataError, match=r"v\.safetensors' describes a network that cannot be built: IndexError"):
        VOICES.load(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 0},
        {"sample_rate": 10**9},
        {"factors": (10**9,) * 2},
        {"factors": (4096, 17)},
        {"pos_emb_scale": math.inf},
    ],
)
def test_a_voice_of_a_rate_or_size_that_no_voice_has_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Its weights may fit all the same: these values shape no tensor, but what is made with them."""
    from rlzoo_wavegrad2.checkpoint import VOICES
    from rlzoo_wavegrad2.network import WaveGrad2Network
    from tiny_wavegrad2 import TINY

    described = {"network": {**TINY.model_dump(), **change}, "text": "flite"}
    VOICES.save(tmp_path / "v.safetensors", WaveGrad2Network(TINY).state_dict(), described)
    with pytest.raises(DataError, match=rf"describes no network: network.*{next(iter(change))}"):
        VOICES.load(tmp_path / "v.safetensors")


def test_a_preference_model_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    from rlzoo_preference.encoders import EncoderSettings
    from rlzoo_preference.model import Head, load, save

    head = Head(3, 4)
    next(iter(head.parameters())).data.fill_(math.nan)
    save(tmp_path / "p.safetensors", head, EncoderSettings(name="log-mel", level_dbfs=-26.0, layer=0, sha256=""), 4, {})
    with pytest.raises(DataError, match="its weights are not finite"):
        load(tmp_path / "p.safetensors", {"log-mel": 3})


def test_a_description_of_an_f5_model_that_is_nested_without_end_is_one_line(tmp_path: Path) -> None:
    from rlzoo_f5tts.checkpoint import MARK, read_model
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "f.safetensors", {"format": MARK, "config": "[" * 100_000})
    with pytest.raises(DataError, match=r"f\.safetensors"):
        read_model(tmp_path / "f.safetensors")


def test_results_whose_runs_count_different_things_are_one_line(tmp_path: Path) -> None:
    from bench_tools import document

    from rlzoo.bench.collect import read as read_results

    results = document({"a": 0.1, "b": 0.2}, {"a": 0.1, "b": 0.2}, seeds=(0, 1))
    results["cells"][1]["curve"][1]["used"]["tea"] = 1.0
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(DataError, match=r"cells\.1 does not tell how much of the budget it used"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 900 + "]" * 900, "{a=" * 300 + "1" + "}" * 300])
def test_values_that_no_run_has_are_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override({}, f"train.steps={value}")
    (tmp_path / "run.toml").write_text(f"x = {value}")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read(tmp_path / "run.toml")
    (tmp_path / "run.toml").write_text("\ufeffseed = 1")  # as some editors begin a file
    assert read(tmp_path / "run.toml") == {"seed": 1}
    with pytest.raises(ConfigError, match="is not an assignment"):
        override({}, "a" + ".a" * 2000 + "=1")


def test_every_count_has_an_upper_bound(registry: Registry) -> None:
    from rlzoo.config.schema import CORE_TABLES

    def unbounded(schema: dict[str, Any]) -> list[str]:
        found = []
        for name, value in schema.get("properties", {}).items():
            for part in [value, *value.get("anyOf", ()), value.get("items", {})]:
                if part.get("type") == "integer" and not part.keys() & {"maximum", "exclusiveMaximum", "const", "enum"}:
                    found.append(name)
        for inner in schema.get("$defs", {}).values():
            found += unbounded(inner)
        return found

    models = list(CORE_TABLES.values())
    models += [registry.get(kind, name).options for kind in KINDS for name in registry.names(kind)]
    assert {model.__name__: names for model in models if (names := unbounded(model.model_json_schema()))} == {}


def test_a_number_of_steps_that_would_take_years_is_refused() -> None:
    for table in (
        {"eval": {"num_steps": 10**9}},
        {"train": {"steps": 10**12}},
        {"rollout": {"samples_per_prompt": 10**9}},
    ):
        with pytest.raises(ConfigError, match="less than or equal to"):
            toy_run(**table)


@pytest.mark.parametrize("rate", [1, 999, 400_000, 2**31 - 1])
def test_rates_that_no_recording_has_are_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1000, np.float32), 8000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=f"claims a rate of {rate} Hz"):
        read_audio(tmp_path / "a.wav", 16_000, on_rate="resample")


def test_resampling_is_bounded_by_its_filter() -> None:
    for rates in ((4001, 16_000), (16_000, 44_101), (22_254, 16_001)):
        with pytest.raises(DataError, match="next to no common divisor"):
            resample(torch.zeros(100), *rates)
    for rates in ((44_100, 48_000), (11_025, 16_000), (12_345, 16_000), (192_000, 8_000)):
        assert resample(torch.zeros(1000), *rates).shape[-1] == -(-1000 * rates[1] // rates[0])


def test_a_flac_that_claims_more_than_it_holds_is_cut_off(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", 0.1 * np.sin(np.arange(8000)), 8000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] |= 0x0F  # STREAMINFO: the upper bits of the number of samples, 2^36 of them
    content[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(content)
    with pytest.raises(DataError, match=r"its header says|cannot be read"):
        read_audio(tmp_path / "a.flac")


@pytest.fixture
def alarm() -> Iterator[None]:
    """What waits for ever is an error after a minute of a busy machine."""

    def ring(*_: object) -> None:
        raise TimeoutError("no end")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["eval/000002.json", "metrics.jsonl", "checkpoints/000002/DONE"])
@pytest.mark.parametrize("kind", ["pipe", "device", "itself"])
def test_a_pipe_a_device_or_a_loop_is_no_file(copy: Path, command: Command, alarm: None, name: str, kind: str) -> None:
    """Opening a pipe waits for somebody who writes to it, and a device is read for ever."""
    (copy / name).unlink()
    if kind == "pipe":
        os.mkfifo(copy / name)
    else:
        (copy / name).symlink_to(copy / name if kind == "itself" else "/dev/zero")
    arguments = ("eval", copy / "checkpoints/000002", "--device", "cpu") if "DONE" in name else ("compare", copy, copy)
    code, _, err = command(*arguments)
    assert "Traceback" not in err
    assert code == (0 if (name, kind) == ("metrics.jsonl", "itself") else 4)  # a run without metrics can be compared


@pytest.mark.parametrize("size", [None, 0])
def test_weights_that_are_a_pipe_or_endless_are_damaged(copy: Path, command: Command, alarm: None, size: int) -> None:
    weights = copy / "checkpoints/000002/policy.safetensors"
    weights.unlink()
    if size is None:
        os.mkfifo(weights)
    else:
        weights.symlink_to("/dev/zero")
        done = json.loads((copy / "checkpoints/000002/DONE").read_text())
        done["policy.safetensors"]["bytes"] = 0
        (copy / "checkpoints/000002/DONE").write_text(json.dumps(done))
    code, _, err = command("eval", copy, "--device", "cpu")
    assert code == 4
    assert "policy.safetensors is not as it was written" in err


def test_a_link_that_loops_leads_nowhere(copy: Path) -> None:
    from rlzoo.engine.report import write_report

    for name in ("eval/000000.json", "eval/000002.json"):
        document = json.loads((copy / name).read_text())
        document["rows"][0]["file"] = "loop.wav"
        (copy / name).write_text(json.dumps(document))
    (copy / "loop.wav").symlink_to("loop.wav")
    with pytest.raises(DataError, match=r"loop\.wav' does not exist"):
        write_report(RunDirectory.open(copy))


@pytest.mark.parametrize("name", ["log.txt", "checkpoints", "samples/000002"])
def test_a_foreign_run_is_not_continued_through_its_links(
    copy: Path, tmp_path: Path, command: Command, name: str
) -> None:
    """Or its last lines would be added to a file of the user's, and old checkpoints be deleted in another run."""
    mine = tmp_path / "mine"
    if (copy / name).is_dir():
        shutil.move(copy / name, mine)
    else:
        mine.write_text("precious")
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to(mine)
    assert command("run", "--resume", copy, "--steps", 3, "--device", "cpu")[0] == 0  # one's own may lie elsewhere
    edit(copy, lambda values: values.update(signed=""))
    code, _, err = command("run", "--resume", copy, "--steps", 4, "--device", "cpu", "--trust")
    assert code == 4
    assert "lies outside the run directory" in err


def test_steps_of_a_run_are_plain_numbers(tmp_path: Path, command: Command) -> None:
    """A superscript is a digit to Python, and no number."""
    for name in ("000001", "²", "٣"):
        (tmp_path / "run/samples" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "run/samples" / name / "a.wav", 0.1 * np.sin(np.arange(800)), 8000)
        (tmp_path / "run/samples" / name / "index.jsonl").write_text('{"file": "a.wav", "prompt": "a"}\n')
    code, _, err = command("listen", tmp_path / "run", "--port", "0")
    assert code == 4
    assert "has one evaluation only" in err


def test_a_name_that_is_too_long_is_no_file(tmp_path: Path, command: Command) -> None:
    from rlzoo.core.fingerprint import _files
    from rlzoo.preferences import read_preferences

    long = "x" * 300
    assert list(_files({"command": ["python", "-c", long]})) == []
    with pytest.raises(DataError, match="does not exist"):
        read_audio(tmp_path / f"{long}.wav")
    line = {"prompt": {"id": "a"}, "preferred": f"{long}.wav", "rejected": "b.wav"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"line 1: recording .* does not exist"):
        read_preferences(tmp_path / "pairs.jsonl")
    for arguments in (("eval", long), ("run", "--config", long), ("compare", long, long), ("text", "--file", long)):
        code, _, err = command(*arguments)
        assert (code in (2, 3, 4), "Traceback" in err) == (True, False), err[-500:]
        assert long in err.replace("\n", "")


def test_a_packed_weights_file_in_a_foreign_run_does_not_fill_the_memory(copy: Path, command: Command) -> None:
    import hashlib

    path = copy / "checkpoints/000002/engine.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"N" * (1 << 26) + b".")
    done = json.loads((copy / "checkpoints/000002/DONE").read_text())
    done["engine.pt"] = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (copy / "checkpoints/000002/DONE").write_text(json.dumps(done))
    code, _, err = command("eval", copy, "--device", "cpu")
    assert (code, "Traceback" in err) == (4, False), err[-500:]


def test_what_a_killed_start_leaves_is_begun_again(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("x")
    (folder / ".env.json.12345678.tmp").touch()
    code, _, err = command("run", "--resume", folder)
    assert code == 4
    assert "was stopped while it was made" in err
    assert f"--out {folder}" in err
    rundir = start(toy_run(), folder)
    assert rundir.status()["state"] == "running"
    assert [path.name for path in folder.glob(".*.tmp")] == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.toml").write_text("x")
    (other / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="exists already"):
        start(toy_run(), other)


def test_a_file_that_a_killed_write_left_among_the_checkpoints_stops_no_later_one(copy: Path, command: Command) -> None:
    (copy / "checkpoints/.LATEST.deadbeef.tmp").touch()
    (copy / "samples/000002").mkdir(exist_ok=True, parents=True)
    (copy / "samples/000002/x.wav.part").touch()
    (copy / "eval/.000002.json.deadbeef.tmp").touch()
    assert command("run", "--resume", copy, "--steps", 3, "--device", "cpu")[0] == 0
    assert RunDirectory.open(copy).status()["state"] == "done"
    assert [path for pattern in ("*.tmp", ".*.tmp", "*.part") for path in copy.rglob(pattern)] == []


def test_a_path_that_is_no_text_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no UTF-8 text"):
        start(toy_run(), tmp_path / "run\udcff")
    with pytest.raises(DataError, match="holds a NUL"):
        start(toy_run(), tmp_path / "run\0")


@pytest.mark.slow
def test_without_utf_8_mode_letters_of_a_path_are_kept(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "schön")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    resume = [sys.executable, "-m", "rlzoo", "run", "--resume", str(tmp_path / "schön"), "--steps", "3"]
    done = subprocess.run([*resume, "--device", "cpu"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "schön" in (tmp_path / "schön/report.html").read_text(encoding="utf-8")
