"""The strong learner: wav2vec 2.0 base, domain and listener embeddings, BLSTM, projection. Batches may be ragged.

Right padding reaches valid frames in three places, each closed here: the GroupNorm after the first convolution (its
statistics run over time), attention and the positional convolution (torchaudio masks both when given lengths), and the
backward LSTM (packed). **N** rows, **L** samples at 16 kHz, **F** frames of 20 ms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rlzoo.audio import valid_mask

MIN_SAMPLES = 400
"""The receptive field of one frame."""
WIDTH = 768
EMBEDDING = 128
HIDDEN = 512
PROJECTION = 2048


class StrongLearner(nn.Module):
    """(N, L) waveforms at 16 kHz, (N,) lengths >= 400 -> (N,) MOS. 102,772,097 parameters."""

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.models import wav2vec2_model

        self.wav2vec2 = wav2vec2_model(
            extractor_mode="group_norm",
            extractor_conv_layer_config=None,
            extractor_conv_bias=False,
            encoder_embed_dim=WIDTH,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=128,
            encoder_pos_conv_groups=16,
            encoder_num_layers=12,
            encoder_num_heads=12,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=3072,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=False,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )
        self.domain = nn.Parameter(torch.zeros(1, EMBEDDING))
        self.listener = nn.Parameter(torch.zeros(1, EMBEDDING))
        self.blstm = nn.LSTM(WIDTH + 2 * EMBEDDING, HIDDEN, batch_first=True, bidirectional=True)
        self.projection = nn.Sequential(nn.Linear(2 * HIDDEN, PROJECTION), nn.ReLU(), nn.Linear(PROJECTION, 1))

    def forward(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """(N, L), (N,) -> (N,)."""
        frames_NF, lengths_N = self._frames(waves, lengths)
        hidden = self.wav2vec2.encoder(frames_NF, lengths_N)
        N, size, _ = hidden.shape
        constant = torch.cat([self.domain, self.listener], 1).expand(N, size, -1)
        packed = pack_padded_sequence(
            torch.cat([hidden, constant], 2), lengths_N.cpu(), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(self.blstm(packed)[0], batch_first=True, total_length=size)
        score_NF = self.projection(hidden).squeeze(-1)
        mean_N = (score_NF * valid_mask(lengths_N, size)).sum(1) / lengths_N
        mos_N: Tensor = mean_N * 2 + 3
        return mos_N

    def _frames(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, L), (N,) -> (N, F, 512), (N,): the convolutional front end."""
        first, *rest = self.wav2vec2.feature_extractor.conv_layers
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
    # Two passes: subtracting the mean first keeps float32 exact enough to equal the unpadded norm.
    mean = (x * mask).sum(-1, keepdim=True) / count
    centred = (x - mean) * mask
    variance = centred.square().sum(-1, keepdim=True) / count
    scaled = centred * (variance + norm.eps).rsqrt()
    return (scaled * norm.weight[:, None] + norm.bias[:, None]) * mask
