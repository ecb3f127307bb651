"""The noise scale against gradients whose signal and noise are known, and what the command says of toys."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
import torch

import rlzoo.testing
from rlzoo import cli
from rlzoo.engine import noise_scale, scoring
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toys import GaussianToy, ToyPrompts, ToyReward

TOYS = str(Path(rlzoo.testing.__file__).parent / "toy_runs.py")


def test_of_gradients_whose_signal_and_noise_are_known():
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(50, generator=generator, dtype=torch.float64)
    noise = torch.randn(4000, 50, generator=generator, dtype=torch.float64) * torch.linspace(0.5, 3, 50)
    found = noise_scale.noise_scale((signal + noise) @ (signal + noise).T)
    assert found == pytest.approx(float((torch.linspace(0.5, 3, 50) ** 2).sum() / signal.square().sum()), rel=0.1)


def test_nothing_in_common_has_no_scale():
    assert noise_scale.noise_scale(torch.eye(8) - 0.01) == math.inf


def measure(tmp_path, reward, policy=None):
    return noise_scale.measure(
        policy or GaussianToy(ToyPolicyOptions()),
        ToyPrompts(ToyPromptOptions()).train()[:4],
        [scoring.Scorer("toy", "toy", 1.0, reward)],
        seed=0,
        samples_per_prompt=32,
        num_steps=None,
        failures=tmp_path,
        progress=lambda done, total: None,
    )[0]


class Noise(ToyReward):
    """Scores that have nothing to do with the samples."""

    def score(self, samples, prompts):
        scores = super().score(samples, prompts)
        generator = torch.Generator().manual_seed(len(prompts[0].text))
        return type(scores)(torch.randn(scores.values.shape, generator=generator))


def test_a_reward_that_follows_from_the_samples_has_a_gradient_and_noise_has_none(tmp_path):
    reward, noise = (measure(tmp_path, kind(ToyRewardOptions())) for kind in (ToyReward, Noise))
    assert reward.p < 0.01
    assert reward.samples < 100
    assert noise.p > 0.05


def test_the_score_function_is_the_gradient_of_the_log_probability(tmp_path):
    """Against the derivative of the density, written out for a policy that is one bias at each step."""
    policy = GaussianToy(ToyPolicyOptions())
    schedule, prompts = policy.schedule(), ToyPrompts(ToyPromptOptions()).train()[:1]
    cond = policy.condition(prompts)
    shape = (len(schedule) + 1, 1, *policy.state_shape(cond))
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = noise_scale.score_function(policy, cond, states, schedule)

    def log_prob(weights):
        torch.nn.utils.vector_to_parameters(weights, policy.parameters())
        steps = schedule.stochastic.nonzero().flatten().tolist()
        with torch.no_grad():
            return sum(
                policy.transition(states[k], torch.tensor([k]), cond, schedule).log_prob(states[k + 1]).double().sum()
                for k in steps
            )

    start = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()
    direction = torch.randn(len(start), generator=torch.Generator().manual_seed(1))
    slope = (log_prob(start + 1e-2 * direction) - log_prob(start - 1e-2 * direction)) / 2e-2
    assert float(found @ direction) == pytest.approx(float(slope), rel=1e-3)


def test_of_many_weights_some_stand_for_all(monkeypatch, tmp_path):
    whole = measure(tmp_path, ToyReward(ToyRewardOptions()))
    weights = sum(p.numel() for p in GaussianToy(ToyPolicyOptions()).parameters())
    monkeypatch.setattr(noise_scale, "WEIGHTS", weights // 2)
    part = measure(tmp_path, ToyReward(ToyRewardOptions()))
    assert part.samples != whole.samples
    assert part.samples == pytest.approx(whole.samples, rel=1)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        flags = ["--policy", "toy-gaussian", "--prompts", "toy", "--plugin", TOYS, "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", ["rlzoo", "noise-scale", *flags, *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        return caught.value.code or 0, said.out, said.err

    return run


def test_command_says_what_it_found(command):
    code, out, _ = command("--reward", "toy", "--samples-per-prompt", "32")
    assert code == 0
    assert "toy: a gradient; steps of about" in out
    code, out, _ = command("--reward", "toy", "--samples-per-prompt", "32", "--json")
    (row,) = json.loads(out)["rewards"]
    assert (row["reward"], row["p"] < 0.01, row["samples"] > 0) == ("toy", True, True)


def test_command_without_a_reward_says_what_to_add(command):
    code, _, err = command()
    assert code == 2
    assert "--reward" in err


def test_a_table_that_counts_nowhere_here_is_refused(command):
    code, _, err = command("--reward", "toy", "--set", "train.steps=3")
    assert code == 2
    assert "--set train: no such table here" in err


def test_a_policy_beside_a_run_is_refused(command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    code, _, err = command("run", "--reward", "toy")
    assert code == 2
    assert "is a run, which names its policy itself" in err
