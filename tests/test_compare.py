"""Runs against each other and against a published curve."""

import json
import shutil

import pytest
from bench_tools import document, edit, run_grid
from typer.testing import CliRunner

from rlzoo.bench.collect import collect, dumps
from rlzoo.bench.compare import Evaluated, against, compare, evaluated
from rlzoo.cli import bench
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_grid(tmp_path_factory.mktemp("grid"))


def app():
    import typer

    made = typer.Typer()
    made.command("compare")(bench.compare)
    return made


def test_runs_are_paired_by_prompt(finished):
    _, folder = finished
    first, second = (evaluated(folder / "runs" / name) for name in ("control--toy--0", "ddpo--toy--0"))
    (found,) = compare([first, second])
    pair = found.scores["total"]
    rows = [
        json.loads((folder / f"runs/{n}--toy--0/eval/000004.json").read_text())["rows"] for n in ("ddpo", "control")
    ]
    differences = [a["scores"]["total"] - b["scores"]["total"] for a, b in zip(*rows, strict=True)]
    assert pair.count == 3
    assert pair.gain.value == pytest.approx(sum(differences) / 3)
    assert pair.wins == sum(d > 0 for d in differences)
    assert found.notes == ()


def test_what_is_unequal_is_said(finished, tmp_path):
    _, folder = finished
    shutil.copytree(folder / "runs/ddpo--toy--1", tmp_path / "run")
    RunDirectory(tmp_path / "run").set_status("running", step=4)
    edit(tmp_path / "run/config.json", lambda c: c["policy"].update(num_steps=9))
    (found,) = compare([evaluated(folder / "runs/ddpo--toy--0"), evaluated(tmp_path / "run")])
    text = " ".join(found.notes)
    for said in ("seeds differ", "is not finished (running)", "policy.num_steps is 9, not 5"):
        assert said in text


def test_runs_without_a_common_prompt_cannot_be_compared(finished, tmp_path):
    _, folder = finished
    shutil.copytree(folder / "runs/ddpo--toy--1", tmp_path / "run")
    edit(tmp_path / "run/eval/000004.json", lambda e: [row.update(prompt="x" + row["prompt"]) for row in e["rows"]])
    with pytest.raises(ConfigError, match="share no held-out prompt"):
        compare([evaluated(folder / "runs/ddpo--toy--0"), evaluated(tmp_path / "run")])


def test_a_run_of_the_same_kind_is_inside_the_band_and_a_bad_one_is_not(finished, tmp_path):
    suite, folder = finished
    reference = collect(suite, folder)
    run = evaluated(folder / "runs/ddpo--toy--0")
    system, points, different = against(reference, run)
    assert (system, different) == ("ddpo on toy", [])
    assert [point.step for point in points] == [0, 2, 4]
    assert all(point.inside for point in points)
    bad = Evaluated(
        **{**vars(run), "curve": tuple((s, {"total": scores["total"] - 99}, u) for s, scores, u in run.curve)}
    )
    assert not any(point.inside for point in against(reference, bad)[1])


def made_up_run(tmp_path, *points):
    config = {"algorithm": {"name": "good"}, "rewards": [{"name": "r"}], "train": {"steps": 10}, "seed": 5}
    curve = tuple((step, {"total": score}, {"samples": used}) for step, score, used in points)
    return Evaluated(tmp_path, config, 10, {}, curve, "done")


def test_the_reference_is_read_off_at_the_same_budget(tmp_path):
    # Seeds end at 0.35 + 0.01 s + 0.5 + 0.0035 s after 100 samples and have half the gain after 50.
    reference = document({"good": 0.5}, seeds=(0, 1))
    _, points, _ = against(reference, made_up_run(tmp_path, (0, 0.3, 0.0), (3, 0.6, 75.0), (10, 0.8, 200.0)))
    assert [point.used for point in points] == [0.0, 75.0]  # beyond the reference's reach nothing is said
    halves = [0.35 + 0.01 * s + 0.75 * (0.5 + 0.0035 * s) for s in (0, 1)]
    assert points[1].band.value == pytest.approx(sum(halves) / 2, rel=1e-5)


def test_values_that_differ_from_the_reference_are_named(tmp_path):
    run = made_up_run(tmp_path, (0, 0.3, 0.0))
    run.config["train"]["steps"] = 11
    assert against(document({"good": 0.5}), run)[2] == ["train.steps is 11, not 10"]


def test_a_reference_without_this_system_is_an_error(finished):
    _, folder = finished
    with pytest.raises(DataError, match="has no 'ddpo' trained on toy") as error:
        against(document({"good": 0.5}), evaluated(folder / "runs/ddpo--toy--0"))
    assert "good on r" in error.value.hint


def test_a_directory_without_evaluation_is_an_error(finished, tmp_path):
    _, folder = finished
    shutil.copytree(folder / "runs/ddpo--toy--0", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/eval")
    with pytest.raises(DataError, match="no evaluation yet"):
        evaluated(tmp_path / "run")


def test_the_command_compares_and_its_exit_code_tells_inside_from_outside(finished, tmp_path):
    suite, folder = finished
    runs = [str(folder / "runs" / name) for name in ("ddpo--toy--0", "control--toy--0")]
    shown = CliRunner().invoke(app(), runs)
    assert shown.exit_code == 0, shown.output
    assert "% of 3" in shown.output
    reference = collect(suite, folder)
    (tmp_path / "reference.json").write_text(dumps(reference), encoding="utf-8")
    inside = CliRunner().invoke(app(), [runs[0], "--baseline", str(tmp_path / "reference.json")])
    assert inside.exit_code == 0, inside.output
    assert "inside the band at the end" in inside.output
    for cell in reference["cells"]:
        cell["curve"][-1]["scores"]["total"] += 99
    (tmp_path / "reference.json").write_text(dumps(reference), encoding="utf-8")
    outside = CliRunner().invoke(app(), [runs[0], "--baseline", str(tmp_path / "reference.json")])
    assert outside.exit_code == 1
    assert "OUTSIDE" in outside.output


def test_one_run_alone_is_refused(finished):
    _, folder = finished
    result = CliRunner().invoke(app(), [str(folder / "runs/ddpo--toy--0")])
    assert isinstance(result.exception, ConfigError)
