"""The value network V(x_t, c, t) of DPOK, for states and conditioning of any policy.

States and texts differ in length, so the network sees fixed-size summaries of both. Every rank fits it to the data of
all ranks in the same order, so the copies stay the same without exchanging gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlzoo.api import Batch
from rlzoo.functional import masked_mean


def features(x: Tensor, mask: Tensor | None, t: Tensor, cond: Batch) -> Tensor:
    """States (N, *S), times (N,), conditioning -> (N, F): mean, level and crest of the state, time, pooled text."""
    size = masked_mean(x.abs(), mask)
    level = masked_mean(x**2, mask).sqrt()
    columns = [masked_mean(x, mask), (level + 1e-6).log(), size / (level + 1e-6), t.to(x)]
    for _, tensor in sorted(cond.tensors.items()):
        if tensor.dim() == 1 and tensor.dtype is not torch.bool:
            columns.append((tensor.to(x).abs() + 1).log())
        elif tensor.dim() == 3 and tensor.is_floating_point():
            # (N, C, T) -> (N, C): mean over the positions that are not padding, which is zero in every channel.
            used = (tensor != 0).any(1, keepdim=True)
            columns += (tensor.sum(2) / used.sum(2).clamp(min=1)).unbind(1)
    return torch.stack(columns, 1).float().detach()


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """As PyTorch initialises it."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    nn.init.uniform_(layer.bias, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


class Value:
    """A two-layer network on standardised features, fitted to standardised scores."""

    def __init__(self, num_features: int, width: int, learning_rate: float, seed: int, device: torch.device) -> None:
        # From a generator of its own: the global one is everybody's, other threads included.
        generator = torch.Generator().manual_seed(seed)
        last, first, second = (_linear(a, b, generator) for a, b in ((width, 1), (num_features, width), (width, width)))
        net = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        self.net = net.to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=learning_rate)
        self.scale: dict[str, Tensor] = {}

    def calibrate(self, features_NF: Tensor, values_N: Tensor) -> None:
        """Take the first step's means and deviations for good: targets that move would undo what was learnt."""
        if not self.scale:
            self.scale = {
                "mean": features_NF.mean(0),
                "std": features_NF.std(0, correction=0) + 1e-4,
                "centre": values_N.mean(),
                "spread": values_N.std(correction=0) + 1e-4,
            }

    def __call__(self, features_NF: Tensor) -> Tensor:
        """(N, F) -> (N,) expected scores."""
        standard = ((features_NF - self.scale["mean"]) / self.scale["std"]).clamp(-5, 5)
        output: Tensor = self.net(standard)[:, 0]
        return self.scale["centre"] + self.scale["spread"] * output

    def fit(self, features_NF: Tensor, values_N: Tensor, updates: int) -> float:
        """Least squares towards the scores; returns the mean squared error before the first update."""
        errors: list[float] = []
        for _ in range(updates):
            loss = (((self(features_NF) - values_N) / self.scale["spread"]) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            errors.append(float(loss.detach() * self.scale["spread"] ** 2))
        return errors[0]

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser and scales."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(), "scale": dict(self.scale)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        device = next(self.net.parameters()).device
        self.scale = {name: tensor.to(device) for name, tensor in state["scale"].items()}
