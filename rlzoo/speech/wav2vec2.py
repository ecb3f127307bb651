"""wav2vec 2.0 base with ragged batches: a row's frames feel neither its batch mates nor its padding.

Right padding would leak through the GroupNorm after the first convolution, whose statistics run over time; here they
run over each row's own frames. What comes after it, attention and the positional convolution, torchaudio masks when
given lengths. **N** rows, **L** samples at 16 kHz, **F** frames of 20 ms. Source: arXiv:2006.11477.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.errors import DataError
from rlzoo.speech.audio import valid_mask

RATE = 16_000
"""Hz."""
SAMPLES_AT_ONCE = 160 * RATE
"""Samples of the largest micro-batch on a GPU."""
MIN_SAMPLES = 400
"""The receptive field of one frame."""
_LABELS = 29
_FAIRSEQ_LABELS = 3
"""Begin, end and unknown, which the published file has behind the blank and no recogniser uses."""


def load_recognizer(path: Path) -> Any:
    """torchaudio's published `wav2vec2_fairseq_base_ls960_asr_ls960.pth` -> its `Wav2Vec2Model`, frozen.

    `aux` gives logits of the 29 labels of `WAV2VEC2_ASR_BASE_960H`. Raises DataError for any other file.
    """
    from torchaudio.models import wav2vec2_base

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["aux.weight"].shape[0] == _LABELS + _FAIRSEQ_LABELS:
            keep = [0, *range(1 + _FAIRSEQ_LABELS, _LABELS + _FAIRSEQ_LABELS)]
            state = state | {name: state[name][keep] for name in ("aux.weight", "aux.bias")}
        network = wav2vec2_base(aux_num_out=_LABELS).eval().requires_grad_(False)
        network.load_state_dict(state)
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"'{path}' is not a wav2vec 2.0 recogniser: {reason}",
            "give torchaudio's wav2vec2_fairseq_base_ls960_asr_ls960.pth, or leave `checkpoint` out",
        ) from error
    return network


def padded(waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L), (N,) -> the same, every row at least one frame long (zeros are added), no column that none uses."""
    lengths = lengths.clamp(min=MIN_SAMPLES)
    longest = int(lengths.max())
    return F.pad(waves, (0, max(0, longest - waves.shape[-1])))[:, :longest], lengths


def pieces(lengths: Tensor) -> list[Tensor]:
    """(N,) -> rows of like length together, as index tensors, to be computed one piece after the other.

    On a GPU a piece holds up to 160 s, padding included. On a CPU it is one row: batches gain nothing there and
    padding costs (measured on the UTMOS network: 4.3 audio-seconds per second row by row, 3.0 in a ragged batch of 4).
    """
    order = lengths.argsort(descending=True)
    if not lengths.is_cuda:
        return list(order.split(1))
    found: list[Tensor] = []
    while len(order):
        count = max(1, SAMPLES_AT_ONCE // max(1, int(lengths[order[0]])))
        found.append(order[:count])
        order = order[count:]
    return found


def in_pieces(function: Callable[[Tensor, Tensor], Tensor], waves: Tensor, lengths: Tensor) -> Tensor:
    """`function` of (N, L) waves and (N,) lengths, row by row or in pieces, its rows back in order. Differentiable."""
    rows = pieces(lengths)
    found = torch.cat([function(*padded(waves[piece], lengths[piece])) for piece in rows])
    return found[torch.cat(rows).argsort()]


def frames(model: Any, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L) waveforms, (N,) lengths >= 400 -> (N, F, 512), (N,): the convolutional front end of `model`."""
    first, *rest = model.feature_extractor.conv_layers
    h = first.conv(waves[:, None])
    lengths = _after(lengths, first.conv)
    h = F.gelu(masked_group_norm(h, lengths, first.layer_norm))
    for layer in rest:
        h = F.gelu(layer.conv(h))
        lengths = _after(lengths, layer.conv)
    return h.transpose(1, 2), lengths


def _after(lengths: Tensor, conv: nn.Conv1d) -> Tensor:
    return torch.div(lengths - conv.kernel_size[0], conv.stride[0], rounding_mode="floor") + 1


def masked_group_norm(x: Tensor, lengths: Tensor, norm: nn.GroupNorm) -> Tensor:
    """(N, C, F), (N,) -> (N, C, F): each channel normalised over its row's own frames. Padding stays zero."""
    mask = valid_mask(lengths, x.shape[-1])[:, None]
    count = lengths[:, None, None]
    x = x.float()  # under autocast too: a mean over thousands of frames needs the digits
    # Two passes: subtracting the mean first keeps float32 exact enough to equal the unpadded norm.
    mean = (x * mask).sum(-1, keepdim=True) / count
    centred = (x - mean) * mask
    variance = centred.square().sum(-1, keepdim=True) / count
    scaled = centred * (variance + norm.eps).rsqrt()
    return (scaled * norm.weight[:, None] + norm.bias[:, None]) * mask


__all__ = ["MIN_SAMPLES", "RATE", "frames", "in_pieces", "load_recognizer", "masked_group_norm", "padded", "pieces"]
