"""The report: self-contained, honest about what was used, the same when made again."""

import dataclasses
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlzoo.engine.loop import train
from rlzoo.engine.report import reward_label, write_plot, write_report
from rlzoo.errors import DataError
from rlzoo.files.rundir import RunDirectory
from rlzoo.testing.toy_runs import start, toy_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = toy_run(train={"steps": 3, "eval_every": 1})
    run = dataclasses.replace(run, rewards=(dataclasses.replace(run.rewards[0], requested="utmos"),))
    rundir = start(run, tmp_path_factory.mktemp("report") / "run")
    train(run, rundir)
    return rundir


@pytest.fixture
def copy(finished, tmp_path):
    return RunDirectory(Path(shutil.copytree(finished.path, tmp_path / "run")))


class Checker(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(rundir):
    checker = Checker()
    checker.feed((rundir / "report.html").read_text(encoding="utf-8"))
    assert checker.open == [], "every element is closed"
    return checker


def test_it_needs_no_other_file(finished):
    page = parsed(finished)
    assert page.sources
    assert all(source.startswith("data:") for source in page.sources)


def test_a_stand_in_is_named_loudly(finished):
    text = " ".join(parsed(finished).text.split())
    assert "You asked for the reward “utmos”" in text
    assert "none comes from utmos" in text
    assert 'class="warning"' in (finished / "report.html").read_text()


def test_no_warning_without_a_stand_in(tmp_path):
    run = toy_run(train={"steps": 1})
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    assert 'class="warning"' not in (rundir / "report.html").read_text()


def test_its_figures_are_those_of_the_evaluation(finished):
    import json

    figures = json.loads((finished / "eval/000003.json").read_text())["scores"]["toy"]
    text = parsed(finished).text
    assert f"{figures['gain']:+.3f}" in text
    assert f"{figures['base']:.3f} ±" in text
    assert "Nothing judged but the reward itself" in text


def test_made_again_it_is_the_same(copy):
    write_plot(copy)
    write_report(copy)
    before = (copy / "report.html").read_bytes(), (copy / "reward.png").read_bytes()
    write_plot(copy)
    write_report(copy)
    assert ((copy / "report.html").read_bytes(), (copy / "reward.png").read_bytes()) == before


def test_text_from_prompts_cannot_become_markup(copy):
    for path in (copy / "eval").iterdir():
        path.write_text(path.read_text().replace('"text": "', '"text": "<script>alert(1)</script>'))
    write_report(copy)
    assert "<script>" not in (copy / "report.html").read_text()
    assert "<script>alert(1)</script>" in parsed(copy).text


def test_a_run_without_an_evaluation_has_no_report(tmp_path):
    rundir = start(toy_run(), tmp_path / "run")
    with pytest.raises(DataError, match="no evaluation yet"):
        write_report(rundir)


def test_missing_audio_is_an_error_and_no_silent_gap(copy):
    for path in (copy / "eval").iterdir():
        path.write_text(re.sub(r'"file": ""', '"file": "samples/gone.wav"', path.read_text()))
    with pytest.raises(DataError, match=r"gone\.wav"):
        write_report(copy)


def test_labels_of_rewards():
    assert reward_label({"name": "dnsmos", "requested": "dnsmos", "weight": 1.0}) == "dnsmos"
    assert reward_label({"name": "dnsmos", "requested": "utmos", "weight": 0.5}) == "0.5 × dnsmos (for utmos)"
