"""`rlzoo corpus` from the command line: what it prints, what it writes, how it refuses."""

import json
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rlzoo.cli.corpus import app
from rlzoo.errors import ConfigError, DataError

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="the program flite is not installed")


def call(*arguments, text=None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=text, catch_exceptions=False)


@needs_flite
def test_sentences_and_flite_make_a_corpus_together(tmp_path):
    assert call("sentences", "--count", 3, "--seed", 5, "--out", tmp_path / "s.txt").exit_code == 0
    assert len((tmp_path / "s.txt").read_text().splitlines()) == 3
    done = call(
        "speak", "--engine", "flite", "--text", tmp_path / "s.txt", "--out", tmp_path / "c", "--rate", 8000,
        "--jobs", 1, "--quiet",
        "--feature", "duration_stretch=0.9",
    )  # fmt: skip
    assert done.exit_code == 0
    assert "3 sentences" in done.output
    card = json.loads((tmp_path / "c" / "card.json").read_text())
    assert card["recipe"]["features"] == [["duration_stretch", "0.9"]]
    assert card["sample_rate"] == 8000


@needs_flite
def test_lines_come_from_standard_input_and_may_be_chosen_by_length(tmp_path):
    text = "Short one.\nThis line is the one that is too long to be spoken here.\nAnother one.\nThird one.\n"
    arguments = ("--text", "-", "--out", tmp_path / "c", "--max-characters", 20, "--limit", 2, "--jobs", 1, "--quiet")
    assert call("speak", "--engine", "flite", *arguments, text=text).exit_code == 0
    spoken = sorted(line.split("|")[1] for line in (tmp_path / "c" / "metadata.csv").read_text().splitlines())
    assert spoken == ["Another one.", "Short one."]


def test_sentences_go_to_standard_output():
    done = call("sentences", "--count", 4)
    assert len(done.output.splitlines()) == 4


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "s.txt").write_text("precious")
    with pytest.raises(DataError, match=r"s\.txt' exists"):
        call("sentences", "--out", tmp_path / "s.txt")
    assert (tmp_path / "s.txt").read_text() == "precious"


@pytest.mark.parametrize("pair", ["stretch", "=1", "stretch="])
def test_a_feature_without_a_value_is_refused(tmp_path, pair):
    (tmp_path / "t.txt").write_text("Hello.\n")
    with pytest.raises(ConfigError, match="--feature"):
        call("speak", "--engine", "flite", "--text", tmp_path / "t.txt", "--out", tmp_path / "c", "--feature", pair)


@pytest.mark.parametrize(("content", "message"), [(None, "cannot read"), (b"\xff\xfe\x00", "not UTF-8")])
def test_unreadable_text_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        call("speak", "--engine", "flite", "--text", tmp_path / "t.txt", "--out", tmp_path / "c")


@pytest.mark.parametrize(
    ("engine", "option"),
    [("hibari", "--voice"), ("flite", "--command"), ("command", "--feature"), ("piper", "--feature")],
)
def test_an_option_of_another_engine_is_refused(tmp_path, engine, option):
    (tmp_path / "t.txt").write_text("Hello.\n")
    with pytest.raises(ConfigError, match=f"--engine {engine} takes no {option}"):
        call("speak", "--engine", engine, "--text", tmp_path / "t.txt", "--out", tmp_path / "c", option, "a=b")


def test_aligning_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"metadata\.csv"):
        call("align", tmp_path)


def test_the_commands_cost_no_heavy_import():
    code = "import sys, rlzoo.cli.corpus; print([m for m in ('torch', 'numpy', 'soundfile') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
