"""Layers, validation, presets, capability checks and stand-in rewards."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import tomllib
import types
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

import rlzoo.testing
from rlzoo.config import toml
from rlzoo.config.checking import change_options
from rlzoo.config.fallback import Replacement, resolve_missing_rewards
from rlzoo.config.layers import build_layers, merge, override, presets, read, user_layer
from rlzoo.config.registry import Registry
from rlzoo.config.resolve import ResolvedRun, choose, resolve
from rlzoo.errors import ConfigError, DataError, PluginError
from rlzoo.plugin import AlgorithmSpec, Options, PolicySpec, PromptSpec, RewardSpec, hookimpl

TOY_RUNS = Path(rlzoo.testing.__file__).parent / "toy_runs.py"


class ClipOptions(Options):
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.1
    mode: str = "full"


class WeightsOptions(Options):
    checkpoint: Path | None = None


def named_weights(options: WeightsOptions) -> bool:
    return options.checkpoint is not None


def target(**fields):
    return {"summary": "s", "target": f"{__name__}:Built", **fields}


class Built:
    def __init__(self, options: Options) -> None:
        self.options = options


SPECS = {
    "rlzoo_algorithms": [
        AlgorithmSpec(name="clipper", **target(options=ClipOptions, needs=frozenset({"log-prob"}))),
        AlgorithmSpec(name="draft", **target(options=Options, needs=frozenset({"reward-grad"}))),
    ],
    "rlzoo_policies": [
        PolicySpec(name="speaker", **target(options=WeightsOptions, offers=frozenset({"log-prob"}))),
        PolicySpec(name="painter", **target(options=Options, offers=frozenset({"log-prob"}), emits="image")),
    ],
    "rlzoo_rewards": [
        RewardSpec(name="plain", **target(options=Options)),
        RewardSpec(name="smooth", **target(options=Options, offers=frozenset({"reward-grad"}))),
        RewardSpec(
            name="heavy",
            **target(options=WeightsOptions, offers=frozenset({"reward-grad"})),
            fallback="plain",
            available=f"{__name__}:named_weights",
        ),
        RewardSpec(name="alone", **target(options=WeightsOptions), available=f"{__name__}:named_weights"),
    ],
    "rlzoo_prompts": [PromptSpec(name="lines", **target(options=Options))],
}


@pytest.fixture
def toys() -> Registry:
    module = types.ModuleType("config_toys")
    for hook, specs in SPECS.items():
        function = hookimpl(lambda specs=specs: specs)
        function.__name__ = hook
        setattr(module, hook, function)
    registry = Registry()
    registry.add_module(module)
    return registry


BASE = {
    "policy": {"name": "speaker"},
    "prompts": {"name": "lines"},
    "algorithm": {"name": "clipper"},
    "rewards": [{"name": "plain"}],
}


def fails(registry: Registry, user=BASE, *sets: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        resolve(user, registry, overrides=sets)
    return caught.value


# --- layers


def test_every_layer_overrides_the_one_below(toys):
    file = {**BASE, "seed": 1, "train": {"steps": 5, "learning_rate": 0.5}}
    user = user_layer(file, seed=2, steps=6, device="cpu")
    run = resolve(user, toys, overrides=["train.steps=7", "algorithm.clip=0.3", "train.steps=8"])
    assert (run.seed, run.train.steps, run.train.learning_rate, run.train.device) == (2, 8, 0.5, "cpu")
    assert run.algorithm.options == ClipOptions(clip=0.3)


def test_the_input_is_not_changed(toys):
    before = json.dumps(BASE)
    resolve(
        user_layer(BASE, rewards=["smooth"], steps=3), toys, overrides=["rewards.0.weight=2", "policy.checkpoint=x"]
    )
    assert json.dumps(BASE) == before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1e-4", 1e-4),
        ("true", True),
        ("word", "word"),
        ("weights/a b.pt", "weights/a b.pt"),
        ('"1"', "1"),
        ("[1, 2]", [1, 2]),
        ('{name="x"}', {"name": "x"}),
        ("", ""),
    ],
)
def test_values_of_set_are_toml_and_bare_words_are_strings(text, value):
    assert override({}, f"a.b={text}") == {"a": {"b": value}}


@pytest.mark.parametrize("item", ["a", "=1", ".a=1", "a..b=1", "a=[1", 'a="x', "a=1\nb=2"])
def test_set_refuses_what_is_no_assignment(item):
    with pytest.raises(ConfigError):
        override({}, item)


def test_set_indexes_lists():
    data = {"rewards": [{"name": "a"}, {"name": "b"}]}
    assert override(data, "rewards.1.weight=2")["rewards"][1] == {"name": "b", "weight": 2}
    with pytest.raises(ConfigError) as caught:
        override(data, "rewards.2.weight=2")
    assert "list of 2" in caught.value.message
    assert caught.value.hint == "indices run from 0 to 1"


def test_set_does_not_enter_values():
    with pytest.raises(ConfigError, match="is a value, not a table"):
        override({"seed": 1}, "seed.x=1")


def test_a_table_that_names_another_plugin_replaces_the_one_below():
    below = {"policy": {"name": "a", "size": 1}, "train": {"steps": 1, "device": "cpu"}}
    assert merge(below, {"policy": {"name": "b"}, "train": {"steps": 2}}) == {
        "policy": {"name": "b"},
        "train": {"steps": 2, "device": "cpu"},
    }
    assert merge(below, {"policy": {"depth": 2}})["policy"] == {"name": "a", "size": 1, "depth": 2}


def test_a_flag_does_not_throw_options_of_the_file_away():
    with pytest.raises(ConfigError) as caught:
        user_layer({"algorithm": {"name": "clipper", "clip": 0.2}}, algorithm="draft")
    assert caught.value.hint == "replace the whole table: --set 'algorithm={name=\"draft\"}'"


def test_a_reward_flag_keeps_the_files_table_of_that_reward():
    file = {"rewards": [{"name": "plain", "weight": 3.0}, {"name": "heavy"}]}
    assert user_layer(file, rewards=["smooth", "plain"])["rewards"] == [
        {"name": "smooth"},
        {"name": "plain", "weight": 3.0},
    ]


def test_replacing_the_whole_algorithm_by_set(toys):
    user = {**BASE, "algorithm": {"name": "clipper", "clip": 0.2}, "rewards": [{"name": "smooth"}]}
    assert resolve(user, toys, overrides=['algorithm={name="draft"}']).algorithm.spec.name == "draft"


def test_a_bare_run_has_policy_and_prompts(toys, monkeypatch):
    monkeypatch.setattr("rlzoo.config.layers.DEFAULT_POLICY", "speaker")
    data = build_layers({"algorithm": {"name": "clipper"}}, toys)
    assert (data["policy"]["name"], data["prompts"]["name"]) == ("speaker", "short")


@pytest.mark.parametrize(
    ("asked", "table"),
    [
        ("short", {"name": "short"}),
        ("my.txt", {"name": "text", "path": "my.txt"}),
        ("./lines", {"name": "text", "path": "./lines"}),
        ("corpus/metadata.csv", {"name": "ljspeech", "path": "corpus/metadata.csv"}),
        (".", {"name": "ljspeech", "path": "."}),
    ],
)
def test_prompts_are_a_set_or_a_path(asked, table):
    assert user_layer({"prompts": {"name": "short"}}, prompts=asked)["prompts"] == table
    assert user_layer(prompts="") == {}


@pytest.mark.parametrize("sets", [(), ("policy={name='painter'}",), ("policy.name=painter",)])
def test_what_suits_the_policy_lies_under_everything_but_the_built_in_choices(toys, sets, monkeypatch):
    monkeypatch.setattr("rlzoo.config.layers.DEFAULT_POLICY", "speaker")
    suits = {"train": {"learning_rate": 0.02, "steps": 5}, "rollout": {"num_steps": 3}}
    painter = dataclasses.replace(toys.policy("painter"), run=suits)
    registry = dataclasses.replace(toys, specs={**toys.specs, "policy": {**toys.specs["policy"], "painter": painter}})
    user = {"algorithm": {"name": "clipper"}, "train": {"steps": 7}}
    named = user if sets else {**user, "policy": {"name": "painter"}}
    assert "rollout" not in build_layers(user, registry)
    data = build_layers(named, registry, overrides=(*sets, "rollout.num_steps=4"))
    assert data["train"] == {"learning_rate": 0.02, "steps": 7}
    assert data["rollout"]["num_steps"] == 4


def test_an_algorithm_scales_the_learning_rate_of_the_policy_and_no_other(registry):
    def rate(algorithm: str, *overrides: str, preset: str = "") -> float:
        user = {"algorithm": {"name": algorithm}, "policy": {"name": "gradtts"}, "rewards": [{"name": "guard"}]}
        return resolve(user, registry, preset=preset, overrides=overrides).train.learning_rate

    assert rate("ddpo") == registry.policy("gradtts").run["train"]["learning_rate"] == 0.003
    assert [rate(name) for name in ("nft", "awm", "dgpo", "dpo")] == [0.0003] * 4
    assert rate("nft", "train.learning_rate=0.002") == 0.002
    assert rate("dpo", preset="paper") == 2.048e-5
    assert rate("nft", "policy.name=wavegrad2") == rate("ddpo", "policy.name=wavegrad2")  # it names none


@pytest.mark.parametrize(("text", "words"), [("a = ", "is not valid TOML"), ("\x00", "is not valid TOML")])
def test_unreadable_run_files(tmp_path, text, words):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read(path)
    with pytest.raises(ConfigError, match="cannot read run file"):
        read(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(path)


# --- validation


@pytest.mark.parametrize(
    ("item", "message", "hint"),
    [
        ("algorithm.clp=0.2", "invalid config: algorithm.clp: no such option", "did you mean 'clip'?"),
        ("algorithm.clip=5", "invalid config: algorithm.clip: should be less than 1, not 5", "the default is 0.1"),
        (
            "algorithm.clip=nan",
            "invalid config: algorithm.clip: should be a finite number, and nan is not a number",
            "the default is 0.1",
        ),
        ("algorithm.learning_rate=1", "algorithm.learning_rate: no such option", "'learning_rate' belongs to [train]"),
        ("train.stpes=1", "train.stpes: no such option", "did you mean 'steps'?"),
        ("train.steps=0", "train.steps: should be greater than or equal to 1, not 0", "the default is 14"),
        ("train.budget.sampels=1", "train.budget.sampels: no such option", "did you mean 'samples'?"),
        ("rewards.0.wieght=1", "rewards.0.wieght: no such option", "did you mean 'weight'?"),
        (
            "rewards.0.weight=nan",
            "rewards.0.weight: should be a finite number, and nan is not a number",
            "the default is 1.0",
        ),
        ("trian.steps=1", "trian: no such key", "did you mean 'train'?"),
        ("seed=-1", "seed: should be greater than or equal to 0, not -1", "the default is 0"),
        ("algorithm.name=cliper", "unknown algorithm 'cliper'", "did you mean 'clipper'?"),
        ("eval.judges=['plian']", "unknown reward 'plian'", "did you mean 'plain'?"),
        ("policy=3", "invalid config: policy: is a table", "write [policy]"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(toys, item, message, hint):
    error = fails(toys, BASE, item)
    assert message in error.message
    assert error.hint == hint
    assert error.exit_code == 2


def test_a_hint_names_the_default_that_suits_the_policy(registry):
    user = {"policy": {"name": "gradtts"}, "algorithm": {"name": "dlpo"}, "rewards": [{"name": "guard"}]}
    suits = registry.policy("gradtts").run["train"]["learning_rate"]
    assert fails(registry, user, "train.learning_rate=5").hint == f"the default is {suits}"
    two = fails(registry, user, "algorithm.clp=1", "train.learning_rate=5")  # whatever else is wrong
    assert f"the default is {suits}" in two.message
    user["algorithm"]["name"] = "nft"
    assert fails(registry, user, "train.learning_rate=5").hint == "the default is 0.0003"


def test_several_mistakes_are_all_named(toys):
    message = fails(toys, BASE, "algorithm.clp=1", "train.stpes=1").message
    assert "algorithm.clp" in message
    assert "train.stpes" in message


def test_what_must_be_named(toys):
    assert "clipper, draft" in fails(toys, {**BASE, "algorithm": {}}).hint
    assert "plain" in fails(toys, {**BASE, "rewards": []}).hint
    assert "[[rewards]]" in fails(toys, {**BASE, "rewards": {"name": "plain"}}).hint


def test_a_reward_may_be_named_once(toys):
    assert "'plain' is named twice" in fails(toys, {**BASE, "rewards": [{"name": "plain"}, {"name": "plain"}]}).message


def test_a_broken_plugin_does_not_spoil_a_run_without_it(toys, install):
    install("rlzoo_bad", "1 / 0", entry="bad")
    from rlzoo.config.registry import discover

    bad = discover({})
    bad.specs = toys.specs
    assert resolve(BASE, bad).algorithm.spec.name == "clipper"
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        resolve({**BASE, "algorithm": {"name": "bad"}}, bad)


def test_relative_paths_are_those_of_the_command(toys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = resolve(BASE, toys, overrides=["policy.checkpoint=a/b.pt"])
    assert run.policy.options == WeightsOptions(checkpoint=tmp_path / "a/b.pt")


def test_a_run_survives_json(toys):
    run = resolve(BASE, toys, overrides=["policy.checkpoint=/a.pt", "rewards.0.weight=-1", "train.budget.seconds=2.5"])
    again = ResolvedRun.from_dict(json.loads(json.dumps(run.to_dict())), toys)
    assert again == run


def test_a_choice_builds_its_target(toys):
    built = choose("algorithm", "clipper", toys, {"clip": 0.4}).build()
    assert isinstance(built, Built)
    assert built.options == ClipOptions(clip=0.4)


def test_errors_of_a_constructor_keep_their_type_and_get_a_note(toys, monkeypatch):
    monkeypatch.setattr(Built, "__init__", lambda self, options: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        choose("algorithm", "clipper", toys).build()
    assert caught.value.__notes__ == [f"while building 'clipper' ({__name__}:Built)"]


def test_a_revised_table_is_checked(toys):
    table = resolve(BASE, toys).train
    assert change_options(table, {"steps": 99}, "train").steps == 99
    with pytest.raises(ConfigError, match=r"train.steps"):
        change_options(table, {"steps": 0}, "train")


# --- capabilities


def test_a_need_nobody_meets_is_refused_with_who_lacks_it(toys):
    user = {**BASE, "algorithm": {"name": "draft"}, "rewards": [{"name": "smooth"}, {"name": "plain"}]}
    error = fails(toys, user)
    assert "algorithm 'draft' needs reward-grad" in error.message
    assert "reward 'plain'" in error.message
    assert "reward 'smooth'" not in error.message
    assert "policy" not in error.message  # no policy could offer it


def test_a_need_that_every_reward_meets_is_enough(toys):
    resolve({**BASE, "algorithm": {"name": "draft"}, "rewards": [{"name": "smooth"}]}, toys)


@pytest.mark.parametrize(("algorithm", "sets"), [("grpo", []), ("bon", []), ("dpo", ["train.advantage=batch"])])
def test_one_sample_of_a_prompt_is_refused_where_samples_are_compared(registry, algorithm, sets):
    user = user_layer(algorithm=algorithm, rewards=["dnsmos"])
    with pytest.raises(ConfigError, match="compares the samples of a prompt") as caught:
        resolve(user, registry, overrides=[*sets, "rollout.samples_per_prompt=1"])
    assert "2 or more" in caught.value.hint
    resolve(user, registry, overrides=[*sets, "rollout.samples_per_prompt=2"])


def test_one_sample_of_a_prompt_is_enough_where_nothing_is_compared_within_it(registry):
    one = ["rollout.samples_per_prompt=1"]
    resolve(user_layer(algorithm="grpo", rewards=["dnsmos"]), registry, overrides=[*one, "train.advantage=batch"])
    resolve(user_layer(algorithm="sft", rewards=["dnsmos"]), registry, overrides=one)


def test_every_algorithm_says_what_it_compares(registry):
    for name in registry.names("algorithm"):
        spec = registry.get("algorithm", name)
        code = Path(importlib.util.find_spec(spec.target.split(":")[0]).origin).read_text()
        assert (spec.compares != "") == (
            "ctx.advantages(" in code or "samples_per_prompt to 2" in code or name == "bon"
        )


def test_a_reward_must_take_what_the_policy_makes(toys):
    assert (
        "reward 'plain' judges audio, but policy 'painter' makes image"
        in fails(toys, {**BASE, "policy": {"name": "painter"}}).message
    )


# --- judges


@pytest.mark.parametrize(
    ("reward", "sets", "judges"),
    [
        ("dnsmos", (), ("guard", "distillmos")),
        ("nisqa", (), ("guard", "distillmos", "dnsmos")),
        ("guard", (), ("distillmos", "dnsmos")),
        ("dnsmos", ("eval.judges=[]",), ()),
        ("dnsmos", ("eval.judges=['wer']",), ("wer",)),
    ],
)
def test_what_trains_never_judges_alone(registry, reward, sets, judges):
    run = resolve(user_layer(algorithm="dlpo", rewards=[reward]), registry, overrides=sets)
    assert run.eval.judges == judges
    assert ResolvedRun.from_dict(run.to_dict(), registry) == run


def test_default_judges_judge_only_what_they_accept_and_what_is_there(toys):
    assert resolve(BASE, toys).eval.judges == ()
    vectors = user_layer(algorithm="ddpo", rewards=["toy"], policy="toy-gaussian", prompts="toy")
    assert resolve(vectors, plugin_files=[TOY_RUNS]).eval.judges == ()


# --- presets


@pytest.fixture
def with_presets(install) -> Registry:
    code = """
    from typing import Annotated
    from pydantic import Field
    from rlzoo.plugin import AlgorithmSpec, Options, hookimpl

    class O(Options):
        clip: float = 0.1

    @hookimpl
    def rlzoo_algorithms():
        yield AlgorithmSpec(name="pre", summary="s", target="rlzoo_pre.heavy:A", options=O)
    """
    folder = install("rlzoo_pre", code) / "presets"
    folder.mkdir()
    (folder / "default.toml").write_text("[algorithm]\nclip = 0.2\n")
    (folder / "paper.toml").write_text("[algorithm]\nclip = 0.3\n[train]\nsteps = 7\nlearning_rate = 0.5\n")
    from rlzoo.config.registry import discover

    return discover({})


def test_presets_lie_between_defaults_and_the_user(with_presets, toys):
    with_presets.specs["policy"], with_presets.specs["reward"] = toys.specs["policy"], toys.specs["reward"]
    with_presets.specs["prompts"] = toys.specs["prompts"]
    assert presets(with_presets.algorithm("pre")) == ["default", "paper"]
    user = {**BASE, "algorithm": {"name": "pre"}, "train": {"steps": 9}}
    assert resolve(user, with_presets).algorithm.options.model_dump() == {"clip": 0.2}
    run = resolve(user, with_presets, preset="paper")
    assert run.algorithm.options.model_dump() == {"clip": 0.3}
    assert (run.train.steps, run.train.learning_rate) == (9, 0.5)
    with pytest.raises(ConfigError) as caught:
        resolve(user, with_presets, preset="papre")
    assert caught.value.hint == "did you mean 'paper'?"


def test_every_shipped_preset_resolves(registry):
    count = 0
    for name, spec in registry.specs["algorithm"].items():
        for preset in presets(spec):
            run = resolve(user_layer(algorithm=name, rewards=["dnsmos"]), registry, preset=preset)
            assert run.algorithm.spec is spec
            count += 1
    assert count >= len(registry.specs["algorithm"])


def test_another_algorithm_changes_nothing_else(registry):
    """`--algo` alone, with its default preset: all that is not the algorithm's own table stays as it was.

    Two exceptions, stated in README: a sample of `draft` or `adjoint-matching` has a gradient of its own, so a step
    takes fewer, and four methods of the forward process take a tenth of the policy's learning rate.
    """
    names = list(registry.specs["algorithm"])
    configs = {name: resolve(user_layer(algorithm=name, rewards=["dnsmos"]), registry).to_dict() for name in names}
    tables = {name: config.pop("algorithm") for name, config in configs.items()}
    assert len(names) > 12
    assert configs["dlpo"]["eval"]["judges"] == ["guard", "distillmos"]
    assert {name: table["name"] for name, table in tables.items()} == {name: name for name in names}
    expected = configs["dlpo"]
    fewer = {**expected, "rollout": {**expected["rollout"], "prompts_per_step": 6}}
    fewest = {
        **expected,
        "rollout": {**fewer["rollout"], "samples_per_prompt": 2},
        "train": {**expected["train"], "steps": 24},
    }
    slower = {**expected, "train": {**expected["train"], "learning_rate": 0.0003}}
    exceptions = {"draft": fewest, "adjoint-matching": fewer, **dict.fromkeys(("nft", "awm", "dgpo", "dpo"), slower)}
    for name in names:
        assert configs[name] == exceptions.get(name, expected), name


# --- stand-ins


def heavy(toys, *sets: str, name: str = "heavy") -> ResolvedRun:
    return resolve({**BASE, "rewards": [{"name": name, "weight": 2.0}]}, toys, overrides=sets)


def test_a_reward_without_weights_is_replaced_and_both_names_are_kept(toys):
    run, replaced = resolve_missing_rewards(heavy(toys), toys)
    (reward,) = run.rewards
    assert (reward.used, reward.requested, reward.weight) == ("plain", "heavy", 2.0)
    assert [(r.requested, r.used) for r in replaced] == [("heavy", "plain")]
    assert ResolvedRun.from_dict(run.to_dict(), toys) == run


def test_a_reward_with_weights_is_left_alone(toys):
    run = heavy(toys, "rewards.0.checkpoint=w.pt")
    assert resolve_missing_rewards(run, toys) == (run, ())


def test_weights_are_fetched_first(toys, monkeypatch):
    from dataclasses import replace

    asset = object()
    there = []
    spec = replace(toys.reward("heavy"), assets=(asset,))
    toys.specs["reward"]["heavy"] = spec
    monkeypatch.setattr(f"{__name__}.named_weights", lambda options: bool(there))
    run = heavy(toys)
    assert resolve_missing_rewards(run, toys, fetch=lambda spec: there.append(spec.name)) == (run, ())

    def refuse(spec):
        raise DataError("no route to host")

    there.clear()
    assert resolve_missing_rewards(run, toys, fetch=refuse)[1] == (Replacement("heavy", "plain", "no route to host"),)


@pytest.mark.parametrize(("sets", "strict"), [((), True), (("rewards.0.on_missing=error",), False)])
def test_refusing_instead_of_replacing(toys, sets, strict):
    with pytest.raises(DataError, match="weights of reward 'heavy' are unavailable") as caught:
        resolve_missing_rewards(heavy(toys, *sets), toys, strict=strict)
    assert caught.value.exit_code == 4


def test_a_reward_without_a_stand_in_is_refused(toys):
    with pytest.raises(DataError, match="'alone'"):
        resolve_missing_rewards(heavy(toys, name="alone"), toys)


def test_a_stand_in_that_is_a_reward_already_would_count_twice(toys):
    run = resolve({**BASE, "rewards": [{"name": "heavy"}, {"name": "plain"}]}, toys)
    with pytest.raises(ConfigError, match="one of the rewards already"):
        resolve_missing_rewards(run, toys)


def test_a_stand_in_must_offer_what_the_algorithm_needs(toys):
    run = resolve({**BASE, "algorithm": {"name": "draft"}, "rewards": [{"name": "heavy"}]}, toys)
    with pytest.raises(ConfigError, match="needs reward-grad"):
        resolve_missing_rewards(run, toys)


# --- writing TOML


def test_toml_is_read_back_equal():
    data = {
        "seed": 3,
        "train": {"budget": {"seconds": 1.5}, "steps": 2, "device": 'a "b" \\ \n\t'},
        "rewards": [{"name": "a", "weight": -1e-05}, {"name": "b", "extra": {"x": [1, 2]}}],
        "odd key": {"ü": True},
        "list": ["a", [1.0, float("inf")]],
    }
    assert tomllib.loads(toml.dumps(data)) == data


def test_toml_leaves_none_out_and_refuses_what_it_cannot_write():
    assert toml.dumps({"a": None, "b": {"c": None}}) == "[b]\n"
    with pytest.raises(TypeError):
        toml.dumps({"a": object()})
