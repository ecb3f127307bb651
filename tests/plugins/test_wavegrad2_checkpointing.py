"""Activation checkpointing of the denoiser: the same gradient to the last bit, in less memory, in every path."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network, rows
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from torch import Tensor

from rlzoo.api import Prompt
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.engine import estimate

NARROW = PRESETS["mini"].model_copy(update={"down_channels": (4, 8, 8, 8), "up_channels": (12, 8, 8, 6, 6)})
NETWORKS = {"basic": NARROW, "large": NARROW.model_copy(update={"large": True})}
PROMPTS = [Prompt("a", "Open the door."), Prompt("b", "It is late.")]


def gradient(decoder: torch.nn.Module, config: NetworkConfig, autocast: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Output (2, L) for rows of 12 and 7 frames, and the gradients of inputs and weights."""
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(2, 12 * config.hop, generator=generator, requires_grad=True)
    hidden = torch.randn(2, config.hidden_channels, 12, generator=generator, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        out = decoder(noisy, hidden, torch.tensor([0.3, 0.8]), torch.tensor([12, 7]))
    return out, list(torch.autograd.grad(out.float().square().mean(), [noisy, hidden, *decoder.parameters()]))


@pytest.mark.parametrize("path", ["rows", "together", "bf16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_is_the_same_to_the_last_bit(name: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FEWEST_CHANNELS", 1 if path == "rows" else 1000)
    torch.manual_seed(0)
    decoder = WaveGrad2Network(NETWORKS[name], init=False).decoder
    found = []
    for decoder.recompute in (False, True):
        with estimate.Memory() as memory:
            found.append((*gradient(decoder, NETWORKS[name], autocast=path == "bf16"), memory))
    (out, grads, much), (again, others, little) = found
    assert torch.equal(out, again)
    assert all(torch.equal(a, b) for a, b in zip(grads, others, strict=True))
    assert any(bool(grad.any()) for grad in grads)
    del found, out, grads, again, others
    assert little.most() < 0.7 * much.most()


@pytest.mark.parametrize("trainable", ["biases", "lora", "all"])
def test_the_policy_trains_alike(trainable: str) -> None:
    """Adapters are then added row by row, which sums their gradients in another order."""
    found = []
    for on in (False, True):
        options = {"trainable": trainable, "lora_rank": 2, "activation_checkpointing": on, "pace": 3.0}
        policy = copy.deepcopy(WaveGrad2Policy(WaveGrad2Options.model_validate(options)))
        cond = policy.condition(PROMPTS)
        x = torch.randn(2, *policy.state_shape(cond), generator=torch.Generator().manual_seed(0))
        step = policy.transition(x, torch.tensor([0, 0]), cond, policy.schedule())
        step.log_prob(x).sum().backward()
        found.append([p.grad for p in policy.parameters() if p.grad is not None])
    assert found[0]
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b) if trainable != "lora" else (a - b).norm() <= 1e-5 * b.norm()


def test_the_estimate_of_a_run_sees_it() -> None:
    sizes = []
    for on in (False, True):
        policy = WaveGrad2Policy(WaveGrad2Options(activation_checkpointing=on, pace=2.0))
        sizes.append(estimate.measure(policy, PROMPTS, RolloutTable(), TrainTable()).graph_bytes)
    assert sizes[1] < 0.6 * sizes[0]
