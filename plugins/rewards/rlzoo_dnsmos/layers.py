"""Layers of both networks: 3x3 convolutions and dense layers with ReLU, under their published names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AT_ONCE = 64
"""Windows in one batch on a GPU: a few gigabytes."""


class Layers(nn.Module):
    """Holds the published tensors as buffers, `conv2d_1/kernel` as `conv2d_1_kernel`."""

    def __init__(self, weights: dict[str, Tensor], in_bfloat16: bool = False) -> None:
        super().__init__()
        self.in_bfloat16 = in_bfloat16
        for name, tensor in weights.items():
            if tensor.is_floating_point():
                self.register_buffer(name.replace("/", "_"), tensor)

    def arithmetic(self, device: torch.device) -> torch.autocast:
        """Autocast for everything behind the spectrum: bfloat16 if asked for, else unchanged."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.in_bfloat16)

    def convolve(self, h: Tensor, layers: Sequence[tuple[str, bool]]) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W') after 3x3 convolutions with ReLU, those marked True pooled by 2."""
        # On a CPU pooling of channels-last pictures takes a tenth of the time, and the convolutions a third less.
        h = h.contiguous(memory_format=torch.channels_last)
        for name, is_pooled in layers:
            kernel, bias = self.get_buffer(f"{name}_kernel"), self.get_buffer(f"{name}_bias")
            h = _first(h, kernel, bias) if h.shape[1] == 1 else F.conv2d(h, kernel, bias, padding=1)
            h = h.relu_()
            h = F.max_pool2d(h, 2) if is_pooled else h
        return h

    def dense(self, h: Tensor, names: Sequence[str]) -> Tensor:
        """(N, C) -> (N, C'), with ReLU between the layers."""
        for index, name in enumerate(names):
            h = F.relu(h) if index else h
            h = h @ self.get_buffer(f"{name}_kernel") + self.get_buffer(f"{name}_bias")
        return h


def _first(picture: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, C, H, W), channels last: nine shifted pictures times a matrix.

    The libraries have no fast convolution of a single channel: P.835's took a fifth of the whole network's time.
    """
    N, _, H, W = picture.shape
    padded = F.pad(picture[:, 0], (1, 1, 1, 1))
    shifted = torch.stack([padded[:, i : i + H, j : j + W] for i in range(3) for j in range(3)]).flatten(1)
    return torch.addmm(bias, shifted.T, kernel.flatten(1).T).view(N, H, W, -1).permute(0, 3, 1, 2)
