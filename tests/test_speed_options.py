"""What is there for speed changes no result beyond what is said of it; benchmarks/speed/README.md lists all options.

Tested here is what has no other place: the allocator, batches of like length on the policies that ship, trimmed
transitions, arithmetic in bfloat16.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.policy import GradTTSPolicy
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.policy import WaveGrad2Policy

from rlzoo.api import Policy, Prompt
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.engine import rollout
from rlzoo.engine.budget import Counters, instrument
from rlzoo.engine.minibatches import minibatches
from rlzoo.errors import ConfigError
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyRewardOptions
from rlzoo.testing.toys import GaussianToy, ToyReward

PROMPTS = [Prompt("a", "No."), Prompt("b", "It is late, go home."), Prompt("c", "Come in.")]
SPEAKING: dict[str, Callable[[], Policy]] = {
    "wavegrad2": lambda: WaveGrad2Policy(WaveGrad2Options(pace=3.0)),
    "gradtts": lambda: GradTTSPolicy(GradTTSOptions(pace=3.0)),
}
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16-mixed": "bf16-mixed"}

COMPUTE = """
import hashlib, sys, torch
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
assert sys.argv[1] == "default" or keep_freed_memory()
torch.manual_seed(0)
decoder = WaveGrad2Network(PRESETS["mini"], init=False).decoder
out = decoder(torch.randn(1, 40 * 80), torch.randn(1, 208, 40), torch.tensor([0.5]))
out.square().sum().backward()
found = torch.cat([out.detach().flatten(), *(p.grad.flatten() for p in decoder.parameters())])
print(hashlib.sha256(found.numpy().tobytes()).hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_memory_that_is_kept_changes_no_bit() -> None:
    hashes = []
    for setting in ("default", "kept"):
        command = [sys.executable, "-c", COMPUTE, setting]
        hashes.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert hashes[0] == hashes[1]


def sampled(policy: Policy, micro_batch: int) -> tuple[Any, rollout.Rollout]:
    with torch.no_grad():
        cond = policy.condition(PROMPTS)
    seeds = tuple(range(len(PROMPTS)))
    plan = rollout.SamplingPlan(
        schedule=policy.schedule(), seeds=seeds, micro_batch=micro_batch, kept=tuple(range(len(policy.schedule()) + 1))
    )
    return cond, rollout.sample(policy, cond, plan)


@pytest.mark.parametrize("name", SPEAKING)
def test_batches_of_like_length_change_no_bit_on_a_cpu(name: str) -> None:
    policy = SPEAKING[name]()
    cond, whole = sampled(policy, 3)
    assert len(set(policy.lengths(cond).tolist())) == 3
    for micro_batch in (1, 2):
        _, apart = sampled(policy, micro_batch)
        assert torch.equal(apart.states, whole.states)
        torch.testing.assert_close(apart.log_probs, whole.log_probs, rtol=0, atol=1e-6)  # sums over other widths
        assert torch.equal(apart.samples.data, whole.samples.data)
        assert torch.equal(apart.samples.lengths, whole.samples.lengths)


def test_transitions_of_short_rows_are_cut_to_them_and_give_the_same_gradient() -> None:
    prompts = [Prompt("short", "a"), Prompt("long", "bb")]
    policy = GaussianToy(ToyPolicyOptions())
    reward = ToyReward(ToyRewardOptions())
    trajectory = LocalContext(policy, reward, prompts).rollout(prompts, samples_per_prompt=2)
    widths, gradients = set(), []
    for size, frames in ((1, 0), (100, 0), (100, 9)):
        table = TrainTable(micro_batch=size, micro_batch_frames=frames)
        for batch in minibatches(policy, trajectory, range(4), table, torch.Generator().manual_seed(0)):
            for m in batch:
                if size == 1:
                    widths.add(m.before.shape[-1])
                if frames:
                    assert len(m.row) * m.before.shape[-1] <= frames, "padding counts"
                assert m.cut(trajectory.final).shape == m.before.shape == m.after.shape
                step = policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                assert (step.log_prob(m.after) - m.log_prob).abs().max() < 1e-5
                batch.mean(step.log_prob(m.after) * (1 + m.row)).backward()
        gradients.append(policy.bias.grad)
        policy.zero_grad(set_to_none=True)
    assert widths == {3, 4}
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0])


@pytest.mark.parametrize("name", ["gradtts", pytest.param("wavegrad2", marks=pytest.mark.slow)])
def test_a_bound_on_frames_gives_the_same_samples_and_the_same_gradient(name: str) -> None:
    """Rows of unlike lengths: pieces have unlike numbers of rows then, and like numbers of frames with padding."""
    policy = SPEAKING[name]()
    prompts = [Prompt("a", "Go."), Prompt("b", "Come in, it is late."), Prompt("c", "Open the door.")]
    with torch.no_grad():
        longest = int(policy.lengths(policy.condition(prompts)).max())
    gradients, finals, sizes = [], [], []
    for frames in (0, 2 * longest):
        ctx = LocalContext(
            policy,
            ToyReward(ToyRewardOptions()),
            prompts,
            rollout=RolloutTable(num_steps=2, micro_batch_frames=frames),
            train=TrainTable(micro_batch_frames=frames, minibatch=4),
        )
        trajectory = ctx.rollout(prompts, samples_per_prompt=2)
        finals.append(trajectory.final)
        for batch in ctx.minibatches(trajectory):
            for m in batch:
                sizes.append((frames, len(m.row), len(m.row) * m.before.shape[-1]))
                step = policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                batch.mean(step.log_prob(m.after) * (1 + m.row)).backward()
        for draw in ctx.denoising_batches(trajectory, "test"):
            sizes.append((frames, len(draw.rows), len(draw.rows) * draw.clean.shape[-1]))
            trajectory.mean(policy.denoising_loss(draw.clean, draw.cond, draw.t, draw.noise)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
        policy.zero_grad(set_to_none=True)
    torch.testing.assert_close(finals[1], finals[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5 * float(gradients[0].abs().max()))
    bounded = [(rows, padded) for frames, rows, padded in sizes if frames]
    assert all(padded <= 2 * longest for _, padded in bounded)
    assert max(rows for frames, rows, _ in sizes if not frames) > 2
    assert len(bounded) > len(sizes) - len(bounded)


def test_pieces_are_bounded_by_frames_and_by_rows() -> None:
    lengths = [5, 90, 7, 40, 41, 6, 5, 300, 8]
    for size, frames in ((3, 0), (3, 100), (100, 100), (2, 10_000), (100, 1), (100, 10_000)):
        pieces = rollout.by_length(lengths, size, frames)
        assert sorted(row for piece in pieces for row in piece) == list(range(len(lengths)))
        for piece in pieces:
            padded = len(piece) * max(lengths[row] for row in piece)
            assert len(piece) == 1 or (len(piece) <= size and (not frames or padded <= frames))
    assert [len(piece) for piece in rollout.by_length(lengths, 100, 100)] == [1, 1, 2, 5]


def test_rows_without_a_trajectory_are_refused_under_a_bound_on_frames() -> None:
    prompts = [Prompt("short", "a"), Prompt("long", "bb")]
    policy = GaussianToy(ToyPolicyOptions())
    ctx = LocalContext(policy, ToyReward(ToyRewardOptions()), prompts, train=TrainTable(micro_batch_frames=9))
    trajectory = ctx.rollout(prompts, samples_per_prompt=3)
    assert [len(piece) for piece in ctx.micro_batches(6, trajectory)] == [2, 2, 2]
    with pytest.raises(ConfigError, match="cuts rows without"):
        ctx.micro_batches(6)


def test_a_share_of_the_steps_gives_the_same_gradient_on_average() -> None:
    """Of `fraction` each row trains every step equally often, and an update divides by what it trains."""
    policy, prompts = GaussianToy(ToyPolicyOptions()), [Prompt("short", "a"), Prompt("long", "bb")]
    trajectory = LocalContext(policy, ToyReward(ToyRewardOptions()), prompts).rollout(prompts, samples_per_prompt=2)

    def gradient(table: TrainTable, seed: int) -> torch.Tensor:
        policy.zero_grad(set_to_none=True)
        generator = torch.Generator().manual_seed(seed)
        for batch in minibatches(policy, trajectory, range(4), table, generator):
            for m in batch:
                step = policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                batch.mean(step.log_prob(m.after) * (1 + m.row)).backward()
        assert policy.bias.grad is not None
        return policy.bias.grad.flatten()

    whole = gradient(TrainTable(), 0)
    some = TrainTable(step_selection="fraction", step_fraction=0.5)
    drawn = torch.stack([gradient(some, seed) for seed in range(400)])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert (drawn.std(0) > 0).any()
    assert ((drawn.mean(0) - whole).abs() <= 4 * error + 1e-6).all()


@pytest.mark.parametrize("name", SPEAKING)
def test_bfloat16_moves_samples_and_gradients_little_and_leaves_the_first_ratio_at_one(name: str) -> None:
    policy = SPEAKING[name]()
    found = []
    for precision in ("fp32", "bf16-mixed"):
        instrument(policy, Counters(), Fabric(accelerator="cpu", devices=1, precision=PRECISIONS[precision]))
        cond, done = sampled(policy, 3)
        logps = []
        for k in policy.schedule().stochastic.nonzero()[:, 0].tolist():
            step = policy.transition(done.states[k], torch.full((3,), k), cond, policy.schedule())
            logps.append(step.log_prob(done.states[k + 1]))
            assert (logps[-1] - done.log_probs[k]).abs().max() <= 1e-6
            assert logps[-1].dtype == torch.float32
        policy.zero_grad(set_to_none=True)
        torch.stack(logps).sum().backward()
        trained = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
        found.append((done, torch.cat(trained)))
    (exact, gradient), (moved, gradient_moved) = found
    assert 0 < (moved.states - exact.states).norm() < 5e-2 * exact.states.norm()
    assert torch.cosine_similarity(gradient, gradient_moved, dim=0) > 0.9
