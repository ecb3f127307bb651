"""The examples run as a new user would run them: scripts in a process of their own, the notebook cell by cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = {
    "first_run.py": (["--steps", "1", "--reward", "dnsmos"], "tuned.wav"),
    "own_reward.py": (["--steps", "1"], "report.html"),
    "compare_algorithms.py": (["--steps", "1", "--algos", "rwr"], "rwr      gain"),
}


def test_every_script_is_run():
    assert sorted(SCRIPTS) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name, tmp_path):
    arguments, printed = SCRIPTS[name]
    command = [sys.executable, EXAMPLES / name, *arguments, "--out", tmp_path / "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """In a fresh interpreter, with its last expressions shown as a notebook would show them."""
    notebook = json.loads((EXAMPLES / "first_run.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "clear the outputs before committing"
    (tmp_path / "notebook.py").write_text("\n\n".join(cells), encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    command = [sys.executable, "notebook.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
