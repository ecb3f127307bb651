"""The network of Distill-MOS: compressed spectrum, convolutions, transformer, attention pooling (arXiv:2502.05356).

**W** windows of at most 7.68 s, **T** samples of a window, **F** frames of 10 ms, **J** tokens of 20 ms. A full window
has F = 768 and J = 384.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HOP = 160
FFT = 320
WINDOW = 122_880
"""Samples of a full window: 7.68 s at 16 kHz."""
FRAMES = WINDOW // HOP
TOKENS = FRAMES // 2
WIDTH = 200
CHANNELS = (2, 64, 64, 128, 256, 256, 256)
REACH = 6
"""Frames to either side that reach a token through the six convolutions."""
POWER_FLOOR = 1e-24
"""The published code's floor of a bin's magnitude, 1e-12, as a power."""
GRADIENT_FLOOR = 1e-8
"""Power of a bin below which its gradient stops growing: about the rounding noise of 16-bit audio at full scale."""
QUIET = 1e-5
"""Peak of a window below which there is nothing to hear, and so no gradient: less than a step of 16-bit audio."""


def compress(bins: Tensor) -> Tensor:
    """(W, ..., 2) complex bins -> the same with magnitudes to the power 0.3; phases stay.

    The true gradient grows without bound towards a bin of zero, and padding is all zeros (the published code returns
    NaN there). Here it is the true one above `GRADIENT_FLOOR` and stops growing below.
    """
    power = bins.square().sum(-1, keepdim=True)
    exact = power.detach().clamp(min=POWER_FLOOR) ** -0.35 * bins.detach()
    if not bins.requires_grad:
        return exact
    bounded = power.clamp(min=GRADIENT_FLOOR) ** -0.35 * bins
    return bounded + (exact - bounded.detach())


def tokens_with_sound(size: int) -> int:
    """Number of tokens of a window that depend on the first `size` samples; the others are those of silence."""
    frames = math.ceil((size + (FFT - HOP) // 2) / HOP)
    return min(TOKENS, math.ceil((frames + REACH) / 2))


class DistillMOS(nn.Module):
    """(W, T) windows at 16 kHz -> (W,) MOS between 1 and 5. Frozen, in float32.

    The published network gets 7.68 s always, with zeros after a shorter clip. What its convolutions make of zeros is
    kept in `silence`, so here they run over the clip alone; the transformer gets all 384 tokens. Batch normalisation
    is folded into the linear layers next to it, in float64.
    """

    def __init__(self, published: dict[str, Tensor]) -> None:
        super().__init__()
        sizes = list(pairwise(CHANNELS))
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=(2 if i else 1, 2 if i == len(sizes) - 1 else 1), padding=(0, 1))
            for i, (a, b) in enumerate(sizes)
        )
        for i, conv in enumerate(self.convs):
            conv.load_state_dict(_part(published, f"cnn.cnn.{2 * i}."))
        head = _part(published, "transformer_pool_attn.")
        inner = _part(head, "transformer.")
        layer = nn.TransformerEncoderLayer(WIDTH, 8, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 7, enable_nested_tensor=False)
        self.encoder.load_state_dict(_part(inner, "transformer_encoder."))
        first = _after(_norm(_part(head, "norm_input.")), _norm(_part(inner, "norm.")))
        last = _norm(_part(head, "norm_trans."))
        self.project = _linear(_part(inner, "linear_proj."), first)
        self.attend = nn.Sequential(
            _linear(_part(head, "pool.linear1."), last), nn.ReLU(), _linear(_part(head, "pool.linear2."))
        )
        self.rate = _linear(_part(head, "pool.linear3."), last)
        self.register_buffer("position", inner["position_encoding.pe"].clone())
        self.register_buffer("hann", torch.hann_window(FFT))
        self.eval().requires_grad_(False)
        with torch.no_grad():
            self.register_buffer("silence", self.heard(torch.zeros(1, WINDOW), FRAMES))

    def forward(self, waves: Tensor) -> Tensor:
        """(W, T), T at most 122,880 -> (W,). The level of a window does not matter: its peak is brought to 1."""
        peak = waves.abs().amax(1, keepdim=True)
        waves = waves / (peak + 1e-8)
        waves = torch.where(peak > QUIET, waves, waves.detach())
        x = self.encoder(self.tokens(waves) + self.get_buffer("position"))
        weight = self.attend(x).softmax(1)
        mos: Tensor = 1 + 4 * (weight * self.rate(x)).sum((1, 2)).sigmoid()
        return mos

    def tokens(self, waves: Tensor) -> Tensor:
        """(W, T) -> (W, 384, 200)."""
        count = tokens_with_sound(waves.shape[1])
        frames = 2 * count + REACH  # so that the end of the convolutions' input reaches none of the `count` tokens
        if frames >= FRAMES:
            return self.heard(waves, FRAMES)
        silence = self.get_buffer("silence")[:, count:].expand(len(waves), -1, -1)
        return torch.cat([self.heard(waves, frames)[:, :count], silence], 1)

    def heard(self, waves: Tensor, frames: int) -> Tensor:
        """(W, T) -> (W, frames / 2, 200): the convolutions over the first `frames` frames."""
        edge = (FFT - HOP) // 2
        waves = F.pad(F.pad(waves, (0, frames * HOP - waves.shape[1])), (edge, edge), mode="reflect")
        bins = torch.stft(waves, FFT, HOP, window=self.get_buffer("hann"), center=False, return_complex=True)
        h = compress(torch.view_as_real(bins)).permute(0, 3, 1, 2)
        if not h.is_cuda:
            h = h.contiguous(memory_format=torch.channels_last)  # a tenth faster on a CPU
        for conv in self.convs:
            h = F.leaky_relu_(conv(h), 0.1)
        projected: Tensor = self.project(h.flatten(1, 2).transpose(1, 2))
        return projected


Affine = tuple[Tensor, Tensor]
"""Gain and shift of each channel, float64."""


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _norm(w: dict[str, Tensor]) -> Affine:
    """Batch normalisation in evaluation, as an affine map."""
    gain = w["weight"].double() / (w["running_var"].double() + 1e-5).sqrt()
    return gain, w["bias"].double() - gain * w["running_mean"].double()


def _after(first: Affine, second: Affine) -> Affine:
    """`second` of `first`."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def _linear(w: dict[str, Tensor], before: Affine | None = None) -> nn.Linear:
    """A linear layer with the affine map in front of it folded in."""
    weight, bias = w["weight"].double(), w["bias"].double()
    if before is not None:
        weight, bias = weight * before[0], bias + weight @ before[1]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer
