"""What the tests of policies that speak and of rewards that hear share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.network import NetworkConfig, WaveGrad2Network
from torch import nn

from rlzoo.api import Reward, Samples

M = TypeVar("M", bound=nn.Module)


def wavegrad2_voice(folder: Path, config: NetworkConfig) -> Path:
    """A random voice of WaveGrad 2 whose texts have audio: every phone lasts about 60 ms."""
    torch.manual_seed(0)
    network = WaveGrad2Network(config)
    predictor = network.resampling.duration_predictor
    with torch.no_grad():  # gates wide open
        for suffix in ("l1", "l1_reverse"):
            getattr(predictor.lstm, f"bias_ih_{suffix}").fill_(3.0)
        predictor.fc[0].weight.fill_(0.004)
    path = folder / "tiny.safetensors"
    VOICES.save(path, network.state_dict(), {"network": config.model_dump(), "text": "flite"})
    return path


def moved(policy: M) -> M:
    """The policy itself, everything that trains away from where it was."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in policy.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return policy


def check_half_precision(exact: Reward[Any], half: Reward[Any], samples: Samples, tolerance: float) -> None:
    """Scores move, and by less than the tolerance; they are float32 and have a finite gradient."""
    data = samples.data.clone().requires_grad_()
    found = half.score(Samples(data, samples.lengths, samples.media), []).values
    with torch.no_grad():
        expected = exact.score(samples, []).values
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max().item() < tolerance
    found.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
