"""The tutorial "your own voice in five commands" (docs/your-own-voice.md), as typed, on a folder that holds
recordings and texts and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs/your-own-voice.md"
SHORTER = {"pretrain": ["--set", "steps=4", "--set", "validate_every=4", "--set", "validation_utterances=1"]}
SHORTER["run"] = [
    "--steps", "1", "--device", "cpu", "--out", "runs/me", "--set", "rollout.prompts_per_step=1",
    "--set", "rollout.samples_per_prompt=2", "--set", "eval.prompts=1", "--set", "eval.judges=[]",
]  # fmt: skip


def commands() -> list[list[str]]:
    """The page's first block, without the installation."""
    block = re.search(r"```sh no-run\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return [line.split()[1:] for line in block[1].splitlines() if line.startswith("rlzoo ")]


def test_the_page_has_five_commands() -> None:
    assert [words[0] for words in commands()] == ["corpus", "corpus", "corpus", "pretrain", "run"]


@pytest.mark.slow
def test_the_tutorial_as_typed(tmp_path: Path) -> None:
    if shutil.which("flite") is None:
        pytest.skip("the program flite is not installed")
    pytest.importorskip("pocketsphinx", reason="pocketsphinx (extra `corpus`) is not installed")
    pytest.importorskip("pyworld", reason="pyworld (extra `corpus`) is not installed")
    folder = tmp_path / "my-recordings"
    folder.mkdir()
    lines = (Path(__file__).parents[1] / "plugins/prompts/rlzoo_prompts/data/train.txt").read_text().splitlines()
    for number, line in enumerate(lines[:40]):
        (folder / f"{number:03}.txt").write_text(line + "\n")
        subprocess.run(["flite", "-voice", "slt", "-t", line, "-o", folder / f"{number:03}.wav"], check=True)
    for words in commands():
        command = [sys.executable, "-m", "rlzoo", *words, *SHORTER.get(words[0], [])]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    times = [json.loads(line) for line in (tmp_path / "corpora/me/phones.jsonl").read_text().splitlines()]
    assert len(times) >= 38
    assert (tmp_path / "voices/me/voice.safetensors").is_file()
    assert (tmp_path / "runs/me/report.html").is_file()
