"""The compiled denoiser: the same numbers, one graph for all lengths, and a clear error where it cannot be compiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from rlzoo_wavegrad2 import WaveGrad2Options, compiled
from rlzoo_wavegrad2.network import NetworkConfig
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from speaking import wavegrad2_voice
from torch import Tensor

from rlzoo.api import Prompt
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.engine import estimate, rollout
from rlzoo.errors import ConfigError
from rlzoo.functional import frozen_copy

TINY = NetworkConfig(
    sample_rate=2000,
    encoder_channels=8,
    speaker_channels=4,
    predictor_channels=8,
    down_channels=(4, 8),
    up_channels=(12, 8, 4),
    factors=(5, 4),
    dilations=((1, 2, 4, 8),) * 2,
)
PROMPTS = [Prompt("a", "No."), Prompt("b", "It is late, go home."), Prompt("c", "Open the door.")]
OTHERS = [Prompt("d", "Who was that?"), Prompt("e", "She read every letter of the book twice.")]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wavegrad2_voice(tmp_path_factory.mktemp("voice"), TINY)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was compiled. Everything but the code generator, which takes its time: tracing, and autograd through it."""
    from torch._dynamo import lookup_backend

    made: list[Any] = []
    inner = lookup_backend("aot_eager")

    def backend(module: Any, inputs: Any) -> Callable[..., Any]:
        made.append(module)
        return cast(Callable[..., Any], inner(module, inputs))

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", backend)
    yield made
    torch._dynamo.reset()


def made(voice: Path, **options: Any) -> WaveGrad2Policy:
    return WaveGrad2Policy(
        WaveGrad2Options(checkpoint=voice, trainable="denoiser", num_steps=3).model_copy(update=options)
    )


def sampled(
    policy: WaveGrad2Policy, micro_batch: int, prompts: Sequence[Prompt] = PROMPTS
) -> tuple[Any, rollout.Rollout]:
    cond = policy.condition(prompts)
    seeds = tuple(range(len(prompts)))
    plan = rollout.SamplingPlan(
        schedule=policy.schedule(), seeds=seeds, micro_batch=micro_batch, kept=tuple(range(len(policy.schedule()) + 1))
    )
    return cond, rollout.sample(policy, cond, plan)


def gradient(policy: WaveGrad2Policy, cond: Any, done: rollout.Rollout) -> tuple[Tensor, Tensor]:
    """Log-probabilities (2, N) of the two random steps, as training computes them, and their gradient."""
    logps = []
    for k in (0, 1):
        k_N = torch.full((len(cond),), k)
        logps.append(policy.transition(done.states[k], k_N, cond, policy.schedule()).log_prob(done.states[k + 1]))
    found = torch.stack(logps)
    trained = [p for p in policy.parameters() if p.requires_grad]
    grads = torch.autograd.grad(found.sum(), trained)
    return found.detach(), torch.cat([grad.flatten() for grad in grads])


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).norm() <= tolerance * b.norm())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"trainable": "lora"}], ids=["plain", "lora"])
def test_it_samples_and_trains_alike_and_compiles_no_length_anew(
    voice: Path, graphs: list[Any], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    eager, quick = made(voice, **options), made(voice, **options, compile=True)
    quick.load_state_dict(eager.state_dict())
    cond, expected = sampled(eager, 1)
    for micro_batch in (3, 2):  # two and one
        _, done = sampled(quick, micro_batch)
        assert close(done.states, expected.states)
        assert close(done.samples.data, expected.samples.data)
    known = len(graphs)
    sampled(quick, 2, [*OTHERS, *PROMPTS])
    assert len(graphs) == known, "other lengths, other batches"
    logps, grads = gradient(quick, cond, done)
    assert (logps - done.log_probs[:2]).abs().max() < 1e-5, "the first ratio is 1"
    assert close(grads, gradient(eager, cond, done)[1], 1e-4)


@pytest.mark.slow
def test_a_copy_has_its_own_weights(voice: Path, graphs: list[Any]) -> None:
    policy = made(voice, compile=True)
    _, before = sampled(policy, 3)
    reference = frozen_copy(policy)
    with torch.no_grad():
        for parameter in policy.network.decoder.parameters():
            parameter.mul_(1.1)
    assert torch.equal(sampled(reference, 3)[1].states, before.states)
    assert not torch.equal(sampled(policy, 3)[1].states, before.states)


@pytest.mark.slow
def test_a_run_makes_two_graphs(voice: Path, graphs: list[Any]) -> None:
    """One without and one with a gradient: for the estimate, the policy and its reference together."""
    policy = made(voice, compile=True)
    estimate.measure(policy, PROMPTS, RolloutTable(), TrainTable(), rows=2)
    cond, done = sampled(policy, 3)
    sampled(frozen_copy(policy), 3)
    gradient(policy, cond, done)
    assert len(graphs) == 2


def test_what_cannot_be_compiled_says_so(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(module: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    monkeypatch.setattr(compiled, "BACKEND", backend)
    with pytest.raises(ConfigError, match=r"cannot be compiled.*no compiler here") as raised:
        sampled(made(voice, compile=True), 3)
    assert "policy.compile=false" in raised.value.hint
    torch._dynamo.reset()


def test_on_its_own_account_it_compiles_where_a_gpu_trains(voice: Path) -> None:
    policy = made(voice)
    here, there = (cast(Tensor, SimpleNamespace(device=torch.device(name))) for name in ("cpu", "cuda"))
    with torch.no_grad():
        assert not policy._compiles(there), "synthesis begins at once"
    assert policy._compiles(there)
    with torch.no_grad():
        assert policy._compiles(there), "sampling and training see one network"
    assert not policy._compiles(here)
    checkpointing = made(voice, activation_checkpointing=True)
    assert not checkpointing._compiles(there), "it cannot look into that"
    with pytest.raises(ValueError, match="choose one of them"):
        WaveGrad2Options(compile=True, activation_checkpointing=True)


def test_lengths_are_few_and_little_longer() -> None:
    sizes = [compiled.bucket(frames) for frames in range(1, 1025)]
    assert all(0 <= size - frames <= max(7, frames / 4) for frames, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) <= 32


@pytest.mark.slow
def test_compiled_code_says_the_same(voice: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    torch._dynamo.reset()
    eager, quick = made(voice), made(voice, compile=True)
    cond, expected = sampled(eager, 1)
    _, done = sampled(quick, 3)
    assert close(done.states, expected.states)
    logps, grads = gradient(quick, cond, done)
    assert (logps - done.log_probs[:2]).abs().max() < 1e-5
    assert close(grads, gradient(eager, cond, done)[1], 1e-4)
