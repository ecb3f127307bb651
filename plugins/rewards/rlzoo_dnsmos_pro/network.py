"""DNSMOS Pro: log spectrum, four convolutions, the maximum over time and frequency, three dense layers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.errors import DataError
from rlzoo.safepickle import Record, load_untrusted

RATE = 16_000
FFT = 320
HOP = 160
FLOOR, CEILING = 1e-7, 1e7
TRAINED_SAMPLES = 10 * RATE
"""Clips were repeated or cut to 10 s in training."""
VARIANCE_FACTOR = 4.0


def repeated(wave: Tensor) -> Tensor:
    """(L,) -> (max(L, 160000),): a shorter clip starts over until 10 s are full; a longer one stays whole."""
    if wave.shape[0] >= TRAINED_SAMPLES:
        return wave
    return wave.repeat(-(-TRAINED_SAMPLES // wave.shape[0]))[:TRAINED_SAMPLES]


def spectrum(waves: Tensor) -> Tensor:
    """(N, L) -> (N, 1, frames, 161): log10 magnitudes."""
    window = torch.hann_window(FFT, device=waves.device)
    bins = torch.stft(waves, FFT, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
    # Of the power, not of the magnitude: the root has no derivative where a bin is silent.
    power = bins.real.square() + bins.imag.square()
    return 0.5 * power.clamp(FLOOR**2, CEILING**2).log10().transpose(1, 2)[:, None]


class DNSMOSPro(nn.Module):
    """(N, L) at 16 kHz, all of one length -> (N, 2): mean and variance of the MOS."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 32), (32, 32), (32, 64), (64, 64))
        self.convs = nn.ModuleList([nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in sizes])
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs) for _, outputs in sizes])
        self.dense = nn.ModuleList([nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 2)])

    def forward(self, waves: Tensor) -> Tensor:
        """Equal lengths only: the maximum would see the padding of a shorter row."""
        h = spectrum(waves)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = F.relu(norm(conv(h)))
            h = F.max_pool2d(h, 3) if index == 1 else h
        h = h.amax((2, 3))
        for index, layer in enumerate(self.dense):
            h = layer(F.relu(h) if index else h)
        return torch.stack([h[:, 0] * 2 + 3, F.softplus(h[:, 1]) * VARIANCE_FACTOR], 1)


def load(path: Path) -> DNSMOSPro:
    """The tensors of the published archive in our network, frozen; none of its code runs. Raises DataError."""
    archive = load_untrusted(path)
    try:
        blocks, dense = archive["_encoder"]["encoder"], archive["_head"]["head"]
        tensors: dict[str, Tensor] = {}
        for index in range(4):
            tensors |= _under(f"convs.{index}", blocks[str(index)]["0"])
            tensors |= _under(f"norms.{index}", blocks[str(index)]["1"])
        for index in range(3):
            tensors |= _under(f"dense.{index}", dense[str(index)]["0"])
        network = DNSMOSPro()
        network.load_state_dict(tensors)
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"'{path}' is not a DNSMOS Pro archive: {type(error).__name__}: {error}",
            "give `runs/*/model_best.pt` of DNSMOS Pro, or leave `checkpoint` out",
        ) from error
    # Channels last: 1.6 times as fast on a CPU.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _under(name: str, record: Record) -> dict[str, Tensor]:
    return {f"{name}.{key}": value for key, value in record.items() if isinstance(value, Tensor)}
