"""Discovery, isolation and look-up of plugins, through real entry points."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from rlzoo.config.registry import Registry, discover, import_target
from rlzoo.errors import ConfigError, PluginError
from rlzoo.plugin import Options, RewardSpec, hookimpl

GOOD = """
from rlzoo.plugin import Options, RewardSpec, hookimpl

@hookimpl
def rlzoo_rewards():
    yield RewardSpec(name="{name}", summary="s", target=f"{{__name__}}:Thing", options=Options)

class Thing:
    pass
"""


def reward(**changes) -> RewardSpec:
    return RewardSpec(**({"name": "toy", "summary": "s", "target": "toy:Toy", "options": Options} | changes))


def module(name: str = "toy_plugin", **hooks) -> types.ModuleType:
    """A module whose hooks return what is given."""
    made = types.ModuleType(name)
    for hook, specs in hooks.items():
        function = hookimpl(lambda specs=specs: specs)
        function.__name__ = hook
        setattr(made, hook, function)
    return made


def provider(registry: Registry, name: str):
    return next(p for p in registry.providers if p.name == name)


def test_an_installed_package_is_found_with_its_version_and_import_time(install):
    install("rlzoo_loud", GOOD.format(name="loud"), version="2.5")
    registry = discover({})
    found = provider(registry, "rlzoo-loud")
    assert found.provides == (("reward", "loud"),)
    assert (found.distribution, found.version) == ("rlzoo-loud", "2.5")
    assert 0 < found.milliseconds < 1000
    assert registry.reward("loud").target == "rlzoo_loud:Thing"


def test_importing_core_and_discovering_plugins_loads_no_torch():
    import subprocess

    code = "import sys; from rlzoo.config.registry import discover; discover(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_plugin_that_raises_on_import_costs_the_others_nothing_and_explains_itself(install):
    install("rlzoo_bad", "raise ImportError('libsndfile.so not found')", entry="bad")
    install("rlzoo_loud", GOOD.format(name="loud"))
    registry = discover({})
    assert "loud" in registry.names("reward")
    with pytest.raises(PluginError) as caught:
        registry.reward("bad")
    assert "rlzoo-bad 1.0 (rlzoo_bad) failed to load: ImportError: libsndfile.so not found" in caught.value.message
    assert "rlzoo plugins check bad" in caught.value.hint
    assert "Traceback" in provider(registry, "bad").traceback


def test_a_plugin_that_exits_on_import_does_not_end_the_program(install):
    install("rlzoo_bad", "raise SystemExit(0)", entry="bad")
    assert provider(discover({}), "bad").error.startswith("SystemExit")


def test_strict_mode_raises_the_first_load_error(install):
    install("rlzoo_bad", "1 / 0", entry="bad")
    with pytest.raises(PluginError, match="ZeroDivisionError") as caught:
        discover({"RLZOO_STRICT_PLUGINS": "1"})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_switched_off_plugins_are_not_imported_and_say_so(install):
    install("rlzoo_bad", "raise AssertionError('imported')", entry="bad")
    registry = discover({"RLZOO_DISABLE_PLUGINS": "bad"})
    assert provider(registry, "bad").disabled
    assert not provider(registry, "bad").error
    with pytest.raises(PluginError, match="switched off by RLZOO_DISABLE_PLUGINS"):
        registry.reward("bad")


def test_all_plugins_can_be_switched_off():
    registry = discover({"RLZOO_DISABLE_PLUGINS": "all"})
    assert not any(registry.specs.values())
    assert all(p.disabled for p in registry.providers)


def test_a_misspelt_name_gets_a_suggestion_and_an_absurd_one_gets_the_list():
    registry = Registry()
    registry.add_module(module(rlzoo_rewards=[reward(name="utmos")]))
    with pytest.raises(ConfigError) as near:
        registry.reward("utmoss")
    assert near.value.hint == "did you mean 'utmos'?"
    with pytest.raises(ConfigError) as far:
        registry.reward("zzzzzzzz")
    assert far.value.hint == "available: utmos"


def test_a_name_of_another_kind_is_recognised():
    registry = Registry()
    registry.add_module(module(rlzoo_rewards=[reward(name="utmos")]))
    with pytest.raises(ConfigError) as caught:
        registry.algorithm("utmos")
    assert caught.value.hint == "'utmos' is a reward"


def test_a_conflict_names_both_sides(install):
    install("rlzoo_one", GOOD.format(name="same"))
    install("rlzoo_two", GOOD.format(name="same"))
    registry = discover({})
    with pytest.raises(PluginError) as caught:
        registry.reward("same")
    assert "rlzoo-one 1.0" in caught.value.message
    assert "rlzoo-two 1.0" in caught.value.message
    assert "RLZOO_DISABLE_PLUGINS=rlzoo-two" in caught.value.hint


def test_a_partly_conflicting_plugin_adds_nothing():
    registry = Registry()
    registry.add_module(module("first", rlzoo_rewards=[reward(name="same")]))
    with pytest.raises(PluginError, match="already provided by module"):
        registry.add_module(module("second", rlzoo_rewards=[reward(name="fresh"), reward(name="same")]))
    assert registry.names("reward") == ["same"]


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([reward(api=99)], "written for plugin interface 99; this rlzoo has 1"),
        ([reward(), reward()], "announced twice by the same plugin"),
        (["utmos"], "yields str, not RewardSpec"),
        ([reward(options=dict)], "not a subclass of rlzoo.plugin.Options"),
        ([reward(options=type("Bad", (Options,), {"__annotations__": {"weight": float}, "weight": 1.0}))], "'weight'"),
    ],
)
def test_invalid_records_are_refused(specs, message):
    with pytest.raises(PluginError, match=message):
        Registry().add_module(module(rlzoo_rewards=specs))


def test_a_misspelt_hook_is_an_error():
    with pytest.raises(PluginError, match="unknown hook 'rlzoo_reward'"):
        Registry().add_module(module(rlzoo_reward=[reward()]))


def test_a_module_that_announces_nothing_is_an_error():
    with pytest.raises(PluginError, match="implements no hook"):
        Registry().add_module(module())


@pytest.mark.parametrize("name", ["UTMOS", "my_reward", "-x", "x-", "2x", ""])
def test_records_with_bad_names_cannot_be_made(name):
    with pytest.raises(PluginError):
        reward(name=name)


def test_a_plugin_file_is_loaded_and_its_target_found(tmp_path: Path):
    path = tmp_path / "my_loud_file.py"
    path.write_text(GOOD.format(name="loud"))
    registry = discover({"RLZOO_DISABLE_PLUGINS": "all"}, files=[path])
    spec = registry.reward("loud")
    assert import_target(spec.target, "reward 'loud'").__name__ == "Thing"
    del sys.modules["my_loud_file"]


@pytest.mark.parametrize(("code", "message"), [("x = ", "SyntaxError"), ("x = 1", "implements no hook")])
def test_a_broken_plugin_file_is_an_error_at_once(tmp_path: Path, code, message):
    path = tmp_path / "my_broken_file.py"
    path.write_text(code)
    with pytest.raises(PluginError, match=message):
        discover({"RLZOO_DISABLE_PLUGINS": "all"}, files=[path])
    sys.modules.pop("my_broken_file", None)


def test_a_plugin_file_may_not_take_the_name_of_a_module(tmp_path: Path):
    path = tmp_path / "json.py"
    path.write_text("")
    with pytest.raises(PluginError, match="already imported"):
        discover({"RLZOO_DISABLE_PLUGINS": "all"}, files=[path])


def test_a_missing_plugin_file_is_an_error(tmp_path: Path):
    with pytest.raises(PluginError, match="plugin file"):
        discover({"RLZOO_DISABLE_PLUGINS": "all"}, files=[tmp_path / "none.py"])


def test_a_target_that_cannot_be_imported_names_the_extra():
    with pytest.raises(PluginError, match="ModuleNotFoundError") as caught:
        import_target("no_such_module:X", "reward 'wer'", extra="wer")
    assert caught.value.hint == "pip install 'rlzoo-speech[wer]'"


def test_a_target_without_its_class_says_which():
    with pytest.raises(PluginError, match="has no 'Nothing'"):
        import_target("json:Nothing", "reward 'x'")


def test_a_file_that_fails_is_named_with_its_line(tmp_path):
    text = "from rlzoo.plugin import hookimpl\n@hookimpl\ndef rlzoo_rewards():\n    yield {}['k']\n"
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(PluginError, match=r"mine\.py' failed to load: KeyError: 'k' \(mine\.py, line 4\)"):
        discover(files=[tmp_path / "mine.py"])
    (tmp_path / "loop.py").symlink_to("loop.py")
    with pytest.raises(PluginError, match=r"loop\.py' does not exist"):
        discover(files=[tmp_path / "loop.py"])
