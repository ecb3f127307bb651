"""The run directory: complete files or none, honest errors, metrics that survive a crash."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rlzoo.errors import DataError, RlzooError
from rlzoo.files.reading import read_lines
from rlzoo.files.rundir import RunDirectory, check_free, default_path, environment

ROOT = Path(__file__).parents[1]

CONFIG = {
    "seed": 1,
    "policy": {"name": "p"},
    "rewards": [{"name": "r", "requested": "r", "weight": 1.0}],
    "algorithm": {"name": "a"},
    "prompts": {"name": "q"},
    "eval": {},
}


def create(path: Path) -> RunDirectory:
    return RunDirectory.create(path, toml="seed = 1\n", config=CONFIG, env={"rlzoo": "x"})


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return create(tmp_path / "run")


def names(directory: RunDirectory) -> set[str]:
    return {path.name for path in directory.path.iterdir()}


def test_a_new_directory_says_what_the_run_is(directory):
    assert names(directory) == {"config.toml", "config.json", "env.json", "status.json"}
    assert RunDirectory.open(directory.path).config() == CONFIG
    assert directory.status()["state"] == "running"


def test_an_empty_folder_is_taken_and_parents_are_made(tmp_path):
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty")
    create(tmp_path / "a" / "b" / "c")


@pytest.mark.parametrize("make", [lambda p: (p.mkdir(), (p / "x").touch()), lambda p: p.touch(), create])
def test_what_exists_is_never_written_over(tmp_path, make):
    path = tmp_path / "run"
    make(path)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in [path, *path.glob("*")])
    with pytest.raises(DataError, match="exists already") as caught:
        create(path)
    assert caught.value.exit_code == 4
    assert "--out" in caught.value.hint
    assert sorted((p.name, p.stat().st_mtime_ns) for p in [path, *path.glob("*")]) == before


def test_below_a_file_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a directory"):
        check_free(tmp_path / "file" / "run")


def test_without_permission_nothing_is_made(tmp_path, monkeypatch):
    # Root may write anywhere, so the answer of the system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="no permission to write in"):
        create(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_system_that_refuses_is_reported():
    with pytest.raises(DataError, match="cannot write '/proc/rlzoo"):
        create(Path("/proc/rlzoo/run"))


def test_no_run_directory(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match="expected an object"):
        RunDirectory.open(tmp_path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(directory):
    def fail():
        with directory.writing("status.json") as temporary:
            temporary.write_text("half")
            raise ValueError("stop")

    before = directory.status()
    with pytest.raises(ValueError, match="stop"):
        fail()
    assert directory.status() == before
    assert names(directory) == {"config.toml", "config.json", "env.json", "status.json"}


def test_a_folder_appears_complete_or_not_at_all(directory):
    def fail():
        with directory.writing("checkpoints/000001") as folder:
            folder.mkdir()
            (folder / "a").touch()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert list((directory / "checkpoints").iterdir()) == []
    for content in ("old", "new"):
        with directory.writing("checkpoints/000001") as folder:
            folder.mkdir()
            (folder / "a").write_text(content)
    assert [p.name for p in (directory / "checkpoints").iterdir()] == ["000001"]
    assert (directory / "checkpoints/000001/a").read_text() == "new"


def test_a_full_disk_is_named_and_resuming_is_offered(directory, monkeypatch):
    (directory / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match="No space left on device") as caught:
        directory.append_metrics({"step": 1})
    assert "--resume" in caught.value.hint

    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="No space left on device"):
        directory.write_text("x", "y")
    assert "x" not in names(directory)
    assert not list(directory.path.glob(".*"))


def test_a_librarys_own_error_on_a_full_disk_is_recognised(directory, monkeypatch):
    """torch.save reports a full disk as RuntimeError."""

    def save():
        with directory.writing("checkpoints/000001"):
            raise RuntimeError("PytorchStreamWriter failed writing file")

    with pytest.raises(RuntimeError):
        save()
    monkeypatch.setattr("rlzoo.files.writing._free_bytes", lambda path: 0)
    with pytest.raises(DataError, match="No space left"):
        save()


def test_errors_of_ours_pass_unchanged(directory, monkeypatch):
    monkeypatch.setattr("rlzoo.files.writing._free_bytes", lambda path: 0)

    def fail():
        with directory.writing("x"):
            raise RlzooError("ours")

    with pytest.raises(RlzooError, match="ours"):
        fail()


def test_metrics_are_cut_back_to_the_checkpoint(directory):
    for step in range(1, 6):
        directory.append_metrics({"step": step, "reward/total": step / 3})
    directory.truncate_metrics(3)
    assert [row["step"] for row in directory.metrics()] == [1, 2, 3]
    directory.append_metrics({"step": 4})
    assert directory.metrics()[-1] == {"step": 4}
    assert directory.metrics()[2] == {"step": 3, "reward/total": 1.0}


def test_half_a_last_line_is_left_out_and_a_damaged_one_inside_is_an_error(directory):
    path = directory / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [row["step"] for row in directory.metrics()] == [1, 2]
    directory.truncate_metrics(2)
    directory.append_metrics({"step": 3})
    assert [row["step"] for row in directory.metrics()] == [1, 2, 3]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match="line 2 is no JSON"):
        read_lines(path)


def run_python(code: str, *arguments: object, **options) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "import sys\nfrom rlzoo.files.rundir import *\n" + textwrap.dedent(code)]
    return subprocess.Popen([*command, *map(str, arguments)], text=True, **options)


def test_sigkill_in_the_middle_of_a_write_leaves_the_old_file(directory):
    code = """
    import os
    with RunDirectory(Path(sys.argv[1])).writing("status.json") as temporary:
        temporary.write_text("{")
        os.kill(os.getpid(), 9)
    """
    with run_python("from pathlib import Path\n" + textwrap.dedent(code), directory.path) as process:
        assert process.wait() == -9
    assert directory.status()["state"] == "running"


def test_two_processes_cannot_run_in_one_directory(directory):
    code = """
    from pathlib import Path
    with RunDirectory(Path(sys.argv[1])).lock():
        print("held", flush=True)
        input()
    """
    with run_python(code, directory.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(DataError, match="another process is running"), directory.lock():
            pass
        process.communicate("\n")
    with directory.lock():
        pass


def test_a_run_that_never_began_leaves_nothing(directory):
    directory.append_metrics({"step": 1})
    assert not directory.discard_if_unused()
    (directory / "metrics.jsonl").write_text("")
    assert directory.discard_if_unused()
    assert not directory.path.exists()


def test_evidence_of_a_failure_is_kept(directory):
    (directory / "failures").mkdir()
    (directory / "failures" / "x.pt").touch()
    assert not directory.discard_if_unused()


def test_the_name_shows_a_stand_in_and_is_free(tmp_path):
    first = default_path("dlpo", "wavegrad2", [("dnsmos", "utmos"), ("wer", "wer")], 7, tmp_path)
    assert first.name.endswith("-dlpo-wavegrad2-dnsmos-for-utmos+wer-7")
    first.mkdir()
    second = default_path("dlpo", "wavegrad2", [("dnsmos", "utmos"), ("wer", "wer")], 7, tmp_path)
    assert second != first
    assert not second.exists()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_environment_states_the_commit_of_the_checkout():
    head = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert environment()["git"]["commit"] == head.stdout.strip()


def test_a_git_that_does_not_answer_is_no_reason_not_to_run(monkeypatch):
    run = subprocess.run

    def slow(command, **options):
        if command[0] == "git":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", slow)
    known = environment([])
    assert known["git"] in (None, {"commit": None, "dirty": None})


def test_the_environment_can_be_written(directory):
    env = environment([("x", "rlzoo-x", "1.0")])
    directory.write_json("env.json", env)
    read = json.loads((directory / "env.json").read_text())
    assert read["plugins"] == [{"name": "x", "distribution": "rlzoo-x", "version": "1.0"}]
    assert read["packages"]["torch"]
