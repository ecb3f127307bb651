"""LoRA (Hu et al., arXiv:2106.09685) on the denoiser's convolutions: W + alpha / rank · B A, only A and B trained.

As a parametrisation of the weight and not as a wrapper of the layer: the denoiser reads weights and mixes, folds or
transforms them before it multiplies; what wraps a layer's `forward` would never be called.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from rlzoo.functional import chosen_convolutions


class LowRank(nn.Module):
    """Adds B A to a convolution's weight (O, I, k): A (rank, I k), B (O, rank), zero at first."""

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs, taps = weight.shape
        bound = (inputs * taps) ** -0.5  # as in the paper's code: Kaiming, a = sqrt(5)
        draw = torch.rand(rank, inputs * taps, generator=generator)
        self.A = nn.Parameter((2 * draw - 1) * bound)
        self.B = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """(O, I, k) -> (O, I, k)."""
        return weight + (self.scale * self.B @ self.A).view_as(weight)


def adapt(network: nn.Module, rank: int, alpha: float, layers: str) -> None:
    """Give adapters to the convolutions whose name has a match of `layers`; everything else is frozen.

    A's draw has its own seed: the same options give the same starting weights, which resuming relies on.

    Raises:
        ConfigError: `layers` is not a regular expression, or none of the convolutions matches.
    """
    chosen = chosen_convolutions(network, layers)
    network.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for module in chosen.values():
        parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, alpha, generator))
