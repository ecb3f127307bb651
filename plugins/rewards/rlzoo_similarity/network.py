"""ECAPA-TDNN (arXiv:2005.07143) with the parameter names of SpeechBrain's checkpoint, for ragged batches.

Padding is kept out of a row's frames: convolutions reflect each row at its own end, squeeze-and-excitation and pooling
leave padded frames out. **N** rows, **C** channels, **F** frames.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.audio import valid_mask
from rlzoo.errors import DataError
from rlzoo_similarity.spectrum import MELS

CHANNELS = 1024
POOLED = 3072
EMBEDDING = 192
SCALE = 8
BOTTLENECK = 128
_HINT = "give SpeechBrain's spkrec-ecapa-voxceleb/embedding_model.ckpt, or leave `checkpoint` out"


def reflected(x: Tensor, lengths: Tensor, size: int) -> Tensor:
    """(N, C, F), (N,) -> (N, C, F + 2·size), each row mirrored at its start and at its own end."""
    rows = torch.arange(len(x), device=x.device)[:, None]
    step = torch.arange(size, device=x.device)
    end = size + lengths[:, None]
    x = F.pad(F.pad(x, (size, 0), mode="reflect"), (0, size))
    # Advanced indices around a slice come first: (N, size, C) on both sides.
    mirrored = x[rows, :, end - 2 - step]
    return x.index_put((rows[..., None], torch.arange(x.shape[1], device=x.device), (end + step)[..., None]), mirrored)


class Conv(nn.Module):
    """A convolution that keeps the number of frames."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
        self.reach = dilation * (kernel - 1) // 2

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(N, C, F), (N,) -> (N, C', F)."""
        out: Tensor = self.conv(reflected(x, lengths, self.reach) if self.reach else x)
        return out


class Norm(nn.Module):
    """Batch normalisation, one level deeper in the checkpoint."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, F) or (N, C) -> the same shape."""
        out: Tensor = self.norm(x)
        return out


class TDNN(nn.Module):
    """Convolution, rectifier, normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = Conv(inputs, outputs, kernel, dilation), Norm(outputs)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(N, C, F), (N,) -> (N, C', F)."""
        out: Tensor = self.norm(F.relu(self.conv(x, lengths)))
        return out


class Res2Net(nn.Module):
    """Eighths of the channels, each convolved together with what came out of the one before."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        width = channels // SCALE
        self.blocks = nn.ModuleList([TDNN(width, width, 3, dilation) for _ in range(SCALE - 1)])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The first eighth passes as it is."""
        first, *rest = x.chunk(SCALE, 1)
        out = [first]
        for index, (part, block) in enumerate(zip(rest, self.blocks, strict=True)):
            out.append(block(part + out[-1] if index else part, lengths))
        return torch.cat(out, 1)


class SqueezeExcite(nn.Module):
    """Each channel scaled by what the whole clip says about it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv(channels, BOTTLENECK), Conv(BOTTLENECK, channels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(N, C, F), (N,) -> (N, C, F)."""
        mask = valid_mask(lengths, x.shape[-1])[:, None]
        mean = (x * mask).sum(2, keepdim=True) / lengths[:, None, None]
        scaled: Tensor = x * self.conv2(F.relu(self.conv1(mean, lengths)), lengths).sigmoid()
        return scaled


class Block(nn.Module):
    """SE-Res2Net block with a shortcut."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.tdnn1, self.tdnn2 = TDNN(channels, channels), TDNN(channels, channels)
        self.res2net_block = Res2Net(channels, dilation)
        self.se_block = SqueezeExcite(channels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(N, C, F), (N,) -> (N, C, F)."""
        h = self.res2net_block(self.tdnn1(x, lengths), lengths)
        out: Tensor = x + self.se_block(self.tdnn2(h, lengths), lengths)
        return out


class AttentivePooling(nn.Module):
    """(N, C, F), (N,) -> (N, 2·C): mean and spread over time, each channel with its own weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tdnn, self.conv = TDNN(3 * channels, BOTTLENECK), Conv(BOTTLENECK, channels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Weights follow from each frame and from the clip's plain mean and spread."""
        mask = valid_mask(lengths, x.shape[-1])[:, None]
        whole = torch.cat(moments(x, mask / lengths[:, None, None]), 1)[..., None].expand(-1, -1, x.shape[-1])
        weight = self.conv(self.tdnn(torch.cat([x, whole], 1), lengths).tanh(), lengths)
        return torch.cat(moments(x, weight.masked_fill(~mask, -torch.inf).softmax(2)), 1)


def moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, F), weights that sum to 1 over time -> mean and spread, (N, C) each."""
    mean = (weight * x).sum(2)
    variance = (weight * (x - mean[..., None]).square()).sum(2)
    return mean, variance.clamp(min=1e-12).sqrt()


class ECAPA(nn.Module):
    """(N, 80, F) features, (N,) frames >= 5 -> (N, 192) embeddings. 20,767,552 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TDNN(MELS, CHANNELS, 5), *(Block(CHANNELS, dilation) for dilation in (2, 3, 4))])
        self.mfa = TDNN(3 * CHANNELS, POOLED)
        self.asp = AttentivePooling(POOLED)
        self.asp_bn = Norm(2 * POOLED)
        self.fc = Conv(2 * POOLED, EMBEDDING)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Pool the outputs of the three blocks together."""
        said = []
        for block in self.blocks:
            x = block(x, lengths)
            said.append(x)
        x = self.mfa(torch.cat(said[1:], 1), lengths)
        pooled = self.asp_bn(self.asp(x, lengths))
        embedding: Tensor = self.fc(pooled[..., None], lengths).squeeze(2)
        return embedding


def load(path: Path) -> ECAPA:
    """The published checkpoint in our network, frozen. Raises DataError for anything else."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"'{path}' cannot be read as a checkpoint: {reason}", _HINT) from error
    network = ECAPA()
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        raise DataError(
            f"'{path}' is not this ECAPA-TDNN: {len(wrong)} tensors differ, the first is '{wrong[0]}' "
            f"(expected {expected.get(wrong[0], 'none')}, found {found.get(wrong[0], 'none')})",
            _HINT,
        )
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)
