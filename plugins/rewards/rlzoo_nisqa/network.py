"""NISQA's network: a CNN on each segment of the mel picture, then time, then pooling (arXiv:2104.09494).

Module names follow the published checkpoints. **N** clips, **T** segments of a clip, **S** segments of all clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from rlzoo.audio import valid_mask
from rlzoo.errors import DataError
from rlzoo.functional import with_backward

HINT = "give one of NISQA's published checkpoints, or leave `checkpoint` out"


@dataclass(frozen=True)
class Settings:
    """Values of a checkpoint's `args` that affect the computation; times in seconds, the rest in frames or bins."""

    fft: int
    hop_seconds: float
    window_seconds: float
    mels: int
    top_hz: float
    segment: int
    segment_hop: int
    cnn: str
    channels: tuple[int, int, int]
    pools: tuple[Any, Any, Any]
    cnn_out: int | None
    time: str
    width: int | None
    heads: int | None
    layers: int | None
    hidden: int
    pool: str
    pool_hidden: int | None
    outputs: int

    @classmethod
    def of(cls, args: dict[str, Any]) -> Settings:
        """Raises DataError for a kind of network that was never published with weights."""
        try:
            settings = cls(
                fft=args["ms_n_fft"],
                hop_seconds=args["ms_hop_length"],
                window_seconds=args["ms_win_length"],
                mels=args["ms_n_mels"],
                top_hz=args["ms_fmax"],
                segment=args["ms_seg_length"],
                segment_hop=args["ms_seg_hop_length"],
                cnn=args["cnn_model"],
                channels=(args["cnn_c_out_1"], args["cnn_c_out_2"], args["cnn_c_out_3"]),
                pools=(args["cnn_pool_1"], args["cnn_pool_2"], args["cnn_pool_3"]),
                cnn_out=args["cnn_fc_out_h"],
                time=args["td"],
                width=args["td_sa_d_model"],
                heads=args["td_sa_nhead"],
                layers=args["td_sa_num_layers"],
                hidden=args["td_sa_h"] or args["td_lstm_h"],
                pool=args["pool"],
                pool_hidden=args["pool_att_h"],
                outputs=5 if args["model"] == "NISQA_DIM" else 1,
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"a NISQA checkpoint without the setting {error}", HINT) from error
        known = (("adapt", "self_att", "att"), ("standard", "lstm", "last_step_bi"))
        if (settings.cnn, settings.time, settings.pool) not in known or args.get("td_2") != "skip":
            raise DataError(f"a NISQA network of the kind {settings.cnn}, {settings.time}, {settings.pool}", HINT)
        return settings


class Inner(nn.Module):
    """The published modules nest each part one level deeper, under the name `model`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Tensor) -> Any:
        """Whatever the part does."""
        return self.model(*args)


class SegmentCNN(nn.Module):
    """(S, 1, mels, segment) -> (S, features)."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.is_adaptive = s.cnn == "adapt"
        self.pools = s.pools
        one, two, three = s.channels
        last_kernel = (3, s.pools[2][1]) if self.is_adaptive else (3, 3)
        sizes = ((1, one), (one, two), (two, three), (three, three), (three, three))
        for index, (inputs, outputs) in enumerate(sizes, start=1):
            self.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, 3, padding=1))
            self.add_module(f"bn{index}", nn.BatchNorm2d(outputs))
        self.conv6 = nn.Conv2d(three, three, last_kernel, padding=(1, 0 if self.is_adaptive else 1))
        self.bn6 = nn.BatchNorm2d(three)
        # 48 mels and 15 frames, halved three times.
        self.fc_out = nn.Linear(three * 6 * 2, s.cnn_out) if s.cnn_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Six convolutions; pooling after the first, second and fourth."""
        for index in range(1, 7):
            x = F.relu(self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(x)))
            if index in (1, 2, 4):
                x = self._pool(x, (1, 2, 4).index(index))
        features: Tensor = self.fc_out(x.flatten(1))
        return features

    def _pool(self, x: Tensor, index: int) -> Tensor:
        if self.is_adaptive:
            return F.adaptive_max_pool2d(x, self.pools[index])
        # 15 frames are odd: the first pooling pads them on both sides.
        return F.max_pool2d(x, 2, padding=(0, 1) if index == 0 else 0)


class AttentionLayer(nn.Module):
    """Self-attention and a feed-forward layer, each with its norm behind it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(N, T, width), (N, T) True if valid -> (N, T, width)."""
        attn = self.self_attn
        N, T, width = x.shape
        parts = F.linear(x, attn.in_proj_weight, attn.in_proj_bias).view(N, T, 3, attn.num_heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        x = self.norm1(x + attn.out_proj(mixed.transpose(1, 2).reshape(N, T, width)))
        out: Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return out


class SelfAttention(nn.Module):
    """(N, T, features), (N,) -> (N, T, width)."""

    def __init__(self, features: int, width: int, heads: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.norm1 = nn.LayerNorm(width)
        self.layers = nn.ModuleList([AttentionLayer(width, heads, hidden) for _ in range(layers)])

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Padding is masked in every layer."""
        mask = valid_mask(lengths, x.shape[1])
        x = self.norm1(self.linear(x))
        for layer in self.layers:
            x = layer(x, mask)
        return x


class AttentionPool(nn.Module):
    """(N, T, width), (N,) -> (N, 1): a weighted mean over time."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, 1)
        self.linear3 = nn.Linear(width, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Padding has weight zero."""
        weight = self.linear2(F.relu(self.linear1(x))).squeeze(-1)
        weight = weight.masked_fill(~valid_mask(lengths, x.shape[1]), -torch.inf).softmax(1)
        out: Tensor = self.linear3((weight[..., None] * x).sum(1))
        return out


class LastSteps(nn.Module):
    """(N, T, features), (N,) -> (N, 2·hidden): where each direction of an LSTM ends."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Packed: the backward direction starts at each clip's own end."""
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, (last, _) = with_backward(self.lstm)(packed)
        return torch.cat([last[0], last[1]], 1)


class Linear(nn.Module):
    """(N, features) -> (N, 1)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Pool after `LastSteps`."""
        out: Tensor = self.linear(x)
        return out


class NISQA(nn.Module):
    """Segments of N clips -> (N, outputs)."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.cnn = Inner(SegmentCNN(s))
        if s.time == "self_att":
            if not (s.width and s.heads and s.layers and s.pool_hidden):
                raise DataError("a NISQA network with self-attention but without its sizes", HINT)
            # The last convolution spans the remaining width, so only the height is left.
            features = s.channels[2] * s.pools[2][0]
            self.time_dependency = Inner(SelfAttention(features, s.width, s.heads, s.layers, s.hidden))
            pools = [Inner(AttentionPool(s.width, s.pool_hidden)) for _ in range(s.outputs)]
        else:
            self.time_dependency = Inner(LastSteps(s.cnn_out or s.channels[2] * 12, s.hidden))
            pools = [Inner(Linear(2 * s.hidden)) for _ in range(s.outputs)]
        if s.outputs == 1:
            self.pool = pools[0]
        else:
            self.pool_layers = nn.ModuleList(pools)

    def forward(self, segments: list[Tensor]) -> Tensor:
        """N tensors (T_i, mels, segment) -> (N, outputs). A clip's row does not depend on the others."""
        together = torch.cat(segments)[:, None]
        # In small pieces the pictures stay in the CPU's cache.
        size = 4096 if together.is_cuda else 64
        features = torch.cat([self.cnn(part) for part in together.split(size)])
        counts = [part.shape[0] for part in segments]
        lengths = torch.tensor(counts, device=features.device)
        x = self.time_dependency(pad_sequence(list(features.split(counts)), batch_first=True), lengths)
        pools = list(self.pool_layers) if hasattr(self, "pool_layers") else [self.pool]
        return torch.cat([pool(x, lengths) for pool in pools], 1)
