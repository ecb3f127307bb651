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


def restated(scores_PG, s_PGW):
    """Loops over all pairs, from the docstring: samples with the others' mean as baseline."""
    P, G, W = s_PGW.shape
    g = torch.empty(P, G, W, dtype=torch.float64)
    for p in range(P):
        for i in range(G):
            others = [float(scores_PG[p, j]) for j in range(G) if j != i]
            g[p, i] = (float(scores_PG[p, i]) - sum(others) / (G - 1)) * s_PGW[p, i]
    signal, own = 0.0, 0.0
    for p in range(P):
        pairs = [float(g[p, i] @ g[p, j]) for i in range(G) for j in range(G) if i != j]
        signal += sum(pairs) / len(pairs) / (1 + 1 / (G - 1) ** 2) / P**2
        own += sum(float(g[p, i] @ g[p, i]) for i in range(G)) * (G - 1) / G / (P * G)
        for q in range(P):
            if p != q:
                signal += float(g[p].mean(0) @ g[q].mean(0)) / P**2
    return (own - signal) / signal


@pytest.mark.parametrize(("P", "G"), [(3, 2), (1, 5), (4, 3)])
def test_the_noise_scale_is_the_sum_over_pairs_written_out(P, G):
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(P, G, generator=draw, dtype=torch.float64) + 3
    s = 0.1 * torch.randn(P, G, 4, generator=draw, dtype=torch.float64) + (scores - 3)[..., None]
    advantages = ((scores - scores.mean(1, keepdim=True)) * G / (G - 1)).flatten()
    flat = s.flatten(0, 1)
    gram = flat @ flat.T * torch.outer(advantages, advantages)
    assert noise_scale.noise_scale(gram, G) == pytest.approx(restated(scores, s))
    found = noise_scale._of_scores("x", scores, flat @ flat.T)
    assert found.samples == pytest.approx(restated(scores, s))
    assert found.mean == pytest.approx(float(scores.mean()))
    assert found.spread == pytest.approx(float(scores.var(1).mean()) ** 0.5)


@pytest.mark.parametrize("G", [2, 3, 8])
def test_the_noise_scale_is_that_of_a_known_gradient_however_many_samples_a_prompt_has(G):
    """x ~ N(0, 1) is its own score function, the reward r = x + n with n ~ N(0, 1): gradient 1, E[(r x)^2] = 4.

    The true scale is 3. The rule for the baseline's variance is 2 / G short here, because a large x comes with a large
    score. With the group's mean as baseline and no correction, G = 2 would give 5.
    """
    draw = torch.Generator().manual_seed(G)
    x = torch.randn(3000 // G, G, generator=draw, dtype=torch.float64)
    scores = x + torch.randn(x.shape, generator=draw, dtype=torch.float64)
    g = ((scores - scores.mean(1, keepdim=True)) * G / (G - 1) * x).flatten()
    assert noise_scale.noise_scale(torch.outer(g, g), G) == pytest.approx(3 - 2 / G, rel=0.12)


def test_nothing_in_common_has_no_scale():
    assert noise_scale.noise_scale(torch.eye(8) - 0.01, 2) == math.inf


def test_the_permutation_test_counts_orders_within_a_prompt_and_pairs_alone():
    """By hand for Gram matrices of one pair; a diagonal that counted would drown it."""
    scores = torch.tensor([[0.0, 2.0], [10.0, 14.0]], dtype=torch.float64)
    gram = torch.zeros(4, 4, dtype=torch.float64)
    gram[1, 3] = gram[3, 1] = 1.0
    # Advantages are -+2 and -+4: as found, 2 times 4, where both prompts change their order or neither. Over all four
    # samples it would be one case in three.
    assert noise_scale._of_scores("x", scores, gram).p == pytest.approx(0.5, abs=0.05)
    three = torch.tensor([[0.0, 1.0, 5.0]], dtype=torch.float64)
    pairs = torch.ones(3, 3, dtype=torch.float64) - torch.eye(3, dtype=torch.float64)
    unequal = pairs + torch.diag(torch.tensor([1e6, 0.0, 0.0], dtype=torch.float64))
    # Off the diagonal every order gives the same, so none beats what was found and all equal it.
    assert noise_scale._of_scores("x", three, unequal).p == 1.0


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
