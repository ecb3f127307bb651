"""rlzoo from Python: the same runs as the command line's, and objects that speak, evaluate and continue them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

import rlzoo
from rlzoo import cli
from rlzoo.errors import ConfigError, DataError

SMALL = {
    "rollout.prompts_per_step": 1,
    "rollout.samples_per_prompt": 2,
    "rollout.num_steps": 2,
    "eval.prompts": 1,
    "eval.judges": [],
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> rlzoo.Run:
    out = tmp_path_factory.mktemp("python") / "run"
    return rlzoo.run(algo="rwr", reward="guard", steps=1, device="cpu", overrides=SMALL, out=out, progress=False)


def test_importing_rlzoo_imports_nothing_heavy():
    code = (
        "import rlzoo, sys; print(rlzoo.__version__, *sorted({'torch', 'numpy', 'rich', 'pydantic'} & {*sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [rlzoo.__version__]


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="'rlzoo' has no attribute 'rum'"):
        rlzoo.rum  # noqa: B018


def test_a_run_knows_its_results(done):
    assert done.status == "done"
    assert done.config["algorithm"]["name"] == "rwr"
    assert [row["step"] for row in done.metrics] == [1]
    assert done.gain == done.scores["guard"]["gain"]
    assert done.report is not None
    assert done.report.is_file()
    assert "held-out guard" in str(done)


def test_the_command_line_makes_the_same_run(done, tmp_path, monkeypatch):
    sets = [item for key, value in SMALL.items() for item in ("--set", f"{key}={value}")]
    arguments = ["run", "--algo", "rwr", "--reward", "guard", "--steps", "1", "--device", "cpu", *sets]
    monkeypatch.setattr(sys, "argv", ["rlzoo", *arguments, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    other = rlzoo.Run(tmp_path / "run")
    assert other.config == done.config
    assert other.scores == done.scores
    ours, theirs = (path.policy.module.state_dict() for path in (done, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_policy_speaks_as_the_command_does(done, tmp_path, monkeypatch):
    speech = done.policy.speak("Hello.", seed=3, num_steps=2)
    saved = speech.save(tmp_path / "a.wav")
    command = ["synth", "--checkpoint", str(done.directory), "--text", "Hello.", "--seed", "3", "--num-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["rlzoo", *command, "--device", "cpu", "--out", str(tmp_path / "b.wav")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert saved.read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert speech.seconds == pytest.approx(len(speech.numpy()) / speech.sample_rate)


def test_a_notebook_gets_a_player(done):
    import base64

    page = done.base.speak("Hello.", num_steps=2)._repr_html_()
    content = base64.b64decode(page.partition("base64,")[2].partition('"')[0])
    wave, rate = soundfile.read(io.BytesIO(content))
    assert rate == done.base.sample_rate
    assert len(wave)


def test_the_base_is_what_the_run_started_from(done):
    shipped = rlzoo.load(device="cpu").module.state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in done.base.module.state_dict().items())
    assert any(not torch.equal(value, shipped[name]) for name, value in done.policy.module.state_dict().items())


def test_an_evaluation_agrees_with_the_run(done):
    found = rlzoo.evaluate(done, count=1, samples_per_prompt=1, device="cpu")
    assert found.scores["guard"] == pytest.approx(done.scores["guard"]["mean"], abs=1e-6)
    assert found.gains["guard"] == pytest.approx(done.gain, abs=1e-6)
    assert "guard (reward)" in str(found)


def test_a_run_is_continued(tmp_path):
    out = tmp_path / "run"
    first = rlzoo.run(algo="rwr", reward="guard", steps=1, device="cpu", overrides=SMALL, out=out, progress=False)
    longer = first.resume(steps=2, progress=False)
    assert [row["step"] for row in longer.metrics] == [1, 2]
    assert longer.config["train"]["steps"] == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rlzoo.run(algo="nowhere", reward="guard"), "nowhere"),
        (lambda: rlzoo.run(algo="rwr", reward="guard", overrides={"train.learning_rat": 1}), "train.learning_rat"),
        (lambda: rlzoo.load("nobody"), "nobody"),
        (lambda: rlzoo.load().speak(" "), "empty"),
    ],
)
def test_mistakes_are_errors_with_a_hint(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_a_run_is_refused(tmp_path):
    for call in (lambda: rlzoo.Run(tmp_path), lambda: rlzoo.load(tmp_path), lambda: rlzoo.load(Path("x.pt"))):
        with pytest.raises(DataError):
            call()
