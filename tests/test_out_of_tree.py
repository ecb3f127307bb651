"""Plugins that live in packages of their own: ours for the purpose, and what `rlzoo plugins new` writes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rlzoo.plugin import KINDS

ROOT = Path(__file__).resolve().parent.parent
LOUDNESS = ROOT / "tests/out_of_tree/rlzoo-loudness"
PUBLIC = {"rlzoo.plugin", "rlzoo.api", "rlzoo.functional", "rlzoo.audio", "rlzoo.testing", "rlzoo.errors"}

pytest.importorskip("hatchling", reason="building packages without network needs hatchling (the dev extra)")


def python(*arguments: object, site: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RLZOO_STRICT_PLUGINS": "1"}
    if site is not None:
        environment["PYTHONPATH"] = str(site)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)


def rlzoo(site: Path, cwd: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return python("-c", "from rlzoo.cli import main; main()", *arguments, site=site, cwd=cwd)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One generated package of each kind, and a second policy, which is a flow."""
    folder = tmp_path_factory.mktemp("generated")
    for arguments in (*((kind, f"my-{kind}") for kind in KINDS), ("policy", "my-flow", "--family", "flow")):
        made = rlzoo(folder, folder, "plugins", "new", *arguments)
        assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def site(generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them installed with pip, without network, in a folder of their own."""
    target = tmp_path_factory.mktemp("site")
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    packages = [LOUDNESS, *sorted(generated.iterdir())]
    done = python("-m", "pip", "install", *flags, "--target", target, *packages)
    assert done.returncode == 0, done.stderr
    return target


def test_the_installed_package_is_listed_with_its_version(site, tmp_path):
    listed = rlzoo(site, tmp_path, "plugins", "list")
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if " loudness " in line]
    assert "rlzoo-loudness 1.2.0" in line


def test_the_installed_package_passes_the_check(site, tmp_path):
    checked = rlzoo(site, tmp_path, "plugins", "check", "loudness", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    results = json.loads(checked.stdout)
    assert {result["outcome"] for result in results} <= {"passed", "skipped"}
    assert len(results) >= 6


def test_generated_and_installed_plugins_run_together(site, tmp_path):
    names = ["--algo", "my-algorithm", "--policy", "my-policy", "--prompts", "my-prompts"]
    rewards = ["--reward", "my-reward", "--reward", "loudness"]
    sizes = ["--steps", "2", "--device", "cpu", "--set", "rollout.prompts_per_step=1", "--out", "r"]
    sizes += ["--observe", "my-observer"]
    done = rlzoo(site, tmp_path, "run", *names, *rewards, *sizes)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["reward/loudness"] < 0 and row["reward/my-reward"] < 0 for row in rows)
    assert rows[0]["reward/total"] == pytest.approx(rows[0]["reward/loudness"] + rows[0]["reward/my-reward"], rel=1e-4)
    assert list((tmp_path / "r/samples/000002").glob("*.wav"))
    table = [line.split(",")[:2] for line in (tmp_path / "r/scores.csv").read_text().splitlines()]
    assert [line for line in table if line[1] == "total"] == [["0", "total"], ["2", "total"]]


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["my-policy", "my-flow"])
def test_a_generated_policy_runs_is_judged_and_speaks_alike_twice(policy, site, tmp_path):
    """Its weights are drawn when it is built: they follow the seed of the run, and that of `synth`."""
    common = ["--policy", policy, "--prompts", "my-prompts", "--reward", "my-reward", "--algo", "my-algorithm"]
    sizes = ["--steps", 1, "--device", "cpu", "--set", "rollout.prompts_per_step=1", "--set", "eval.judges=[]"]
    commands = [
        ["run", *common, *sizes, "--out", "r"],
        ["eval", "r", "--device", "cpu", "--json"],
        *(["synth", "--checkpoint", "r", "--text", "Hi.", "--seed", 3, "--out", f"run-{i}.wav"] for i in (1, 2)),
        *(["synth", "--policy", policy, "--text", "Hi.", "--seed", 3, "--out", f"new-{i}.wav"] for i in (1, 2)),
    ]
    for command in commands:
        done = rlzoo(site, tmp_path, *command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    for stem in ("run", "new"):
        first, second = ((tmp_path / f"{stem}-{i}.wav").read_bytes() for i in (1, 2))
        assert first == second
    assert (tmp_path / "run-1.wav").read_bytes() != (tmp_path / "new-1.wav").read_bytes()


def test_their_own_tests_pass(generated, site, tmp_path):
    folders = [LOUDNESS / "tests", *sorted(generated.glob("*/tests"))]
    flags = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", tmp_path]
    done = python("-m", "pytest", *flags, *folders, site=site, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 1 + 6 * (len(KINDS) + 1)


def test_our_package_uses_only_the_public_modules():
    for path in LOUDNESS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rlzoo."):
                assert node.module in PUBLIC, f"{path}: {node.module}"


def test_generated_code_is_clean(generated, tmp_path):
    config = tmp_path / "ruff.toml"
    config.write_text("line-length = 120\n[lint]\nselect = ['E', 'F', 'B', 'UP', 'SIM', 'RUF', 'D1']\n")
    for arguments in (["check", "--ignore", "D100,D103,D107"], ["format", "--check"]):
        done = python("-m", "ruff", arguments[0], "--config", config, *arguments[1:], generated)
        assert done.returncode == 0, done.stdout + done.stderr


def test_generated_metadata_is_sound(generated):
    for kind in KINDS:
        project = tomllib.loads((generated / f"rlzoo-my-{kind}/pyproject.toml").read_text())["project"]
        assert project["entry-points"]["rlzoo"] == {f"my-{kind}": f"rlzoo_my_{kind}"}
