"""`rlzoo_function`: a plain function as a reward, by name, and never from somebody else's run directory."""

from __future__ import annotations

import sys

import pytest
import torch
from rlzoo_function import FunctionOptions
from rlzoo_function.reward import NamedFunction, load

from rlzoo.api import Scores
from rlzoo.audio import to_samples
from rlzoo.config.opening import open_run
from rlzoo.engine.start import prepare
from rlzoo.errors import ConfigError, DataError, PluginError
from rlzoo.files.rundir import RunDirectory

CODE = """
import pathlib

pathlib.Path(__file__).with_name("imported").touch()


def power(samples, prompts):
    return [float(samples.row(i).square().mean()) for i in range(len(samples))]


class Scorer:
    def __call__(self, samples, prompts):
        return [len(prompt.text) for prompt in prompts]


letters = Scorer()
constant = 3
"""
SAMPLES = to_samples([torch.full((800,), 0.1), torch.full((400,), 0.2)], 8000)


def module(folder, name):
    path = folder / f"{name}.py"
    path.write_text(CODE, encoding="utf-8")
    return path


def test_a_function_is_found_by_file_by_module_and_beside_the_command(tmp_path, monkeypatch):
    path = module(tmp_path, "mine_one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    by_file = NamedFunction(FunctionOptions(function="mine_one.py:power"))
    assert by_file.options.function == f"{path}:power"  # a resumed run may be started elsewhere
    by_name = NamedFunction(FunctionOptions(function="mine_one:power", sample_rate=16000))
    for reward in (by_file, by_name):
        assert reward.score(SAMPLES, []).values.tolist() == pytest.approx([0.01, 0.04])
    assert by_file.version == by_name.version
    assert (by_file.sample_rate, by_name.sample_rate) == (None, 16000)
    assert load("mine_one:letters")([], []) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("mine_two:absent", "cannot be imported: AttributeError"),
        ("mine_two:constant", "is a int, not a function"),
        ("{}/absent.py:f", "cannot be imported: FileNotFoundError"),
    ],
)
def test_what_is_not_a_function_is_named(name, message, tmp_path, monkeypatch):
    module(tmp_path, "mine_two")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=message):
        load(name.format(tmp_path))


def test_a_name_without_a_function_is_refused():
    with pytest.raises(ConfigError, match=r"write package\.module:function"):
        prepare(algo="nft", rewards=["mine:"])


def test_the_flag_takes_a_function_and_imports_nothing_before_the_run(tmp_path, monkeypatch):
    module(tmp_path, "mine_three")
    monkeypatch.syspath_prepend(tmp_path)
    run = prepare(algo="nft", rewards=["mine_three:power", "guard"]).run
    assert [choice.spec.name for choice in run.rewards] == ["function", "guard"]
    assert run.rewards[0].options.function == "mine_three:power"
    assert not (tmp_path / "imported").exists()
    run.rewards[0].build()
    assert (tmp_path / "imported").exists()


@pytest.mark.parametrize("inside", ["rewards", "parts"])
def test_a_foreign_run_that_names_a_module_does_not_import_it(inside, tmp_path, monkeypatch):
    module(tmp_path, "mine_four")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"function": "mine_four:power"}
    table = (
        {"name": "function", **options}
        if inside == "rewards"
        else {"name": "composite", "parts": [{"name": "function", "options": options}]}
    )
    run = prepare({"algorithm": {"name": "nft"}, "rewards": [table]}).run
    rundir = RunDirectory.create(tmp_path / "run", toml="", config={}, env={})
    rundir.write_config(run.to_dict(), sign=False)
    with pytest.raises(DataError, match=r"import a module and call a function of it.*mine_four:power") as caught:
        open_run(rundir)
    assert "--trust" in caught.value.hint
    assert not (tmp_path / "imported").exists()
    assert open_run(rundir, trust=True).rewards[0].spec.name == table["name"]
    rundir.write_config(run.to_dict())  # as one's own, it needs no consent a second time
    assert open_run(rundir).rewards[0].spec.name == table["name"]


def bright(samples, prompts):
    """For the next test: at the top of a module, as a user's would be."""
    return Scores(torch.tensor([float(samples.row(i).diff().abs().mean()) for i in range(len(samples))]))


def test_python_takes_the_function_itself():
    from rlzoo.runs import _reward

    assert _reward(bright) == {"name": "function", "function": f"{__name__}:bright"}
    assert _reward("guard") == "guard"
    for nameless in (lambda samples, prompts: [], torch.nn.Identity()):
        with pytest.raises(ConfigError, match="cannot be found again by its name"):
            _reward(nameless)


def test_a_script_that_starts_a_run_is_not_run_a_second_time(tmp_path, monkeypatch):
    path = module(tmp_path, "script")
    script = type(sys)("__main__")
    script.__file__ = str(path)
    exec(compile(CODE, str(path), "exec"), vars(script))
    monkeypatch.setitem(sys.modules, "__main__", script)
    assert load(f"{path}:power") is script.power
