"""A reward from people's pairs: listeners who prefer less noise are found out, listeners who toss coins are too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlzoo_preference import PreferenceOptions, TrainPreferenceOptions, available
from rlzoo_preference.encoders import LogMel, Wav2Vec2, describe
from rlzoo_preference.pairs import groups, held_out, parted
from rlzoo_preference.report import judged
from rlzoo_preference.reward import PreferenceReward
from rlzoo_preference.train import train
from torch import Tensor
from typer.testing import CliRunner

from rlzoo.api import Prompt, Samples
from rlzoo.audio import to_samples, write_audio
from rlzoo.cli import app
from rlzoo.errors import ConfigError, DataError
from rlzoo.preferences import Preference
from rlzoo.speech import wav2vec2
from rlzoo.testing import check_reward

RATE = 16_000
PROMPTS = 40


def buzz(seed: int, seconds: float = 0.6) -> Tensor:
    """A syllabic buzz; each seed another voice."""
    t = torch.arange(int(seconds * RATE)) / RATE
    pitch = 100 + 7 * (seed % 13)
    tone = torch.stack([torch.sin(2 * math.pi * pitch * k * t) / k for k in range(1, 25)]).sum(0)
    return 0.05 * tone * (0.3 + 0.7 * torch.sin(2 * math.pi * (2 + seed % 3) * t) ** 2)


def noisy(wave: Tensor, snr_db: float, seed: int) -> Tensor:
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(seed))
    return wave + noise * wave.square().mean().sqrt() * 10 ** (-snr_db / 20)


def answers(folder: Path, prefers: Callable[[float, float], float], raters: int = 4, seed: int = 0) -> Path:
    """Two noise levels of each prompt; `prefers(snr_a, snr_b)` is the probability that a rater chooses a."""
    draw = np.random.default_rng(seed)
    lines = []
    for prompt in range(PROMPTS):
        snr = draw.uniform(0, 25, 2)
        names = [
            str(write_audio(folder / f"{prompt}-{side}.wav", noisy(buzz(prompt), snr[side], 2 * prompt + side), RATE))
            for side in (0, 1)
        ]
        for rater in range(raters):
            tie = bool(draw.random() < math.exp(-abs(snr[0] - snr[1])) / 2)
            first = int(draw.random() > prefers(*snr))
            row = {"preferred": names[first], "rejected": names[1 - first], "rater": str(rater), "tie": tie}
            lines.append(json.dumps({"prompt": {"id": str(prompt), "text": "a", "attributes": {}}} | row))
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def less_noise(a: float, b: float) -> float:
    """Bradley and Terry's listeners: 4 dB less noise is preferred e : 1."""
    return 1 / (1 + math.exp((b - a) / 4))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("preference")
    pairs = answers(folder, less_noise)
    out = folder / "model.safetensors"
    return out, train(pairs, out, TrainPreferenceOptions(), lambda line: None)


def test_listeners_who_prefer_less_noise_are_understood(trained: tuple[Path, dict[str, Any]]) -> None:
    path, report = trained
    held = report["held_out"]
    assert report["answers"] == 4 * PROMPTS
    assert report["prompts"] == PROMPTS
    assert held["answers"] >= 20
    assert held["low"] > 0.6  # Wilson's lower bound: well over chance
    assert held["log_loss"] < 0.55
    assert held["ece"] < 0.2
    assert report == json.loads(path.with_suffix(".json").read_text())
    reward = PreferenceReward(PreferenceOptions(checkpoint=path))
    waves = [noisy(buzz(99), snr, 7) for snr in (25, 15, 8, 0)]
    scores = reward.score(to_samples(waves, RATE), []).values.tolist()
    assert scores == sorted(scores, reverse=True)
    # The unit is log odds: these listeners would say 25 dB against 0 dB is 25 / 4 = 6.25.
    assert 2.5 < scores[0] - scores[-1] < 12


def test_coin_tossers_teach_nothing_and_the_report_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    pairs = answers(tmp_path, lambda a, b: 0.5, seed=3)
    report = train(pairs, tmp_path / "m.safetensors", TrainPreferenceOptions(), said.append)
    assert report["held_out"]["low"] <= 0.5 <= report["held_out"]["high"]
    assert report["held_out"]["log_loss"] > 0.6
    assert "NOT BETTER THAN A COIN" in said[-1]


def test_the_contract(trained: tuple[Path, dict[str, Any]]) -> None:
    results = check_reward(lambda: PreferenceReward(PreferenceOptions(checkpoint=trained[0])), offers_gradient=True)
    assert {result.outcome for result in results} == {"passed"}, [r for r in results if r.outcome != "passed"]


def test_climbing_the_gradient_raises_the_score(trained: tuple[Path, dict[str, Any]]) -> None:
    reward = PreferenceReward(PreferenceOptions(checkpoint=trained[0]))
    samples = to_samples([noisy(buzz(5), 10, 0), torch.zeros(3_000)], RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), []).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert data.grad[0].any()
    moved = Samples(samples.data + 1e-4 * data.grad.sign(), samples.lengths, samples.media)
    assert reward.score(moved, []).values[0].item() > before[0].item()


def test_novelty_tells_what_raters_never_heard(trained: tuple[Path, dict[str, Any]]) -> None:
    reward = PreferenceReward(PreferenceOptions(checkpoint=trained[0]))
    tone = 0.1 * torch.sin(2 * math.pi * 3_000 * torch.arange(RATE) / RATE)
    like, unlike = reward.score(to_samples([noisy(buzz(3), 12, 1), tone], RATE), []).parts["novelty"].tolist()
    assert like < 2 < unlike


def test_the_seed_repeats_and_a_hidden_layer_learns_too(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, report = trained
    pairs = path.parent / "pairs.jsonl"
    again = train(pairs, tmp_path / "a.safetensors", TrainPreferenceOptions(), lambda line: None)
    assert again == report
    assert (tmp_path / "a.safetensors").read_bytes() == path.read_bytes()
    options = TrainPreferenceOptions(hidden=8, ties="drop", folds=2)
    hidden = train(pairs, tmp_path / "h.safetensors", options, lambda line: None)
    assert hidden["held_out"]["low"] > 0.6
    PreferenceReward(PreferenceOptions(checkpoint=tmp_path / "h.safetensors"))


def pair(prompt: str, a: str, b: str) -> Preference:
    return Preference(Prompt(prompt), Path(a), Path(b), "1")


def test_nothing_that_was_heard_is_on_both_sides() -> None:
    pairs = [pair("p", "a", "b"), pair("q", "c", "d"), pair("r", "b", "e"), pair("q", "f", "g"), pair("s", "h", "i")]
    group = groups(pairs)
    assert group[0] == group[2]  # share a recording
    assert group[1] == group[3]  # share a prompt
    assert len(set(group.tolist())) == 3
    many = [pair(str(i // 3), f"a{i}", f"b{i}") for i in range(60)]
    draw = np.random.default_rng(0)
    mask = held_out(groups(many), 0.25, draw)
    assert mask.mean() == pytest.approx(0.25, abs=0.05)
    assert not {p.prompt.id for p, m in zip(many, mask, strict=True) if m} & {
        p.prompt.id for p, m in zip(many, mask, strict=True) if not m
    }
    folds = parted(groups(many), 5, draw)
    assert np.bincount(folds).tolist() == [12] * 5
    with pytest.raises(DataError, match="are too few"):
        held_out(groups([pair("p", "a", "b"), pair("p", "c", "d")]), 0.25, draw)


def test_calibration_is_counted_as_written() -> None:
    """Two classes: 0.65 said and 3 of 4 agreed; 0.95 said and 1 of 2 agreed."""
    logit = lambda p: math.log(p / (1 - p))  # noqa: E731
    margin = np.array([logit(0.65)] * 3 + [-logit(0.65)] + [logit(0.95), -logit(0.95), 0.3])
    tie = np.array([False] * 6 + [True])
    found = judged(margin, tie, 5)
    assert found["answers"] == 6
    assert found["ties"] == 1
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["ece"] == pytest.approx((4 * 0.1 + 2 * 0.45) / 6)
    assert [row["answers"] for row in found["reliability"]] == [4, 2]
    assert found["brier"] == pytest.approx((3 * 0.35**2 + 0.65**2 + 0.05**2 + 0.95**2) / 6)
    coin = judged(np.zeros(4), np.zeros(4, bool), 5)
    assert coin["accuracy"] == 0.5
    assert coin["log_loss"] == pytest.approx(math.log(2))


def test_calibrated_choices_have_a_small_error() -> None:
    draw = np.random.default_rng(0)
    margin = draw.normal(0, 2, 20_000)
    signed = np.where(draw.random(20_000) < 1 / (1 + np.exp(-margin)), margin, -margin)
    found = judged(signed, np.zeros(20_000, bool), 10)
    assert found["ece"] < 0.01
    assert judged(3 * signed, np.zeros(20_000, bool), 10)["ece"] > 0.05  # three times too sure


@pytest.mark.slow
def test_wav2vec2_features_do_not_feel_the_batch(tmp_path: Path) -> None:
    from torchaudio.models import wav2vec2_base

    torch.manual_seed(0)
    path = tmp_path / "wav2vec2.pth"
    torch.save(wav2vec2_base(aux_num_out=32).state_dict(), path)
    encoder = Wav2Vec2(path, 2)
    waves = [noisy(buzz(1), 20, 0), noisy(buzz(2, 0.3), 5, 1), torch.zeros(100)]
    with torch.no_grad():
        together = describe(encoder, to_samples(waves, RATE), None)
        # Of torchaudio itself, one clip at a time.
        hidden = wav2vec2.load_recognizer(path).extract_features(waves[1][None], num_layers=2)[0][-1][0]
    assert together.shape == (3, Wav2Vec2.size)
    assert torch.allclose(together[1, :768], hidden.mean(0), atol=1e-4)
    assert torch.allclose(together[1, 768:], hidden.std(0, correction=0), atol=1e-3)
    assert LogMel()(torch.zeros(1, 10), torch.tensor([10])).shape == (1, LogMel.size)


def test_bad_input(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"prompt": {"id": "one"}, "preferred": [1], "rejected": [2]}')
    with pytest.raises(DataError, match="prompt 'one' is of numbers"):
        train(numbers, tmp_path / "n.safetensors", TrainPreferenceOptions(), lambda line: None)
    for content in (b"hello", trained[0].read_bytes()[:200]):
        (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="is no preference model"):
            PreferenceReward(PreferenceOptions(checkpoint=tmp_path / "bad.safetensors"))
    with pytest.raises(DataError, match="does not exist"):
        PreferenceReward(PreferenceOptions(checkpoint=tmp_path / "absent"))
    with pytest.raises(ConfigError, match="needs `checkpoint`"):
        PreferenceReward(PreferenceOptions())
    assert not available(PreferenceOptions())
    reward = PreferenceReward(PreferenceOptions(checkpoint=trained[0]))
    with pytest.raises(DataError, match="needs audio at 16000 Hz"):
        reward.score(to_samples([torch.zeros(9)], 8_000), [])
    with pytest.raises(DataError, match="empty clip"):
        reward.score(Samples(torch.zeros(1, 9), torch.tensor([0]), to_samples([torch.zeros(9)], RATE).media), [])


def test_on_the_command_line(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    pairs, out = trained[0].parent / "pairs.jsonl", tmp_path / "new" / "p.safetensors"
    command = ["reward", "train-preference", "--pairs", str(pairs), "--out", str(out), "--set", "folds=3"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "held out" in done.output
    assert f"--set rewards.0.checkpoint={out}" in done.output
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, DataError)
    assert "exists already" in str(again.exception)
    other = CliRunner().invoke(app, [*command, "--reward", "guard"])
    assert isinstance(other.exception, ConfigError)


@pytest.mark.slow
def test_a_run_is_trained_on_it(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run = ["run", "--algo", "ddpo", "--reward", "preference", "--steps", "1", "--out", str(tmp_path / "run")]
    sets = [
        f"rewards.0.checkpoint={trained[0]}",
        "rollout.prompts_per_step=2",
        "rollout.samples_per_prompt=2",
        "eval.prompts=2",
    ]
    done = CliRunner().invoke(app, run + [part for item in sets for part in ("--set", item)])
    assert done.exit_code == 0, (done.output, done.exception)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert any("reward/preference" in row for row in rows)
