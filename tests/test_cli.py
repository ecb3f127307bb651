"""The command line: light, honest, and one line plus a hint for every mistake a user can make."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

import rlzoo.testing
from rlzoo import cli
from rlzoo.config.layers import user_layer
from rlzoo.config.resolve import resolve

TOYS = Path(rlzoo.testing.__file__).parent / "toy_runs.py"
ON_TOYS = ["--plugin", str(TOYS), "--policy", "toy-gaussian", "--prompts", "toy", "--set", "policy.pretrain_steps=0"]
TOY_RUN = ["run", *ON_TOYS, "--algo", "toy-gradient", "--device", "cpu", "--steps", "2"]


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    def error(self) -> tuple[str, str]:
        """The line `error: ...` and its hint; fails where there is a traceback."""
        assert "Traceback" not in self.err, self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        at = next(index for index, line in enumerate(lines) if line.startswith("error: "))
        return lines[at], "\n".join(lines[at + 1 :])


Rlzoo = Callable[..., Outcome]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def rlzoo_(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rlzoo:
    """The command, in this process and an empty folder."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["rlzoo", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        code = caught.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run


def start(*arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from rlzoo.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


# --- light


@pytest.mark.parametrize("arguments", ["--help", "run --help", "plugins list", "plugins show dlpo", "config new"])
def test_answers_without_what_takes_seconds_to_import(arguments):
    code = f"""
    import sys
    sys.argv = ["rlzoo", *{arguments.split()!r}]
    from rlzoo.cli import main
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    heavy = ["torch", "numpy", "matplotlib", "onnxruntime", "httpx"]
    if "--help" in sys.argv:  # needs neither plugins nor run files
        heavy += ["pluggy", "rlzoo.config.registry", "rlzoo.config.schema"]
    loaded = [name for name in heavy if name in sys.modules]
    assert not loaded, loaded
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_version(rlzoo_):
    assert rlzoo_("--version").out == f"rlzoo {rlzoo.__version__}\n"


def test_as_a_module_for_torchrun():
    done = subprocess.run([sys.executable, "-m", "rlzoo", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"rlzoo {rlzoo.__version__}\n"


def test_several_processes_must_agree_on_a_directory(rlzoo_, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert rlzoo_(*TOY_RUN, "--reward", "toy").error()[1].strip() == "hint: give --out DIR"


# --- what there is


def test_plugins_are_listed_and_broken_ones_too(rlzoo_, install):
    install("rlzoo_bad", "raise ImportError('no libfoo')", entry="bad")
    listed = rlzoo_("plugins", "list")
    assert "dlpo" in listed.out
    assert "failed to load: bad, rlzoo-bad 1.0 (rlzoo_bad): ImportError: no libfoo" in listed.err
    assert listed.code == 0
    machine = json.loads(rlzoo_("plugins", "list", "--json").out)
    assert {"dlpo"} <= {plugin["name"] for plugin in machine["plugins"]}
    assert any(provider["error"] for provider in machine["providers"])


def test_a_plugin_is_shown_with_its_options(rlzoo_):
    shown = rlzoo_("plugins", "show", "toy-gradient", "--plugin", TOYS)
    assert "needs    log-prob" in shown.out
    assert "clip = 0.1  (number, > 0, < 1)\n      Half-width" in shown.out
    assert "learning rate" not in shown.out
    assert "learning rate  0.1 of the policy's" in rlzoo_("plugins", "show", "nft").out


def test_checking_a_plugin_that_does_not_load_shows_the_traceback(rlzoo_, install):
    install("rlzoo_bad", "1 / 0", entry="bad")
    checked = rlzoo_("plugins", "check", "bad")
    assert checked.code == 3
    assert "Traceback" in checked.err
    assert "error: rlzoo-bad 1.0 (rlzoo_bad) failed to load: ZeroDivisionError" in checked.err


def test_a_plugin_whose_extra_is_missing_is_not_called_broken(rlzoo_, monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)  # as where it is not installed
    monkeypatch.delitem(sys.modules, "rlzoo_intrusive.pesq", raising=False)
    checked = rlzoo_("plugins", "check", "pesq")
    assert checked.code == 3
    assert "pip install 'rlzoo-speech[intrusive]'" in checked.err
    assert "breaks its contract" not in checked.err


# --- configuration


def test_config_show_prints_a_run_file_that_gives_the_same_run(rlzoo_, here):
    flags = [*ON_TOYS, "--algo", "toy-gradient", "--reward", "toy", "--seed", "3"]
    shown = rlzoo_("config", "show", *flags)
    assert tomllib.loads(shown.out)["seed"] == 3
    (here / "run.toml").write_text(shown.out)
    again = rlzoo_("config", "show", "--plugin", TOYS, "--config", "run.toml")
    assert again.out == shown.out


def test_config_new_writes_what_a_run_without_the_file_does(registry, tmp_path):
    """Whatever the algorithm's default preset and the policy bring along."""
    for algorithm in registry.names("algorithm"):
        if any(field.is_required() for field in registry.algorithm(algorithm).options.model_fields.values()):
            continue
        made = CliRunner().invoke(cli.app, ["config", "new", "--algo", algorithm, "--reward", "distillmos"])
        user = user_layer(algorithm=algorithm, rewards=["distillmos"])
        plain, written = (resolve(data, registry).to_dict() for data in (user, tomllib.loads(made.output)))
        assert written == plain, algorithm


def test_config_new_writes_a_commented_file_that_resolves(rlzoo_, here):
    names = ["--plugin", TOYS, "--algo", "toy-gradient", "--policy", "toy-gaussian", "--prompts", "toy"]
    made = rlzoo_("config", "new", *names, "--reward", "toy", "--out", "run.toml")
    assert made.code == 0, made.err
    text = (here / "run.toml").read_text()
    assert "# Half-width of the ratio's trust region.\nclip = 0.1  # number, > 0, < 1" in text
    assert "# num_steps =  # integer, >= 1, <= 10000 or unset" in text
    shown = rlzoo_("config", "show", "--plugin", TOYS, "--config", "run.toml")
    assert shown.code == 0, shown.err
    assert "exists already" in rlzoo_("config", "new", *names, "--reward", "toy", "--out", "run.toml").error()[0]


def test_prompts_may_be_a_file(rlzoo_, here):
    (here / "my.txt").write_text("One line.\nAnother line.\n")
    flags = ["--algo", "dlpo", "--reward", "guard", "--prompts", "my.txt"]
    shown = tomllib.loads(rlzoo_("config", "show", *flags).out)
    assert shown["prompts"]["name"] == "text"
    assert Path(shown["prompts"]["path"]) == here / "my.txt"
    made = rlzoo_("config", "new", "--prompts", "my.txt", "--out", "run.toml")
    assert made.code == 0, made.err
    assert tomllib.loads((here / "run.toml").read_text())["prompts"]["path"] == "my.txt"


def test_config_schema(rlzoo_):
    schema = json.loads(rlzoo_("config", "schema", "toy-gradient", "--plugin", TOYS).out)
    assert schema["properties"]["clip"]["exclusiveMinimum"] == 0
    assert "steps" in json.loads(rlzoo_("config", "schema", "train").out)["properties"]


# --- the run


def test_a_run_leaves_everything_and_says_where(rlzoo_, here):
    done = rlzoo_(*TOY_RUN, "--reward", "toy", "--out", "r")
    assert done.code == 0, done.err
    for name in ("config.toml", "config.json", "env.json", "metrics.jsonl", "report.html", "reward.png", "log.txt"):
        assert (here / "r" / name).stat().st_size > 0, name
    status = json.loads((here / "r" / "status.json").read_text())
    assert (status["state"], status["step"]) == ("done", 2)
    assert "r/report.html" in done.out
    assert "r/reward.png" in done.out
    assert "step 2/2  reward" in done.err
    assert tomllib.loads((here / "r" / "config.toml").read_text())["algorithm"]["name"] == "toy-gradient"


@pytest.mark.parametrize("steps", ["1", "2"])
def test_a_profiled_run_leaves_a_trace_of_its_steps(steps, rlzoo_, here):
    done = rlzoo_(*TOY_RUN[:-1], steps, "--reward", "toy", "--out", "r", "--profile")
    assert done.code == 0, done.err
    assert "r/trace.json.gz" in done.out
    trace = json.loads(gzip.decompress((here / "r" / "trace.json.gz").read_bytes()))
    assert any(event.get("name", "").startswith("aten::") for event in trace["traceEvents"])


def test_a_run_without_out_gets_a_directory_of_its_own(rlzoo_, here):
    assert rlzoo_(*TOY_RUN, "--reward", "toy", "--seed", "4").code == 0
    (path,) = (here / "runs").iterdir()
    assert path.name.endswith("-toy-gradient-toy-gaussian-toy-4")


def test_a_finished_run_goes_on_and_ends_like_one_that_never_stopped(rlzoo_, here):
    assert rlzoo_(*TOY_RUN, "--reward", "toy", "--out", "a").code == 0
    assert rlzoo_("run", "--resume", "a", "--steps", "4").code == 0
    assert rlzoo_(*TOY_RUN[:-1], "4", "--reward", "toy", "--out", "b").code == 0
    weights = [(here / name / "checkpoints/000004/policy.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


WEIGHED = """
from pathlib import Path
from rlzoo.plugin import RewardSpec, hookimpl
from rlzoo.testing.specs import ToyRewardOptions

def available(options):
    return Path(__file__).with_suffix(".weights").exists()

@hookimpl
def rlzoo_rewards():
    yield RewardSpec(name="weighed", summary="s", target="rlzoo.testing.toys:ToyReward", options=ToyRewardOptions,
                     accepts=frozenset({"vector"}), fallback="toy", available=f"{__name__}:available")
"""


def test_a_run_is_not_resumed_with_another_reward(rlzoo_, here):
    plugin = here / f"weighed_{uuid4().hex}.py"  # Python keeps modules by name
    plugin.write_text(WEIGHED)
    weights = plugin.with_suffix(".weights")
    weights.touch()
    assert rlzoo_(*TOY_RUN, "--plugin", plugin, "--reward", "weighed", "--out", "r").code == 0
    weights.unlink()
    refused = rlzoo_("run", "--resume", "r", "--steps", "3")
    assert refused.code == 4
    assert "the weights of reward 'weighed' are unavailable" in refused.err
    weights.touch()
    assert rlzoo_("run", "--resume", "r", "--steps", "3").code == 0


def test_resume_takes_no_other_flags(rlzoo_):
    assert rlzoo_("run", "--resume", "a", "--algo", "dlpo").code == 2


def test_a_run_is_judged_again_with_the_same_numbers(rlzoo_, here):
    assert rlzoo_(*TOY_RUN, "--reward", "toy", "--out", "r").code == 0
    judged = rlzoo_("eval", "r", "--samples-per-prompt", 1, "--out", "scores.json")
    assert judged.code == 0, judged.err
    (again,) = json.loads((here / "scores.json").read_text())["targets"]
    written = json.loads((here / "r/eval/000002.json").read_text())
    for row, old in zip(again["rows"], written["rows"], strict=True):
        assert row["scores"]["toy"] == pytest.approx(old["scores"]["toy"], abs=1e-6)
    assert again["scores"]["toy"]["mean"] == pytest.approx(written["scores"]["toy"]["mean"], abs=1e-6)


# --- the table of mistakes: code, words of the error, words of the hint

RUN = [*TOY_RUN, "--reward", "toy", "--out", "r"]
MISTAKES = {
    "unknown algorithm": (
        [*RUN, "--algo", "toy-gradent"],
        2,
        "unknown algorithm 'toy-gradent'",
        "did you mean 'toy-gradient'",
    ),
    "unknown reward": ([*TOY_RUN, "--reward", "tyo"], 2, "unknown reward 'tyo'", "did you mean 'toy'"),
    "no reward": (TOY_RUN, 2, "no reward is named", "--reward NAME"),
    "misspelt option": (
        [*RUN, "--set", "algorithm.clp=0.1"],
        2,
        "algorithm.clp: no such option",
        "did you mean 'clip'",
    ),
    "out of range": ([*RUN, "--set", "algorithm.clip=7"], 2, "clip: should be less than 1, not 7", ""),
    "bad device": ([*RUN, "--device", "tpu"], 2, "'tpu' is not a device", "use auto, cpu"),
    "no run file": ([*RUN, "--config", "none.toml"], 2, "cannot read run file 'none.toml'", "check the path"),
    "no preset": ([*RUN, "--preset", "papre"], 2, "has no preset 'papre'", "available: none"),
    "no plugin file": ([*RUN, "--plugin", "x.py"], 3, "plugin file", "path of a Python file"),
    "media": (
        [*TOY_RUN, "--reward", "dnsmos"],
        2,
        "judges audio, but policy 'toy-gaussian' makes vector",
        "name a reward",
    ),
    "below a file": ([*RUN, "--out", "file/r"], 4, "is not a directory", "another --out"),
    "output is a file": ([*RUN, "--out", "file"], 4, "output file", "another --out"),
    "output exists": ([*RUN, "--out", "full"], 4, "output directory", "--resume"),
    "output unwritable": ([*RUN, "--out", "/proc/r"], 4, "cannot write '/proc/r'", "permissions"),
    "resume nothing": (["run", "--resume", "full"], 4, "is not a run directory", "directory a run has made"),
    "synth no text": (["synth", "--text", " ", "--out", "x.wav"], 2, "--text is empty", "something to say"),
    "synth voice alone": (["synth", "--text", "a", "--out", "x", "--voice", "v"], 2, "go together", "word for word"),
    "synth no voice": (
        ["synth", "--text", "a", "--out", "x", "--voice", "no.wav", "--voice-text", "b"],
        4,
        "does not exist",
        "path",
    ),
    "export no run": (["export", "no", "--out", "x"], 4, "no", ""),
    "synth over a file": (["synth", "--text", "hi", "--out", "file"], 4, "exists already", "--force"),
    "synth no checkpoint": (["synth", "--text", "a", "--out", "x", "--checkpoint", "no"], 4, "does not exist", "path"),
    "eval nothing": (["eval"], 2, "no target is named", "rlzoo eval runs/"),
    "pretrain no data": (["pretrain", "--data", "no", "--out", "o"], 4, "folder 'no' does not exist", "rlzoo corpus"),
    "tune no data": (
        ["tune-schedule", "--checkpoint", "file", "--data", "no"],
        4,
        "folder 'no' does not exist",
        "was trained on",
    ),
    "tune no voice": (
        ["tune-schedule", "--checkpoint", "v.safetensors", "--data", "full"],
        4,
        "does not exist",
        "path",
    ),
    "tune a public file": (
        ["tune-schedule", "--checkpoint", "a.ckpt", "--data", "full"],
        2,
        "cannot be stored in 'a.ckpt'",
        "--out",
    ),
    "tune a toy": (
        [
            "tune-schedule",
            "--checkpoint",
            "file",
            "--data",
            "full",
            "--plugin",
            str(TOYS),
            "--policy",
            "toy-gaussian",
        ],
        2,
        "has no schedule to tune",
        "README",
    ),
    "bad kind": (["plugins", "new", "rewart", "x"], 2, "unknown kind 'rewart'", "did you mean 'reward'"),
    "bad name": (["plugins", "new", "reward", "My_Reward"], 2, "'My_Reward' cannot be a plugin's name", "lower-case"),
    "unknown plugin": (["plugins", "show", "dlpoo"], 2, "unknown plugin 'dlpoo'", "did you mean 'dlpo'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_a_hint_and_changes_nothing(name, rlzoo_, here):
    arguments, code, message, hint = MISTAKES[name]
    (here / "file").write_text("some text\n")
    (here / "full").mkdir()
    (here / "full" / "x").touch()
    before = sorted(here.rglob("*"))
    outcome = rlzoo_(*arguments)
    said, hinted = outcome.error()
    assert message in said
    assert hint in hinted
    assert outcome.code == code
    assert sorted(here.rglob("*")) == before
    assert (here / "file").read_text() == "some text\n"


def test_an_unknown_flag_is_refused_by_name(rlzoo_):
    outcome = rlzoo_("run", "--algorithm", "dlpo")
    assert outcome.code == 2
    assert "--algorithm" in outcome.err


def test_debug_shows_the_traceback_anywhere_on_the_line(rlzoo_):
    for arguments in (["--debug", "plugins", "show", "x"], ["plugins", "show", "x", "--debug"]):
        outcome = rlzoo_(*arguments)
        assert "Traceback" in outcome.err
        assert "error: unknown plugin 'x'" in outcome.err
        assert outcome.code == 2


def test_a_bug_keeps_its_traceback_and_says_that_it_is_one(rlzoo_, monkeypatch):
    monkeypatch.setattr("rlzoo.config.registry.discover", lambda files: 1 / 0)
    outcome = rlzoo_("plugins", "list")
    assert outcome.code == 1
    assert "ZeroDivisionError" in outcome.err
    assert "This is a bug" in outcome.err


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("PWNED"),)


def zipped(content: bytes) -> bytes:
    """The layout of torch.save."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3")
    return made.getvalue()


CHECKPOINTS = {
    "empty.ckpt": (b"", "is empty"),
    "junk.ckpt": (bytes(100), "is not a complete PyTorch checkpoint"),
    "truncated.ckpt": (zipped(bytes(5000))[:3000], "is not a complete PyTorch checkpoint"),
    "truncated.safetensors": ((1000).to_bytes(8, "little") + b"{", "is not a complete safetensors file"),
    "code.ckpt": (zipped(pickle.dumps({"state_dict": Evil()}, protocol=2)), "code and not weights; nothing was run"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_bad_checkpoint_is_refused_and_runs_nothing(name, rlzoo_, here):
    content, message = CHECKPOINTS[name]
    (here / name).write_bytes(content)
    spoken = rlzoo_("synth", "--text", "hello", "--out", "x.wav", "--checkpoint", name, "--policy", "wavegrad2")
    assert (spoken.code, message in spoken.error()[0]) == (4, True), spoken.err
    flags = ["--algo", "dlpo", "--reward", "dnsmos", "--policy", "wavegrad2", "--set", f"policy.checkpoint={name}"]
    assert rlzoo_("run", *flags, "--device", "cpu").code == 4
    assert [path.name for path in here.iterdir()] == [name]


def test_a_damaged_run_checkpoint_is_recognised(rlzoo_, here):
    assert rlzoo_(*RUN).code == 0
    weights = here / "r/checkpoints/000002/policy.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    for arguments in (["run", "--resume", "r", "--steps", "3"], ["eval", "r"]):
        outcome = rlzoo_(*arguments)
        assert outcome.code == 4
        assert "policy.safetensors is not as it was written" in outcome.error()[0]


PROMPT_FILES = {"empty": b"", "binary": bytes(range(256)) * 4, "no letters": b"A sentence.\n... !?\n"}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_a_bad_prompt_file_is_refused_and_nothing_is_left(name, rlzoo_, here):
    content = PROMPT_FILES[name]
    (here / "prompts.txt").write_bytes(content)
    flags = ["--prompts", "text", "--set", "prompts.path=prompts.txt", "--reward", "toy", "--out", "r"]
    outcome = rlzoo_(*TOY_RUN, *flags)
    assert outcome.code == 4
    assert "prompts.txt" in outcome.error()[0]
    assert not (here / "r").exists()


# --- rewards that misbehave or are not there

BAD_REWARD = """
import torch
from rlzoo.api import Reward, Scores
from rlzoo.plugin import Options, RewardSpec, hookimpl

class Bad(Reward):
    def score(self, samples, prompts):
        return Scores({values})

def available(options):
    return False

@hookimpl
def rlzoo_rewards():
    common = dict(summary="s", target=f"{{__name__}}:Bad", options=Options, accepts=frozenset({{"vector"}}))
    yield RewardSpec(name="bad", **common)
    yield RewardSpec(name="gone", fallback="toy", available=f"{{__name__}}:available", **common)
"""


@pytest.fixture
def bad_reward(tmp_path: Path):
    """A one-file plugin; its name is new each time, because Python keeps modules by name."""
    path = tmp_path / f"bad_reward_{uuid4().hex}.py"

    def make(values: str) -> Path:
        path.write_text(BAD_REWARD.format(values=values))
        return path

    yield make
    sys.modules.pop(path.stem, None)


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        ("torch.full((len(samples),), float('nan'))", 5, "reward 'bad' (version 1) scored"),
        ("torch.zeros(len(samples), 1)", 3, "returned scores of shape"),
    ],
)
def test_a_reward_that_returns_nonsense_stops_the_run(values, code, message, rlzoo_, bad_reward):
    outcome = rlzoo_(*TOY_RUN, "--plugin", bad_reward(values), "--reward", "bad", "--out", "r")
    assert message in outcome.error()[0]
    assert outcome.code == code


def test_the_sample_that_scored_nan_is_kept(rlzoo_, bad_reward, here):
    plugin = bad_reward("torch.full((len(samples),), float('nan'))")
    rlzoo_(*TOY_RUN, "--plugin", plugin, "--reward", "bad", "--out", "r")
    assert list((here / "r" / "failures").iterdir())
    assert json.loads((here / "r" / "status.json").read_text())["state"] == "failed"


def test_a_reward_without_weights_is_replaced_loudly_and_everywhere(rlzoo_, bad_reward, here):
    outcome = rlzoo_(*TOY_RUN, "--plugin", bad_reward("None"), "--reward", "gone")
    assert outcome.code == 0, outcome.err
    assert "REWARD REPLACED" in outcome.err
    assert "'gone' is NOT used" in outcome.err
    assert "'toy' was used, because 'gone' was unavailable" in outcome.out
    (path,) = (here / "runs").iterdir()
    assert "-toy-for-gone-" in path.name
    (reward,) = json.loads((path / "config.json").read_text())["rewards"]
    assert (reward["requested"], reward["name"]) == ("gone", "toy")
    row = json.loads((path / "metrics.jsonl").read_text().splitlines()[0])
    assert "reward/toy" in row
    assert not any("gone" in key for key in row)


@pytest.mark.parametrize("flag", [["--strict"], ["--set", "rewards.0.on_missing=error"]])
def test_a_reward_without_weights_can_be_refused(flag, rlzoo_, bad_reward, here):
    outcome = rlzoo_(*TOY_RUN, "--plugin", bad_reward("None"), "--reward", "gone", *flag)
    assert outcome.code == 4
    assert "weights of reward 'gone' are unavailable" in outcome.error()[0]
    assert not list(here.iterdir())


def test_a_plugin_that_raises_on_import_stops_only_who_asks_for_it(rlzoo_, install, here):
    install("rlzoo_bad", "raise ImportError('libsndfile.so not found')", entry="bad")
    assert rlzoo_(*RUN).code == 0
    outcome = rlzoo_(*TOY_RUN, "--reward", "bad", "--out", "r2")
    assert "failed to load: ImportError: libsndfile.so not found" in outcome.error()[0]
    assert outcome.code == 3
    assert not (here / "r2").exists()


# --- stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_is_saved_and_goes_on(number, here, rlzoo_):
    long = [*TOY_RUN[:-1], "100000", "--reward", "toy", "--out", "r", "--set", "train.save_every=1000"]
    with start(*long) as process:
        deadline = time.monotonic() + 240
        while not (here / "r/metrics.jsonl").exists() or len((here / "r/metrics.jsonl").read_text()) < 500:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "everything is saved" in err
    assert "rlzoo run --resume" in err
    status = json.loads((here / "r/status.json").read_text())
    assert status["state"] == "interrupted"
    assert rlzoo_("run", "--resume", "r", "--steps", status["step"] + 1).code == 0


def test_a_disk_that_fills_up_is_an_error_with_a_way_on(here):
    def limit() -> None:
        # A quota per file: enough for the configuration, not for a checkpoint.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    with start(*TOY_RUN, "--reward", "toy", "--out", "r", preexec_fn=limit) as process:
        _, err = process.communicate(timeout=240)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    assert "free some space" in err
