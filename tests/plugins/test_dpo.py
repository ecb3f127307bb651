"""Diffusion-DPO: pairs, the loss written out, and files of preferences that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from rlzoo_dpo import DPOOptions
from rlzoo_dpo.algorithm import DPO, decided_pairs, load
from toy_contexts import PROMPTS, TOYS, gradient, gradient_of, local

from rlzoo.api import Media
from rlzoo.audio import write_audio
from rlzoo.errors import ConfigError, DataError
from rlzoo.functional import row_noise, row_uniform
from rlzoo.testing.toys import length_of


def squared(policy, x, cond, t, noise):
    mask = policy.mask(cond)
    prediction = policy.predict(policy.noisy(x, noise, t), t, cond)
    return ((prediction - policy.target(x, noise, t)) ** 2 * mask).sum(1) / mask.sum(1)


def test_pairs_are_best_and_worst_and_ties_are_left_out() -> None:
    traj = local(samples=3).rollout()
    winner, loser = DPO(DPOOptions()).choose(torch.tensor([1.0, 3.0, 2.0, 7.0, 7.0, 7.0]), traj)
    assert (winner.tolist(), loser.tolist()) == ([1], [0])


def test_one_sample_makes_no_pair() -> None:
    with pytest.raises(ConfigError, match="no pair"):
        DPO(DPOOptions()).choose(torch.zeros(2), local(samples=1).rollout())


@pytest.mark.parametrize("kind", TOYS)
def test_the_online_step_is_the_equation(kind) -> None:
    got = gradient(local(kind, shift=0.1), DPO(DPOOptions(beta=3.0, updates=1)))
    ctx = local(kind, shift=0.1)
    traj = ctx.rollout(keep="final")
    scores = ctx.score(traj).values
    t, noise = ctx.draw(traj, "dpo")
    total = torch.zeros((), dtype=torch.float64)
    for rows in ([0, 1, 2, 3], [4, 5, 6, 7]):
        w, l = max(rows, key=lambda i: scores[i]), min(rows, key=lambda i: scores[i])
        gains = []
        for row in (w, l):
            there = (traj.final[[row]], traj.cond[[row]], t[[w]], noise[[w]])  # one draw for both sides
            gains.append(squared(ctx.reference, *there).detach() - squared(ctx.policy, *there))
        total = total - torch.nn.functional.logsigmoid(1.5 * (gains[0] - gains[1])).sum() / 2
    torch.testing.assert_close(got, gradient_of(total, ctx), atol=1e-9, rtol=1e-6)
    assert got.norm() > 1e-3


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """One pair of numbers for each of the toys' prompts."""
    path = tmp_path / "pairs.jsonl"
    lines = []
    for index, prompt in enumerate(PROMPTS):
        size = length_of(prompt)
        sides = {"preferred": [1.0 - index] * size, "rejected": [-0.5] * size}
        lines.append(json.dumps({"prompt": {"id": prompt.id, "text": prompt.text}, **sides}))
        lines.append(json.dumps({"prompt": {"id": prompt.id}, **sides, "tie": True}))  # is left out
    path.write_text("\n".join(lines) + "\n\n")
    return path


@pytest.mark.parametrize("kind", TOYS)
def test_the_offline_step_is_the_equation(kind, pairs: Path) -> None:
    options = DPOOptions(beta=3.0, updates=1, preferences=pairs, pairs_per_step=3)
    algorithm = DPO(options)
    assert not algorithm.uses_reward
    got = gradient(local(kind, shift=0.1), algorithm)
    ctx = local(kind, shift=0.1)
    chosen = torch.randint(2, (3,), generator=ctx.generator).tolist()
    seed = int(torch.randint(2**62, (1,), generator=ctx.generator))
    total = torch.zeros((), dtype=torch.float64)
    for place, index in enumerate(chosen):
        prompt, size = PROMPTS[index], length_of(PROMPTS[index])
        key = f"{seed}/0/{place}"
        t = ctx.policy.sample_times(row_uniform([key], "time").double())
        noise = row_noise([key], "noise", (size,)).double()
        cond = ctx.policy.condition([prompt])
        gains = []
        for value in (1.0 - index, -0.5):
            there = (torch.full((1, size), value, dtype=torch.float64), cond, t, noise)
            gains.append(squared(ctx.reference, *there).detach() - squared(ctx.policy, *there))
        total = total - torch.nn.functional.logsigmoid(1.5 * (gains[0] - gains[1])).sum() / 3
    torch.testing.assert_close(got, gradient_of(total, ctx), atol=1e-9, rtol=1e-6)


def test_learning_pairs_moves_the_margin_up(pairs: Path) -> None:
    ctx = local(update=True, learning_rate=0.01)
    algorithm = DPO(DPOOptions(preferences=pairs, beta=5.0))
    algorithm.setup(ctx)
    margins = [algorithm.step(ctx)["policy/margin"] for _ in range(12)]
    assert margins[-1] > margins[0]
    assert margins[-1] > 0.1


def test_audio_pairs_are_read_beside_their_file_and_at_the_policys_rate_only(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav"):
        write_audio(tmp_path / name, 0.1 * torch.ones(800), 8000)
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": {"id": "one", "text": "Hello."}, "preferred": "a.wav", "rejected": "b.wav"}\n')
    (pair,) = decided_pairs(path)
    assert (pair.prompt.id, pair.prompt.text) == ("one", "Hello.")
    samples = load(pair.preferred, Media("audio", 8000))
    assert samples.lengths.tolist() == [800]
    with pytest.raises(DataError):
        load(pair.preferred, Media("audio", 16000))


def test_a_bad_recording_is_refused_before_the_first_step(tmp_path: Path) -> None:
    for name, value in (("a.wav", 0.1), ("b.wav", 0.2), ("c.wav", float("nan"))):
        soundfile.write(tmp_path / name, [value] * 80, 8000, subtype="FLOAT")
    line = '{"prompt": {"id": "one", "text": "Hello."}, "preferred": "a.wav", "rejected": "%s.wav"}\n'
    path = tmp_path / "pairs.jsonl"
    path.write_text(line % "b" + line % "c")
    with pytest.raises(DataError, match=r"c\.wav' is NaN or infinite"):
        DPO(DPOOptions(preferences=path)).setup(local())


def test_pairs_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    path, sides = tmp_path / "pairs.jsonl", {"preferred": [1], "rejected": [2]}
    path.write_text(json.dumps({"prompt": {"id": "one", "text": "a"}, **sides, "tie": True}))
    with pytest.raises(DataError, match="holds ties only"):
        decided_pairs(path)
    path.write_text(json.dumps({"prompt": {"id": "one"}, **sides}))
    with pytest.raises(DataError, match="prompt 'one' has no text"):
        decided_pairs(path)
