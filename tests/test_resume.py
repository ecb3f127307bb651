"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rlzoo.engine import checkpoint
from rlzoo.engine.events import Started, StepDone
from rlzoo.engine.loop import train
from rlzoo.errors import DataError, Interrupted
from rlzoo.files.rundir import RunDirectory
from rlzoo.testing.toy_runs import start, toy_run

ROOT = Path(__file__).resolve().parent.parent

# Everything that has a state: averages, running statistics, random step selection, several updates per step.
STATEFUL = {
    "steps": 8,
    "eval_every": 4,
    "save_every": 2,
    "ema_decay": 0.9,
    "advantage": "prompt",
    "step_selection": "fraction",
    "step_fraction": 0.5,
    "window_frames": 2,
    "minibatch": 9,
    "inner_epochs": 2,
}

# `python -c RUN directory resume pause`: one run, as rlzoo run does it, with a pause after each step.
RUN = """
import sys, time
from pathlib import Path
from rlzoo.config.opening import open_run
from rlzoo.engine.events import StepDone
from rlzoo.engine.loop import train
from rlzoo.files.rundir import RunDirectory
rundir = RunDirectory.open(Path(sys.argv[1]))
pause = lambda event: time.sleep(float(sys.argv[3])) if isinstance(event, StepDone) else None
train(open_run(rundir), rundir, resume=sys.argv[2] == "resume", observer=pause)
"""


def lines(rundir):
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rundir.metrics()]


def assert_same(one: RunDirectory, other: RunDirectory):
    assert lines(one) == lines(other)
    for file in ("checkpoints/000008/policy.safetensors", "eval/000004.json", "eval/000008.json"):
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    ours, theirs = (torch.load(r / "checkpoints/000008/engine.pt", weights_only=True) for r in (one, other))
    assert ours["history"] == theirs["history"]
    assert torch.equal(ours["generator"], theirs["generator"])
    for key, state in ours["optimisation"]["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, theirs["optimisation"]["optimizer"]["state"][key][name])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = toy_run(train=STATEFUL)
    rundir = start(run, tmp_path_factory.mktemp("whole") / "run")
    train(run, rundir)
    return rundir


@pytest.mark.parametrize("after", [1, 2, 4, 5])  # 4: where an evaluation is due
def test_interrupted_and_resumed_equals_never_stopped(tmp_path, uninterrupted, after):
    run = toy_run(train=STATEFUL)
    rundir = start(run, tmp_path / "run")

    def interrupt(event):
        if isinstance(event, StepDone):
            torch.rand(event.step)  # as a plugin that draws from the global generator
        if isinstance(event, StepDone) and event.step == after:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(run, rundir, observer=interrupt)
    saved = torch.load(checkpoint.latest(rundir) / "engine.pt", weights_only=True)["torch_rng"]
    torch.manual_seed(after)  # whatever ran in between
    begun = []

    def look(event):
        if isinstance(event, Started):
            begun.append(torch.get_rng_state())

    result = train(run, rundir, resume=True, observer=look)
    assert torch.equal(begun[0], saved), "plugins that draw from the global generator go on where they were"
    assert result.steps == 8
    assert_same(rundir, uninterrupted)


def test_failing_in_mid_step_loses_only_what_was_after_the_checkpoint(tmp_path, uninterrupted):
    run = toy_run(train=STATEFUL)
    rundir = start(run, tmp_path / "run")

    def fail(event):
        if isinstance(event, StepDone) and event.step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(run, rundir, observer=fail)
    assert rundir.metrics()[-1]["step"] == 5
    train(run, rundir, resume=True)
    assert_same(rundir, uninterrupted)


def test_killed_at_a_random_moment_and_resumed_equals_never_stopped(tmp_path, uninterrupted):
    rundir = start(toy_run(train=STATEFUL), tmp_path / "run")
    command = [sys.executable, "-c", RUN, str(rundir.path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    moment = random.SystemRandom().uniform(0.0, 1.6)
    process = subprocess.Popen([*command, "start", "0.25"], env=environment)
    try:
        deadline = time.monotonic() + 240
        while not rundir.metrics() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moment)
    finally:
        process.kill()
        process.wait()
    print(f"killed {moment:.2f} s after the first step, when {len(rundir.metrics())} steps were done")
    assert 1 <= len(rundir.metrics()) <= 8
    assert rundir.status()["state"] == "running", "SIGKILL leaves no time to say anything"
    subprocess.run([*command, "resume", "0"], env=environment, check=True, timeout=300)
    assert_same(rundir, uninterrupted)
    assert not list((rundir / "checkpoints").glob(".*")), "nothing half written is left behind"


def test_resuming_a_finished_run_changes_nothing(tmp_path, uninterrupted):
    copy = RunDirectory(Path(shutil.copytree(uninterrupted.path, tmp_path / "run")))
    result = train(toy_run(train=STATEFUL), copy, resume=True)
    assert result.steps == 8
    assert_same(copy, uninterrupted)
    assert (copy / "report.html").read_bytes().replace(str(copy.path).encode(), b"") == (
        uninterrupted / "report.html"
    ).read_bytes().replace(str(uninterrupted.path).encode(), b"")


def test_lowering_the_steps_of_an_interrupted_run_finishes_it_where_it_is(tmp_path):
    run = toy_run(train={"steps": 8, "save_every": 8})
    rundir = start(run, tmp_path / "run")

    def interrupt(event):
        if isinstance(event, StepDone) and event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(run, rundir, observer=interrupt)
    result = train(toy_run(train={"steps": 2}), rundir, resume=True)
    assert result.steps == 3
    assert "gain" in result.scores["total"]


# --- damaged and foreign checkpoints ---------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path, uninterrupted):
    return RunDirectory(Path(shutil.copytree(uninterrupted.path, tmp_path / "run")))


@pytest.mark.parametrize("file", [checkpoint.POLICY, checkpoint.ENGINE, checkpoint.ALGORITHM])
@pytest.mark.parametrize("damage", ["truncated", "one bit", "gone"])
def test_a_damaged_checkpoint_is_refused_and_the_previous_one_named(finished, file, damage):
    path = finished / f"checkpoints/000008/{file}"
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content[: len(content) // 2] if damage == "truncated" else content))
    for read in (
        lambda: checkpoint.load_policy(finished.path),
        lambda: train(toy_run(train=STATEFUL), finished, resume=True),
    ):
        with pytest.raises(DataError, match=r"000008.*damaged") as caught:
            read()
        assert "000006" in caught.value.hint


def test_a_half_written_checkpoint_is_not_seen(finished):
    (finished / "checkpoints/000008/DONE").unlink()
    assert checkpoint.latest(finished).name == "000006"


def test_another_checkpoint_of_the_same_run_loads(finished):
    newest = checkpoint.load_policy(finished.path)
    older = checkpoint.load_policy(finished / "checkpoints/000006")
    assert not newest.training
    assert any(not torch.equal(a, b) for a, b in zip(newest.parameters(), older.parameters(), strict=True))


def test_a_run_whose_starting_weights_changed_cannot_be_resumed(finished):
    (finished / "status.json").unlink()
    run = toy_run(train=STATEFUL, policy={"name": "toy-gaussian", "seed": 1})
    with pytest.raises(DataError, match="starting weights"):
        train(run, finished, resume=True)


def test_a_directory_without_a_checkpoint_is_no_policy(tmp_path):
    rundir = start(toy_run(), tmp_path / "run")
    with pytest.raises(DataError, match="no finished checkpoint"):
        checkpoint.load_policy(rundir.path)


def test_only_the_newest_checkpoints_are_kept(finished):
    assert [path.name for path in checkpoint.complete(finished)] == ["000006", "000008"]
    assert (finished / "checkpoints/LATEST").read_text() == "000008\n"


def test_a_full_disk_stops_with_a_hint_and_keeps_the_last_checkpoint(tmp_path):
    run = toy_run(train={"steps": 4, "save_every": 1})
    rundir = start(run, tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event):
        if isinstance(event, StepDone) and event.step == 3:
            # No file may grow beyond this: like a full disk, the system itself refuses to write.
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        with pytest.raises(DataError, match="cannot write") as caught:
            train(run, rundir, observer=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "free some space" in caught.value.hint
    assert [path.name for path in checkpoint.complete(rundir)] == ["000001", "000002"]
    assert not list((rundir / "checkpoints").glob(".*"))
    train(run, rundir, resume=True)
    assert checkpoint.latest(rundir).name == "000004"
