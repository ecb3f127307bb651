"""The search for options: what it looks at, what it writes down, that it goes on where it stopped."""

import json
import tomllib

import pytest
from bench_tools import here

from rlzoo.bench.suite import load
from rlzoo.bench.sweep import Dimension, Search, objective, sweep
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore::Warning:optuna")


def search(folder, space=("train.learning_rate=log:1e-3:1e-1", "algorithm.estimator=is,sf"), trials=2):
    suite = load("toy")
    run = {
        "seed": 0,
        "policy": {"name": "toy-gaussian"},
        "rewards": [{"name": "toy"}],
        "algorithm": {"name": "ddpo"},
        "prompts": {"name": "toy"},
        "rollout": {"prompts_per_step": 2, "samples_per_prompt": 2},
        "train": {"steps": 4, "device": "cpu", "eval_every": 0, "save_every": 99},
        "eval": {"prompts": 2},
    }
    return Search(run, tuple(map(Dimension.parse, space)), trials, folder, suite.plugin_files)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=log:1e-5:1e-2", Dimension("a.b", "log", 1e-5, 1e-2)),
        ("a=int:1:8", Dimension("a", "int", 1, 8)),
        ("a=float:0:0.5", Dimension("a", "float", 0, 0.5)),
        ("a=x,1,true", Dimension("a", "choice", choices=("x", 1, True))),
    ],
)
def test_dimensions(text, expected):
    assert Dimension.parse(text) == expected


@pytest.mark.parametrize("text", ["a", "a=", "=int:1:2", "a=int:1", "a=int:2:1", "a=log:0:1", "a=float:x:y"])
def test_dimensions_that_are_none(text):
    with pytest.raises(ConfigError, match="--space"):
        Dimension.parse(text)


def test_trials_are_ranked_by_training_samples_of_the_last_quarter():
    rows = [{"reward/total": float(value)} for value in (9, 9, 9, 9, 9, 9, 1, 3)]
    assert objective(rows) == 2.0
    assert objective(rows[-1:]) == 3.0


def test_a_sweep_writes_its_effort_and_its_best_and_goes_on_where_it_stopped(tmp_path):
    folder, runs = tmp_path / "sweep", []

    def counted(job):
        runs.append(job.key)
        return here(job)

    first = sweep(search(folder), counted)
    assert (first["search_trials"], runs) == (2, ["trial-0000", "trial-0001"])
    more = sweep(search(folder, trials=3), counted)
    assert runs[2:] == ["trial-0002"]
    assert more["trials"][:2] == first["trials"]
    assert len({trial["values"]["train.learning_rate"] for trial in more["trials"]}) == 3
    best = max(more["trials"], key=lambda trial: trial["value"])
    assert more["best"]["trial"] == best["trial"]
    assert json.loads((folder / "sweep.json").read_text(encoding="utf-8")) == more
    file = tomllib.loads((folder / "best.toml").read_text(encoding="utf-8"))
    assert file["train"]["learning_rate"] == best["values"]["train.learning_rate"]
    metrics = RunDirectory(folder / "runs" / runs[best["trial"]]).metrics()
    assert best["value"] == pytest.approx(metrics[-1]["reward/total"])


def test_a_trial_that_diverges_is_spent_and_never_the_best(tmp_path):
    def diverges_first(job):
        return 5 if job.key == "trial-0000" else here(job)

    found = sweep(search(tmp_path / "sweep"), diverges_first)
    assert (found["search_trials"], found["diverged"]) == (2, 1)
    assert found["best"]["trial"] == 1
    with pytest.raises(DataError, match="all 1 trials"):
        sweep(search(tmp_path / "other", trials=1), lambda job: 5)


def test_a_space_that_does_not_fit_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ConfigError, match="clipp"):
        sweep(search(tmp_path / "sweep", space=("algorithm.clipp=log:1e-5:1e-2",)))
    assert not (tmp_path / "sweep").exists()


def test_a_folder_belongs_to_one_sweep(tmp_path):
    sweep(search(tmp_path / "sweep", trials=1), here)
    with pytest.raises(DataError, match="another sweep"):
        sweep(search(tmp_path / "sweep", space=("train.learning_rate=log:1e-4:1e-1",)), here)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").write_text("precious")
    with pytest.raises(DataError, match="holds no sweep"):
        sweep(search(tmp_path / "full"), here)
