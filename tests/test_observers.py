"""Observers see a run and cannot change it."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch

from rlzoo.api import RunObserver
from rlzoo.config.resolve import Choice
from rlzoo.engine.events import Note
from rlzoo.engine.loop import train
from rlzoo.engine.observers import Observers
from rlzoo.errors import ConfigError, ContractError, PluginError
from rlzoo.plugin import ObserverSpec, Options
from rlzoo.testing import check_plugin
from rlzoo.testing.toy_runs import start, toy_run

UNTRAINED = {"name": "toy-gaussian", "pretrain_steps": 0}


def spec(kind: type, name: str = "mine", **more) -> ObserverSpec:
    return ObserverSpec(name=name, summary="s", target=f"{__name__}:{kind.__name__}", options=Options, **more)


def observed(*kinds: type, **tables):
    run = toy_run(**{"policy": UNTRAINED, "train": {"steps": 2, "eval_every": 1, "self_checks": False}, **tables})
    choices = tuple(Choice(spec(kind, f"mine-{index}"), Options()) for index, kind in enumerate(kinds))
    return dataclasses.replace(run, observers=choices)


CALLS: list[tuple] = []


class Keeps(RunObserver[Options]):
    """Keeps what it is told, then spoils it, and draws from every generator that there is."""

    def _told(self, *call):
        CALLS.append(call)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        torch.set_grad_enabled(False)

    def start(self, run):
        self._told("start", run.first_step, run.steps, run.config["train"]["steps"], run.directory)
        run.config["train"]["steps"] = 99

    def step(self, step, metrics):
        self._told("step", step, dict(metrics))
        metrics.clear()

    def evaluation(self, step, scores):
        self._told("evaluation", step, {name: dict(figures) for name, figures in scores.items()})
        scores["total"].clear()

    def audio(self, step, sample):
        self._told("audio", step, sample.prompt)

    def end(self, state):
        self._told("end", state)


class Fails(RunObserver[Options]):
    def step(self, step, metrics):
        raise KeyError("missing")


class Exits(RunObserver[Options]):
    def __init__(self, options):
        raise SystemExit(3)


class Unfinished(RunObserver[Options]):
    def end(self, state):
        raise OSError("no space")


def result(rundir):
    rows = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rundir.metrics()]
    return rows, (rundir / "checkpoints/000002/policy.safetensors").read_bytes()


def test_a_run_is_the_same_to_the_last_bit_with_observers_and_without(tmp_path):
    CALLS.clear()
    results, notes = [], []
    for name, kinds in (("without", ()), ("with", (Fails, Keeps, Exits, Unfinished))):
        run = observed(*kinds)
        rundir = start(run, tmp_path / name)
        train(run, rundir, observer=lambda event: notes.append(event.message) if isinstance(event, Note) else None)
        results.append(result(rundir))
        assert rundir.status()["state"] == "done"
    assert results[0] == results[1]
    # What it was told is the run's own record, in order.
    assert [call[:2] for call in CALLS] == [
        ("start", 0),
        ("evaluation", 0),
        ("step", 1),
        ("evaluation", 1),
        ("step", 2),
        ("evaluation", 2),
        ("end", "done"),
    ]
    assert CALLS[0][1:4] == (0, 2, 2)
    assert [call[2] for call in CALLS if call[0] == "step"] == rundir.metrics()
    assert "gain" in CALLS[-2][2]["total"]
    # What raises is told once, with its place.
    told = [note for note in notes if note.startswith("observer ")]
    assert len(told) == 3
    assert "'mine-2' failed in __init__() and is switched off: SystemExit: 3" in told[0]
    assert "'mine-0' failed in step() and is switched off: KeyError: 'missing' (test_observers.py, line" in told[1]
    assert "'mine-3' failed in end()" in told[2]


def test_an_observer_is_told_how_a_run_fails(tmp_path, monkeypatch):
    from rlzoo.testing.toy_runs import PolicyGradient

    CALLS.clear()
    monkeypatch.setattr(PolicyGradient, "step", lambda self, ctx: {})
    run = observed(Keeps, train={"steps": 1, "self_checks": True})
    with pytest.raises(ContractError):
        train(run, start(run, tmp_path / "run"))
    assert CALLS[-1] == ("end", "failed")


def test_an_observer_that_is_not_installed_stops_the_run_before_it_begins(tmp_path):
    run = toy_run(policy=UNTRAINED)
    missing = ObserverSpec(name="gone", summary="s", target="no_such_package:X", options=Options, extra="gone")
    run = dataclasses.replace(run, observers=(Choice(missing, Options()),))
    with pytest.raises(PluginError, match="observer 'gone' cannot be imported") as caught:
        Observers(run, start(run, tmp_path / "run"), lambda event: None)
    assert caught.value.hint == "pip install 'rlzoo-speech[gone]'"


def test_observers_are_named_in_the_run_file_or_by_a_flag(tmp_path):
    from rlzoo.engine.start import prepare

    file = {
        "algorithm": {"name": "nft"},
        "rewards": [{"name": "guard"}],
        "observers": [{"name": "tensorboard", "audio": 9}],
    }
    assert [c.options.audio for c in prepare(file).run.observers] == [9]
    both = prepare(file, observers=["wandb", "tensorboard"], overrides=["observers.0.mode=offline"]).run
    assert [(c.spec.name, c.options.audio) for c in both.observers] == [("wandb", 4), ("tensorboard", 9)]
    assert both.observers[0].options.mode == "offline"
    again = type(both).from_dict(both.to_dict())
    assert again.observers == both.observers
    for wrong, message in (
        ([{"name": "tensorboard"}] * 2, "'tensorboard' is named twice"),
        ({"name": "tensorboard"}, "is a list of tables"),
        ([{"name": "tensorboard", "audi": 1}], "observers.0.audi: no such option"),
        ([{"name": "tensorbord"}], "unknown observer 'tensorbord'"),
        ([{}], "observers.0.name: a string is required"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare({**file, "observers": wrong})


def test_a_foreign_run_that_sends_data_away_needs_trust(tmp_path, registry):
    from rlzoo.config.opening import open_run
    from rlzoo.errors import DataError
    from rlzoo.files.rundir import RunDirectory

    run = toy_run()
    run = dataclasses.replace(run, observers=(Choice(registry.get("observer", "wandb"), Options()),), plugin_files=())
    config = {
        **run.to_dict(),
        "policy": {"name": "gradtts"},
        "prompts": {"name": "short"},
        "algorithm": {"name": "nft"},
    }
    config |= {"rewards": [{"name": "guard", "requested": "guard", "weight": 1.0}], "observers": [{"name": "wandb"}]}
    rundir = RunDirectory.create(tmp_path / "run", toml="", config={}, env={})
    rundir.write_config(config, sign=False)
    with pytest.raises(DataError, match="Weights & Biases"):
        open_run(rundir)
    assert open_run(rundir, trust=True).observers[0].spec.name == "wandb"
    open_run(rundir, uses=("policy", "rewards", "prompts"))  # to judge it, nobody is told


class Writes(RunObserver[Options]):
    def start(self, run):
        (run.directory / "metrics.jsonl").write_text("mine")


def test_the_kit_catches_an_observer_that_raises_and_one_that_writes_over_the_run():
    outcome = {r.check: r.outcome for r in check_plugin(spec(Fails), "run")}
    assert outcome["sees_a_whole_run"] == "failed"
    outcome = {r.check: r.outcome for r in check_plugin(spec(Writes), "run")}
    assert (outcome["sees_a_whole_run"], outcome["leaves_the_run_files_alone"]) == ("passed", "failed")
    outcome = {r.check: r.outcome for r in check_plugin(spec(Fails, acts="send it away"), "run")}
    assert set(outcome.values()) == {"skipped"}
