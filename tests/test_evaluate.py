"""Held-out evaluation: paired with the base, independent of training, complete on disk."""

import dataclasses
import json

import pytest
import torch

from rlzoo.api import Media, Prompt, Reward, Scores
from rlzoo.audio import read_audio
from rlzoo.config.resolve import Choice, RewardChoice
from rlzoo.engine import scoring
from rlzoo.engine.evaluate import _gain, evaluate, read
from rlzoo.engine.loop import train
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import build
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory
from rlzoo.plugin import Options, PolicySpec, RewardSpec
from rlzoo.testing.specs import ToyPolicyOptions
from rlzoo.testing.toy_runs import start, toy_run
from rlzoo.testing.toys import GaussianToy, ToyPrompts


class AudioToy(GaussianToy):
    """The toy's vectors, called audio."""

    media = Media("audio", 8_000)


class Loudness(Reward[Options]):
    """Mean of the samples; wants another rate than the toy has."""

    sample_rate = 16_000

    def score(self, samples, prompts):
        assert samples.media.sample_rate == 16_000
        return Scores(samples.data.sum(-1) / samples.lengths, {"peak": samples.data.amax(-1)})


def audio_run(**tables):
    run = toy_run(**tables)
    policy = PolicySpec(name="audio-toy", summary="toy", target=f"{__name__}:AudioToy", options=ToyPolicyOptions)
    reward = RewardSpec(name="loudness", summary="toy", target=f"{__name__}:Loudness", options=Options)
    return dataclasses.replace(
        run, policy=Choice(policy, ToyPolicyOptions()), rewards=(RewardChoice(reward, Options(), "loudness"),)
    )


def live(run, path):
    return build(run, start(run, path), make_fabric("cpu", "fp32"), lambda event: None)


def test_audio_scores_and_their_index_are_written(tmp_path):
    run = audio_run(train={"steps": 1})
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    folder = rundir / "samples/000001"
    index = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    document = read(rundir, 1)
    assert len(index) == len(document["rows"]) == 3 * 2
    for entry, row in zip(index, document["rows"], strict=True):
        wave, rate = read_audio(rundir / entry["file"])
        assert rate == 8_000
        assert 2 <= len(wave) <= 4, "cut to the row's own length"
        assert entry["scores"] == row["scores"]
    assert {path.name for path in folder.glob("*.wav")} == {entry["file"].split("/")[-1] for entry in index}
    assert "reward/loudness/peak" in rundir.metrics()[0]


def test_the_untrained_policy_gains_nothing_on_the_same_noise(tmp_path):
    found = live(toy_run(), tmp_path / "run")
    directory = RunDirectory(found.ctx.failures.parent)
    base = evaluate(found.ctx, found.heldout, [], toy_run().eval, directory)
    assert "gain" not in base["scores"]["total"]
    found.ctx.step = 5
    again = evaluate(found.ctx, found.heldout, [], toy_run().eval, directory)
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in base["rows"]]
    assert again["scores"]["total"]["gain"] == again["scores"]["total"]["gain_error"] == 0.0


def test_the_gain_is_the_paired_difference(tmp_path):
    run = toy_run(train={"steps": 6})
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    base, tuned = (torch.tensor([row["scores"]["toy"] for row in read(rundir, step)["rows"]]) for step in (0, 6))
    figures = read(rundir, 6)["scores"]["toy"]
    difference = tuned - base
    assert figures["gain"] == pytest.approx(float(difference.mean()), rel=1e-4)
    # Three prompts, two samples each: three observations, not six.
    of_prompts = difference.view(3, 2).mean(1)
    assert figures["gain_error"] == pytest.approx(float(of_prompts.std()) / 3**0.5, rel=1e-3)
    assert figures["improved"] == pytest.approx(float((difference > 0).float().mean()))


def test_evaluating_more_often_changes_no_training(tmp_path):
    rows = []
    for every in (0, 1):
        run = toy_run(train={"eval_every": every})
        rundir = start(run, tmp_path / str(every))
        train(run, rundir)
        rows.append([{k: v for k, v in row.items() if not k.endswith("seconds")} for row in rundir.metrics()])
    assert rows[0] == rows[1]


def test_judges_judge_and_are_no_part_of_the_total(tmp_path):
    found = live(toy_run(), tmp_path / "run")
    judge = dataclasses.replace(found.ctx.scorers[0], name="judge", reward=Doubled(Options()))
    document = evaluate(found.ctx, found.heldout, [judge], toy_run().eval, RunDirectory(found.ctx.failures.parent))
    for row in document["rows"]:
        assert row["scores"]["total"] == row["scores"]["toy"]
        assert row["scores"]["judge"] == 7.0


class Doubled(Reward[Options]):
    def score(self, samples, prompts):
        return Scores(torch.full((len(samples),), 7.0))


def test_rows_of_a_prompt_are_never_parted():
    prompts = [Prompt(name) for name in "aabbbccccd"]
    for micro_batch in (1, 3, 4, 5, 100):
        calls = scoring.calls(prompts, micro_batch)
        assert [row for call in calls for row in range(call.start, call.stop)] == list(range(10))
        starts = {call.start for call in calls}
        assert starts <= {0, 2, 5, 9}
        assert all(call.stop - call.start <= max(micro_batch, 4) for call in calls)


def test_a_prompt_set_without_held_out_prompts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyPrompts, "heldout", lambda self: [])
    run = toy_run()
    with pytest.raises(ConfigError, match="no held-out prompts"):
        train(run, start(run, tmp_path / "run"))


def test_a_damaged_base_evaluation_is_named(tmp_path):
    run = toy_run(train={"steps": 1})
    rundir = start(run, tmp_path / "run")
    train(run, rundir)
    (rundir / "eval/000000.json").write_text("{")
    with pytest.raises(DataError, match=r"eval/000000\.json"):
        train(run, rundir, resume=True)


def test_the_error_of_the_gain_does_not_shrink_when_a_prompt_is_sampled_again():
    """Four copies of each sample hold nothing new."""
    draw = torch.Generator().manual_seed(0)
    base, tuned = torch.randn(2, 50, generator=draw, dtype=torch.float64)
    once = _gain(tuned, base.tolist(), 1)
    again = _gain(tuned.repeat_interleave(4), base.repeat_interleave(4).tolist(), 4)
    assert again["gain_error"] == pytest.approx(once["gain_error"])
    assert once["gain_error"] == pytest.approx(float((tuned - base).std()) / 50**0.5)


def test_a_sample_that_stays_as_it_was_has_not_improved():
    assert _gain(torch.tensor([1.0, 2.0, 3.0, 5.0]), [1.0, 2.0, 4.0, 4.0], 1)["improved"] == 0.25


def test_samples_of_one_prompt_have_noise_of_their_own_and_the_same_each_time(tmp_path):
    found = live(toy_run(eval={"samples_per_prompt": 3}), tmp_path / "run")
    table = toy_run(eval={"samples_per_prompt": 3}).eval
    rundir = RunDirectory(found.ctx.failures.parent)
    rows = evaluate(found.ctx, found.heldout, [], table, rundir)["rows"]
    scores = {(row["prompt"], row["index"]): row["scores"]["toy"] for row in rows}
    assert len(set(scores.values())) == len(rows) == 9
    alone = evaluate(found.ctx, found.heldout[1:], [], table, rundir)["rows"]
    assert {(row["prompt"], row["index"]): row["scores"]["toy"] for row in alone}.items() <= scores.items()


def test_evaluation_without_noise_on_the_way(tmp_path):
    """`eval.deterministic` follows the rollouts unless it is set."""
    found = {}
    for name, tables in {
        "noise": {},
        "set": {"eval": {"deterministic": True}},
        "followed": {"rollout": {"deterministic": True}},
        "overruled": {"rollout": {"deterministic": True}, "eval": {"deterministic": False}},
    }.items():
        run = toy_run(**tables)
        there = live(run, tmp_path / name)
        document = evaluate(there.ctx, there.heldout, [], run.eval, RunDirectory(there.ctx.failures.parent))
        found[name] = [row["scores"]["toy"] for row in document["rows"]]
    assert found["set"] == found["followed"]
    assert found["noise"] == found["overruled"]
    assert found["set"] != found["noise"]
