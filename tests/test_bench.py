"""Suites, jobs, launchers, collection and the report, on grids of toy runs."""

import contextlib
import csv
import importlib.util
import io
import json
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
from bench_tools import SUITE, document, edit, here, run_grid, suite_file
from filelock import FileLock
from typer.testing import CliRunner

from rlzoo.bench import collect as collecting
from rlzoo.bench import figures, launch, report
from rlzoo.bench.cell import _within_budget as within_budget
from rlzoo.bench.collect import collect
from rlzoo.bench.jobs import ATTEMPTS, Outcome, clear_torn, differences, execute, make, read_outcome, state_of
from rlzoo.bench.suite import Cell, load, shipped
from rlzoo.bench.summary import Summary
from rlzoo.cli import bench
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_grid(tmp_path_factory.mktemp("grid"))


@pytest.fixture
def grid(finished, tmp_path):
    """A copy of the finished grid, to be damaged."""
    suite, folder = finished
    shutil.copytree(folder, tmp_path / "grid")
    return suite, tmp_path / "grid"


def job_of(suite, folder, key="ddpo--toy--0"):
    cell = next(cell for cell in suite.cells() if cell.key == key)
    return make(suite, cell, folder)


def never(job):
    raise AssertionError("nothing was left to do")


# --- suites ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped())
def test_every_suite_that_ships_resolves_in_every_cell(name):
    suite = load(name)
    suite.check(weights=False)
    assert len(suite.cells()) == len(suite.table.algorithms) * len(suite.table.rewards) * len(suite.table.seeds)


def test_the_toy_suite_holds_every_algorithm_with_five_seeds():
    suite = load("toy")
    assert {entry.name for entry in suite.table.algorithms} == set(suite.registry.names("algorithm"))
    assert len(suite.table.seeds) == 5


def test_cells_share_everything_but_algorithm_and_seed(tmp_path):
    suite = load(str(suite_file(tmp_path)))
    one, other = (suite.resolved(Cell(name, "toy", 1)).to_dict() for name in ("ddpo", "control"))
    assert {key for key in one if one[key] != other[key]} == {"algorithm"}
    assert other["algorithm"]["updates"] == 1
    assert one["rewards"][0]["on_missing"] == "error"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[run.train.budget]\nsamples = 16", "", "sets no limit"),
        ("samples = 16", "sample = 16", "sample"),
        ('label = "control"', 'label = "ddpo"', "'ddpo' is there twice"),
        ('label = "control"', 'label = "base"', "untrained policy's name"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "'0' is there twice"),
        ("[run.policy]", "[run.algorithm]\nname = 'x'\n[run.policy]", "run.algorithm differs from cell to cell"),
        ('name = "ddpo"', 'name = "ddpo"\nrun = { train = { budget = { samples = 99 } } }', "sets run.train.budget"),
        ('name = "ddpo"', 'name = "ddpo"\nrun = { eval = { prompts = 1 } }', "sets run.eval"),
        ('name = "ddpo"', 'name = "ddpo"\noptions = { clipp = 1 }', "clipp"),
        ('name = "ddpo"', 'name = "dppo"', "dppo"),
        ('"rlzoo.testing.specs"', '"rlzoo.nowhere"', "module 'rlzoo.nowhere' does not exist"),
        ('terms = ["toy"]', "terms = []", "terms"),
    ],
)
def test_a_suite_that_is_not_fair_or_not_right_is_refused(tmp_path, old, new, message):
    assert old in SUITE
    with pytest.raises(ConfigError, match=message):
        load(str(suite_file(tmp_path, SUITE.replace(old, new)))).check(weights=False)


def test_a_judge_needs_its_weights_but_no_gradient(tmp_path):
    suite = """name = "one"
summary = "a differentiable reward and a judge without a gradient"
seeds = [0]
[[algorithms]]
name = "draft"
[[rewards]]
label = "distillmos"
terms = ["distillmos"]
[run.eval]
judges = ["guard"]
[run.train.budget]
samples = 24
"""
    load(str(suite_file(tmp_path, suite))).check(weights=True)
    with pytest.raises(DataError, match="the weights of reward 'preference' are unavailable"):
        load(str(suite_file(tmp_path, suite.replace("guard", "preference")))).check(weights=True)


def test_unknown_suites_and_cells_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"summary: a value is required; write it into the file"):
        load(str(suite_file(tmp_path, 'name = "one"\n')))
    with pytest.raises(ConfigError, match="unknown suite 'tooy'") as error:
        load("tooy")
    assert "toy" in error.value.hint
    suite = load(str(suite_file(tmp_path)))
    with pytest.raises(ConfigError, match="no algorithm 'dppo'"):
        suite.cells(only=["dppo"])
    with pytest.raises(ConfigError, match="no seed 7"):
        suite.cells(seeds=[7])


def test_differences_are_named_by_their_path():
    assert differences({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == ["a.b.1 is 3, not 2"]
    assert differences({"plugin_files": ["x"], "a": 1}, {"plugin_files": ["y"], "a": 1}) == []


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_a_finished_job_is_skipped_and_has_its_figures(finished):
    suite, folder = finished
    outcome = execute(job_of(suite, folder), never)
    assert (outcome.state, outcome.attempts) == ("done", 1)
    assert outcome.seconds > 0
    assert outcome.memory_mb > 50


def test_a_run_ends_where_its_budget_does(finished):
    _, folder = finished
    for path in sorted((folder / "runs").iterdir()):
        assert RunDirectory(path).metrics()[-1]["budget/samples"] == 16


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(grid):
    suite, folder = grid
    job = job_of(suite, folder)
    expected = json.loads((job.run / "eval/000004.json").read_text(encoding="utf-8"))
    # As a kill after step 2 leaves it: later files never came to be, the status still says running.
    for path in ("eval/000004.json", "checkpoints/000004", "samples/000004"):
        target = job.run / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    (job.run / "checkpoints/LATEST").write_text("000002\n")
    RunDirectory(job.run).set_status("running", step=2)
    job.beside(".json").unlink()
    assert state_of(job) == "resume"
    assert execute(job, here).state == "done"
    assert json.loads((job.run / "eval/000004.json").read_text(encoding="utf-8")) == expected


def test_a_run_killed_while_its_directory_was_made_begins_anew(tmp_path):
    suite = load(str(suite_file(tmp_path)))
    job = job_of(suite, tmp_path / "grid")
    job.run.mkdir(parents=True)
    (job.run / "config.toml").write_text("seed = 0")
    assert state_of(job) == "torn"
    assert execute(job, here).state == "done"


def test_a_run_that_was_removed_is_made_again_and_has_its_own_figures(grid):
    suite, folder = grid
    job = job_of(suite, folder)
    first = json.loads(job.beside(".json").read_text(encoding="utf-8"))
    edit(job.beside(".json"), lambda content: content.update(seconds=1e6, attempts=7))
    shutil.rmtree(job.run)
    again = execute(job, here)
    assert (again.state, again.attempts, first["attempts"]) == ("done", 1, 1)
    assert again.seconds < 1e6


def test_files_of_somebody_else_are_never_deleted(tmp_path):
    suite = load(str(suite_file(tmp_path)))
    job = job_of(suite, tmp_path / "grid")
    job.run.mkdir(parents=True)
    (job.run / "thesis.tex").write_text("precious")
    with pytest.raises(DataError, match=r"thesis\.tex"):
        clear_torn(job, state_of(job))
    assert (job.run / "thesis.tex").read_text() == "precious"


def test_a_process_killed_from_outside_is_started_again_but_not_for_ever(tmp_path):
    suite = load(str(suite_file(tmp_path)))
    job, calls = job_of(suite, tmp_path / "grid"), []

    def killed_once(job):
        calls.append(job)
        return here(job) if len(calls) == 2 else -9

    assert execute(job, killed_once).state == "done"
    assert len(calls) == 2
    other = job_of(suite, tmp_path / "grid", "ddpo--toy--1")
    outcome = execute(other, lambda job: -9)
    assert (outcome.state, outcome.attempts) == ("failed", ATTEMPTS)
    assert "signal 9" in outcome.error


def test_a_job_that_cannot_start_says_why(tmp_path):
    suite = load(str(suite_file(tmp_path)))
    job = job_of(suite, tmp_path / "grid")
    job.run.mkdir(parents=True)
    (job.run / "thesis.tex").write_text("precious")
    outcome = execute(job, spawned_quickly)
    assert outcome.state == "failed"
    assert "thesis.tex" in outcome.error
    assert (job.run / "thesis.tex").read_text() == "precious"


def spawned_quickly(job):
    """`here`, with what it prints in the job's log, as a process of its own would have it."""
    with job.beside(".log").open("a") as log, contextlib.redirect_stderr(log):
        return here(job)


def test_a_run_that_diverged_is_a_result_and_not_repeated(grid):
    suite, folder = grid
    job = job_of(suite, folder)
    job.beside(".json").unlink()
    RunDirectory(job.run).set_status("failed", step=4, error="'loss' is nan in step 5")
    outcome = execute(job, lambda job: 5)
    assert outcome.state == "diverged"
    assert "nan" in outcome.error
    assert execute(job, never) == outcome
    found = collect(suite, folder)
    assert [cell["state"] for cell in found["cells"]].count("diverged") == 1
    assert Summary(found).sections[0].rows[1].diverged + Summary(found).sections[0].rows[2].diverged == 1


def test_whoever_comes_second_waits_for_the_first(grid):
    suite, folder = grid
    job, ended = job_of(suite, folder), []
    with FileLock(job.beside(".lock")):
        thread = threading.Thread(target=lambda: ended.append(execute(job, never)))
        thread.start()
        time.sleep(0.3)
        assert not ended
    thread.join(timeout=10)
    assert ended[0].state == "done"


def test_a_directory_with_a_run_of_something_else_is_refused(grid):
    suite, folder = grid
    edit(folder / "runs/ddpo--toy--0/config.json", lambda c: c["train"].update(learning_rate=0.5))
    with pytest.raises(ConfigError, match=r"train\.learning_rate is 0\.5, not 0\.02"):
        job_of(suite, folder)


# --- collection ------------------------------------------------------------------------------------------------------


def test_a_finished_grid_is_collected_whole(finished):
    suite, folder = finished
    found = collect(suite, folder)
    assert len(found["cells"]) == 4
    assert (found["missing"], found["left_out"]) == ([], [])
    cell = found["cells"][0]
    evaluation = json.loads((folder / "runs/ddpo--toy--0/eval/000004.json").read_text(encoding="utf-8"))
    assert cell["curve"][-1]["scores"]["total"] == pytest.approx(evaluation["scores"]["total"]["mean"], rel=1e-5)
    assert [point["used"]["samples"] for point in cell["curve"]] == [0, 8, 16]
    assert cell["curve"][0]["kl"] == 0
    assert cell["curve"][1]["kl"] == pytest.approx(
        RunDirectory(folder / "runs/ddpo--toy--0").metrics()[2]["policy/kl"], rel=1e-5
    )


def no_file(name):
    return lambda run: (run / name).unlink()


def changed(name, change):
    return lambda run: edit(run / name, change)


def written(name, text):
    return lambda run: (run / name).write_text(text, encoding="utf-8")


def without_second_line(run):
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:1] + lines[2:]), encoding="utf-8")


def other_base(run):
    for path in (run / "eval").iterdir():
        edit(path, lambda e: [f.update(mean=f["mean"] + 1) for f in e["scores"].values()])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (no_file("config.json"), "no config.json"),
        (no_file("eval/000004.json"), "after the last step is missing"),
        (no_file("eval/000000.json"), "before the first step is missing"),
        (no_file("env.json"), "env.json"),
        (written("config.json", "{"), "config.json"),
        (written("status.json", "[]"), "status.json"),
        (written("eval/000002.json", '{"step": 2'), "000002.json"),
        (written("metrics.jsonl", "[1]\n"), "damaged"),
        (written("../../cells/ddpo--toy--0.json", '{"key": "x"}'), "ddpo--toy--0.json"),
        (changed("eval/000002.json", lambda e: e["rows"][0].pop("prompt")), "rows.0.prompt"),
        (changed("eval/000004.json", lambda e: e["rows"][0].update(file="samples/gone.wav")), "gone.wav' is missing"),
        (changed("status.json", lambda s: s.update(state="running")), "not finished: running"),
        (changed("status.json", lambda s: s.update(state="failed", error="disk full")), "disk full"),
        (changed("env.json", lambda e: e.update(rlzoo="0.0.9")), "made by rlzoo 0.0.9"),
        (changed("config.json", lambda c: c["rollout"].update(num_steps=7)), "rollout.num_steps is 7"),
        (changed("config.json", lambda c: c.update(seed=9)), "seed is 9, not 0"),
        (changed("eval/000004.json", lambda e: e["rows"].pop()), "other prompts"),
        (changed("eval/000004.json", lambda e: e["rows"][0]["scores"].update(toy=float("nan"))), "finite number"),
        (without_second_line, "lacks steps"),
        (lambda run: (run / "metrics.jsonl").write_text(""), "ends at step 0"),
    ],
)
def test_a_damaged_or_foreign_run_is_named_and_left_out(grid, damage, reason):
    suite, folder = grid
    whole = {cell["algorithm"]: cell for cell in collect(suite, folder)["cells"] if cell["seed"] == 1}
    damage(folder / "runs/ddpo--toy--0")
    found = collect(suite, folder)
    assert [item["run"] for item in found["left_out"]] == ["ddpo--toy--0"]
    assert reason in found["left_out"][0]["reason"]
    assert len(found["cells"]) == 3
    section = Summary(found).sections[0]
    assert section.scores("ddpo", "total") == [whole["ddpo"]["curve"][-1]["scores"]["total"]]


def test_a_run_that_is_older_than_an_option_counts(grid):
    suite, folder = grid
    edit(folder / "runs/ddpo--toy--0/config.json", lambda c: c["train"].pop("self_checks"))
    assert collect(suite, folder)["left_out"] == []
    job_of(suite, folder)


def test_what_was_left_out_is_on_the_page():
    found = document({"good": 0.5})
    found["left_out"] = [{"run": "good--r--9", "reason": "not finished: <running>"}]
    assert "<code>good--r--9</code>: not finished: &lt;running&gt;" in report.page(Summary(found))


def test_runs_of_one_seed_that_start_from_different_policies_are_left_out(grid):
    suite, folder = grid
    shutil.copytree(folder / "runs/ddpo--toy--0", folder / "runs/spare")
    other_base(folder / "runs/ddpo--toy--0")
    found = collect(suite, folder)
    reasons = {item["run"]: item["reason"] for item in found["left_out"]}
    assert reasons["spare"] == "not a run of suite 'tiny'"
    # Of two that disagree, nothing says which is right.
    assert "another policy" in reasons["ddpo--toy--0"]
    assert "another policy" in reasons["control--toy--0"]
    assert [cell["seed"] for cell in found["cells"]] == [1, 1]


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no finished run"):
        collect(load(str(suite_file(tmp_path))), tmp_path)


def test_evaluations_beyond_the_budget_are_cut():
    curve = [{"used": {"samples": used}} for used in (0, 50, 100, 104, 120)]
    assert within_budget(curve, {"samples": 100}) == 3
    assert within_budget(curve, {"samples": 10}) == 0


def test_an_algorithm_that_overruns_is_cut_and_that_is_said(tmp_path):
    # 12 samples a step against everybody's 4: its second step ends at 24 of 16, and only the first counts.
    greedy = SUITE.replace("eval_every = 2", "eval_every = 1").replace("[0, 1]", "[0]")
    greedy += "run = { rollout = { samples_per_prompt = 6 } }\n"
    suite, folder = run_grid(tmp_path, greedy)
    used = {cell["algorithm"]: cell["used"]["samples"] for cell in collect(suite, folder)["cells"]}
    assert used == {"ddpo": 16, "control": 24}, "a run ends with the step that uses the budget up"
    found = collect(suite, folder)
    cut = next(cell for cell in found["cells"] if cell["algorithm"] == "control")
    evaluation = json.loads((folder / "runs/control--toy--0/eval/000001.json").read_text(encoding="utf-8"))
    section = Summary(found).sections[0]
    assert cut["curve"][cut["counted"]]["used"]["samples"] == 12
    assert section.scores("control", "total") == [pytest.approx(evaluation["scores"]["total"]["mean"], rel=1e-5)]
    assert section.curve("control")[-1]["used"]["samples"] == 12
    assert any("cut at the budget" in note and "control" in note for note in Summary(found).warnings)


def test_a_document_of_another_format_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"format": "rlzoo-bench/9"}')
    with pytest.raises(DataError, match="rlzoo-bench/9"):
        collecting.read(tmp_path / "x.json")


def test_runs_of_two_machines_are_joined(grid, tmp_path):
    suite, folder = grid
    whole = collect(suite, folder)
    shutil.copytree(folder, tmp_path / "second")
    for key in ("ddpo--toy--0", "control--toy--0"):
        shutil.rmtree(folder / "runs" / key)
    shutil.rmtree(tmp_path / "second/runs/control--toy--1")
    one, two = collect(suite, folder), collect(suite, tmp_path / "second")
    for cell in two["cells"]:
        cell["wall_seconds"] = 99.0
    two["origin"]["machines"] = ["another"]
    both = collecting.joined(one, two)
    assert [(c["algorithm"], c["seed"]) for c in both["cells"]] == [(c["algorithm"], c["seed"]) for c in whole["cells"]]
    assert [c["curve"] for c in both["cells"]] == [c["curve"] for c in whole["cells"]]
    assert [c["wall_seconds"] == 99.0 for c in both["cells"]] == [True, True, False, False], "a folder's own come first"
    assert both["missing"] == []
    assert both["origin"]["machines"] == sorted(["another", *one["origin"]["machines"]])
    two["configs"]["ddpo--toy"]["train"]["learning_rate"] = 0.5
    with pytest.raises(DataError, match=r"ddpo--toy ran with other values in the results: train.learning_rate is 0.5"):
        collecting.joined(one, two)
    two["suite"]["name"] = "other"
    with pytest.raises(DataError, match="of suite 'other'"):
        collecting.joined(one, two)


# --- report ----------------------------------------------------------------------------------------------------------


def test_the_report_is_the_same_twice_and_from_the_document_alone(finished, tmp_path):
    suite, folder = finished
    first = report.write(collect(suite, folder), tmp_path / "a")
    report.write(collect(suite, folder), tmp_path / "b")
    report.write(collecting.read(tmp_path / "a/results.json"), tmp_path / "c")
    assert len(first) == 5
    for path in first:
        for other in ("b", "c"):
            assert path.read_bytes() == (tmp_path / other / path.name).read_bytes(), path.name


def test_the_page_needs_nothing_but_itself_and_escapes_what_it_shows(finished):
    suite, folder = finished
    page = report.page(Summary(collect(suite, folder)))
    assert "two algorithms &lt;on&gt; the toy" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert 'name="viewport"' in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert ids
    assert len(ids) == len(set(ids)), "two plots share a clip path or a marker"


def test_audio_of_every_system_is_in_the_page():
    found = document({"good": 0.5})
    clips = [{"system": "base", "data": "QUJD"}, {"system": "good", "data": "REVG"}]
    prompts = [{"prompt": "p0", "text": "Say <b>this</b>.", "clips": clips}]
    found["audio"] = {"r": {"seed": 0, "prompts": prompts}}
    page = report.page(Summary(found))
    assert page.count("<audio") == 2
    assert "data:audio/wav;base64,REVG" in page
    assert "Say &lt;b&gt;this&lt;/b&gt;." in page


def test_systems_are_ranked_and_judged_by_their_gains():
    section = Summary(document({"worse": -0.2, "good": 0.5, "same": 0.0})).sections[0]
    assert [row.system for row in section.rows] == ["base", "good", "same", "worse"]
    good = section.rows[1]
    # Seeds add 0.001 * seed * 3.5 on average over prompts; the quarter at each end goes: seeds 1 and 2 remain.
    assert good.gain.value == pytest.approx(0.5 + 0.001 * 1.5 * 3.5)
    assert good.gain.low > 0.49
    assert good.beats_base.value == 1.0
    assert section.improvement()[1] == [1.0, 0.5, 1.0, 1.0]
    little = Summary(document({"little": 0.001})).sections[0].rows[1]
    assert little.beats_base.value == 1.0, "a run is compared with its own start, though starts differ by more"
    text = " ".join(report.findings(section))
    assert "Highest reward: good." in text
    assert "Below the base: worse." in text


def test_what_is_not_significant_is_said_first():
    found = document({"good": 0.5, "near": 0.5, "same": 0.0})
    for run in found["cells"]:  # `same` is above its base with two seeds and below it with two
        if run["algorithm"] == "same":
            run["curve"][-1]["scores"]["total"] += 0.1 if run["seed"] % 2 else -0.1
    texts = report.findings(Summary(found).sections[0])
    assert texts[0] == "Neither above nor below the base: same."
    assert texts[1].startswith("Not separable from the highest, good")
    assert texts[2] == "Highest reward: good."


def test_gains_at_equal_seconds_are_those_when_the_quickest_was_done():
    found = document({"slow": 0.8, "quick": 0.5})
    seconds = {"slow": (0.0, 30.0, 40.0), "quick": (0.0, 5.0, 10.0)}
    for run in found["cells"]:
        start, end = run["curve"][0], run["curve"][-1]
        middle = json.loads(json.dumps(end))
        middle["scores"]["total"] = start["scores"]["total"] + 0.3
        run["curve"], run["counted"] = [start, middle, end], 2
        for point, at in zip(run["curve"], seconds[run["algorithm"]], strict=True):
            point["used"] = {**point["used"], "seconds": at}
    section = Summary(found).sections[0]
    assert section.equal_seconds == 10.0
    assert section.gains("slow", 10.0) == pytest.approx([0.1] * 4)  # a third of the way to its first evaluation
    rows = {row.system: row for row in section.rows}
    assert rows["quick"].gain_at_equal_seconds == rows["quick"].gain
    assert rows["slow"].gain_at_equal_seconds.value == pytest.approx(0.1)
    assert "gain after 10 s of training" in report.table(Summary(found), "md")


def test_gains_are_normalised_by_the_way_to_the_optimum_or_by_the_spread():
    spread = Summary(document({"good": 0.5})).sections[0].normalised("good")
    assert spread[0] == pytest.approx(0.5 / 0.25)
    optimum = Summary(document({"good": 0.5}, optimum=1.35)).sections[0].normalised("good")
    assert optimum[0] == pytest.approx(0.5 / (1.35 - 0.35))


def test_a_hacked_reward_is_flagged_in_page_and_tables():
    summary = Summary(document({"honest": 0.5, "hacker": 0.9}, {"honest": 0.2, "hacker": -0.4}))
    rows = {row.system: row for row in summary.sections[0].rows}
    assert rows["hacker"].hacking.hacked
    assert not rows["honest"].hacking.hacked
    assert "Reward hacking: hacker (worse by j)." in report.findings(summary.sections[0])
    assert 'class="flag"' in report.page(summary)
    lines = [line for line in report.table(summary, "md").splitlines() if line.startswith("| hacker")]
    assert "**yes**" in lines[0]


def test_a_collapse_shows_although_the_interquartile_mean_hides_it():
    found = document({"shaky": 0.3})
    for name in ("total", "r"):
        found["cells"][0]["curve"][-1]["scores"][name] = -50.0
    summary = Summary(found)
    assert summary.sections[0].rows[1].collapsed == 1
    assert any(
        text.startswith("Collapsed") and "shaky (1 of 4)" in text for text in report.findings(summary.sections[0])
    )
    assert "1 collapsed" in report.page(summary)


def test_error_rates_are_shown_in_percent_and_lower_is_better():
    found = document({"good": 0.5}, {"good": 0.2})
    text = json.dumps(found).replace('"j"', '"wer"')
    summary = Summary(json.loads(text))
    column = next(c for c in summary.sections[0].columns if c.name == "wer")
    shown = column.shown(summary.sections[0].rows[0].scores["wer"])
    assert (column.title, shown.value) == ("WER %", pytest.approx(-317.5))
    assert "lower is better" in report.page(summary)


def test_tables_agree_with_each_other():
    summary = Summary(document({"a_b": 0.5, "c%d": -0.1}, {"a_b": 0.1, "c%d": 0.1}))
    rows = list(csv.DictReader(io.StringIO(report.rows_csv(summary))))
    assert len(rows) == 3 * 2  # base and two systems, reward and judge
    best = next(row for row in rows if row["system"] == "a_b" and row["score"] == "r")
    assert float(best["iqm"]) == pytest.approx(0.87, abs=0.01)
    assert float(best["low"]) <= float(best["iqm"]) <= float(best["high"])
    markdown = report.table(summary, "md")
    assert f"**{float(best['iqm']):.3f}**" in markdown
    for part in markdown.split("### ")[1:]:
        header, *body = [line for line in part.splitlines() if line.startswith("|")]
        assert {line.count("|") for line in body} == {header.count("|")}
    latex = report.table(summary, "tex")
    assert r"a\_b" in latex
    assert r"c\%d" in latex
    assert len({line.count("&") for line in latex.splitlines() if line.endswith(r"\\")}) == 1


def test_preferences_fill_their_column(tmp_path):
    found = document({"good": 0.5})
    found["preference"] = {"r": {"good": {"rate": 0.67, "low": 0.6, "high": 0.74}}}
    assert "67 %" in report.table(Summary(found), "md")
    assert "67 %" in report.page(Summary(found))


def test_readers_are_warned_of_what_is_unequal_or_missing():
    found = document({"a": 0.5, "b": 0.1}, seeds=(0, 1), trials={"a": 20})
    found["missing"] = ["a--r--2"]
    notes = " ".join(Summary(found).warnings)
    assert "1 runs of the grid are missing" in notes
    assert "fewer than three seeds" in notes
    assert "0 to 20 trials" in notes


def test_one_seed_still_makes_a_report(tmp_path):
    assert len(report.write(document({"good": 0.5}, seeds=(0,)), tmp_path)) == 5


def test_published_results_are_in_the_docs():
    expected = report.results_page(collecting.published(ROOT / "benchmarks/results"))
    assert (ROOT / "docs/results.md").read_text(encoding="utf-8") == expected, "run `python docs/results.py`"


@pytest.mark.parametrize("name", collecting.published(ROOT / "benchmarks/results"))
def test_published_results_are_those_of_the_suite_as_it_is_today(name):
    document = collecting.published(ROOT / "benchmarks/results")[name]
    assert collecting.stale(document, load(document["suite"]["name"])) == [], "run and publish the suite again"
    assert document["missing"] == document["left_out"] == []
    commits = document["origin"]["commits"]
    assert all(re.fullmatch("[0-9a-f]{12}", commit) for commit in commits), "publish from a clean checkout"


def test_results_of_another_preset_or_suite_are_stale(finished):
    suite, folder = finished
    made = collecting.collect(suite, folder)
    assert collecting.stale(made, suite) == []
    first, *others = made["configs"]
    made["configs"] = {name: made["configs"][name] for name in others}
    changed = made["configs"][others[0]]
    changed["train"] = {**changed["train"], "learning_rate": 0.125}
    missing, different, *rest = sorted(collecting.stale(made, suite), key=lambda text: "learning_rate" in text)
    assert missing == f"{first.replace('--', ' on ')} is missing"
    assert different.startswith(f"{others[0].replace('--', ' on ')}: train.learning_rate is 0.125, not ")
    assert rest == []


def test_a_stale_page_of_results_fails_the_check(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("results", ROOT / "docs/results.py")
    results = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    monkeypatch.setattr("sys.argv", ["results.py", "--check"])
    assert results.main() == 0
    (tmp_path / "results.md").write_text((ROOT / "docs/results.md").read_text(encoding="utf-8").replace("toy", "toi"))
    monkeypatch.setattr(results, "PAGE", tmp_path / "results.md")
    assert results.main() == 1
    assert "docs/results.md is stale" in capsys.readouterr().out


# --- command line ----------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_left_and_reports(grid, tmp_path):
    suite, folder = grid
    shutil.rmtree(folder / "runs/control--toy--1")
    plan = CliRunner().invoke(bench.app, ["run", str(suite.path), "--out", str(folder), "--dry-run"])
    assert plan.exit_code == 0, plan.output
    assert "4 runs (3 done, 1 new)" in plan.output
    assert "control--toy--1" in plan.output
    made = CliRunner().invoke(
        bench.app, ["report", str(suite.path), "--out", str(folder), "--publish", str(tmp_path / "p.json")]
    )
    assert made.exit_code == 0, made.output
    assert (folder / "report/report.html").is_file()
    again = CliRunner().invoke(bench.app, ["report", str(tmp_path / "p.json"), "--to", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again/report.html").read_bytes() == (folder / "report/report.html").read_bytes()


def test_the_command_says_how_to_go_on(grid):
    suite, folder = grid
    place = ["--out", str(folder)]
    done = CliRunner().invoke(bench.app, ["run", str(suite.path), *place])
    assert f"rlzoo bench report {suite.path} --out {folder}" in done.output
    (folder / "runs/control--toy--1/metrics.jsonl").write_text("")
    reported = CliRunner().invoke(bench.app, ["report", str(suite.path), *place])
    assert "left out: control--toy--1: metrics.jsonl ends at step 0, the run at 4" in reported.output
    assert f"remove its directory in {folder / 'runs'}" in reported.output


def test_a_dry_run_writes_nothing(tmp_path):
    told = CliRunner().invoke(
        bench.app, ["run", str(suite_file(tmp_path)), "--out", str(tmp_path / "grid"), "--dry-run"]
    )
    assert "4 runs (4 new)" in told.output
    assert not (tmp_path / "grid").exists()


def test_a_cluster_where_nobody_listens_is_refused_at_once():
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(DataError, match=f"no Ray cluster answers at '{address}'"):
            list(launch.ray([], launch.Place(address=address)))


def test_an_unknown_launcher_is_refused(tmp_path):
    result = CliRunner().invoke(bench.app, ["run", str(suite_file(tmp_path)), "--launcher", "k8s"])
    assert isinstance(result.exception, ConfigError)


def test_outcomes_survive_their_file(grid):
    suite, folder = grid
    job = job_of(suite, folder)
    outcome = read_outcome(job)
    assert Outcome(**outcome.model_dump()) == outcome
    job.beside(".json").write_text("{}")
    with pytest.raises(DataError, match=r"ddpo--toy--0\.json"):
        read_outcome(job)


def test_an_axis_leaves_out_a_collapse_and_nothing_else():
    low, high = figures._limits([1.1, 1.2, 1.3, 0.9, 1.0, -80.0], 0.0)
    assert -2 < low < -1 < 1.3 < high, "as far below the base as the best is above it"
    low, high = figures._limits([0.001, -0.019, -0.017, -0.026, -0.028, -0.015], 0.0)
    assert low < -0.028, "falling is what most do here"
    assert 0.001 < high < 0.01
