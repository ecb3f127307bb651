"""The strong learner: wav2vec 2.0 base, domain and listener embeddings, BLSTM, projection. Batches may be ragged.

Right padding does not reach valid frames: `rlzoo.wav2vec2` keeps it out of wav2vec 2.0, packing out of the backward
LSTM. **N** rows, **L** samples at 16 kHz, **F** frames of 20 ms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rlzoo.audio import valid_mask
from rlzoo.functional import with_backward
from rlzoo.wav2vec2 import frames

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
        frames_NF, lengths_N = frames(self.wav2vec2, waves, lengths)
        hidden = self.wav2vec2.encoder(frames_NF, lengths_N)
        N, size, _ = hidden.shape
        constant = torch.cat([self.domain, self.listener], 1).expand(N, size, -1)
        packed = pack_padded_sequence(
            torch.cat([hidden, constant], 2), lengths_N.cpu(), batch_first=True, enforce_sorted=False
        )
        hidden, _ = pad_packed_sequence(with_backward(self.blstm)(packed)[0], batch_first=True, total_length=size)
        score_NF = self.projection(hidden).squeeze(-1).float()
        mean_N = (score_NF * valid_mask(lengths_N, size)).sum(1) / lengths_N
        mos_N: Tensor = mean_N * 2 + 3
        return mos_N
