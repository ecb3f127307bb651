"""F5-TTS's diffusion transformer (Chen et al., arXiv:2410.06885), with the parameter names of the published files.

A restatement: one row says the same alone and in a padded batch. The published code leaves padding out of neither
attention nor the text blocks' normalisation, so what it says of a row depends on the row's batch mates.

**N** rows, **L** frames of the longest row (reference and speech together), **D** width, **M** mel bands.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

HEAD = 64
"""Width of one attention head in every published model."""
TIME_FEATURES = 256
TEXT_POSITIONS = 8192
"""Frames whose place the text embedding knows, 87 s."""


class DiTConfig(BaseModel):
    """Configuration from a checkpoint's shapes (`checkpoint.read_config`), and two options that shapes do not show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(1024, ge=64, le=4096)
    depth: int = Field(22, ge=1, le=64)
    heads: int = Field(16, ge=1, le=64)
    ff: int = Field(2048, ge=1, le=16384)
    """Width inside the feed-forward layers."""
    text_dim: int = Field(512, ge=2, le=4096)
    text_blocks: int = Field(4, ge=0, le=32)
    text_ff: int = Field(1024, ge=1, le=16384)
    vocabulary: int = Field(2545, ge=1, le=200_000)
    bands: int = Field(100, ge=1, le=512)
    filler_masked: bool = True
    """True if frames beyond the text are zero between the text blocks: v1 does so, the first generation does not."""
    rotary_heads: int = Field(0, ge=0, le=64)
    """Number of attention heads with positions; 0: all. The first generation: 1."""


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """(N, H, L, d) turned by angles (L, d / 2), pair by pair of neighbouring numbers (Su et al., arXiv:2104.09864)."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)


class Attention(nn.Module):
    """Attention of all frames to all frames of the same row."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads, self.rotary_heads = config.heads, config.rotary_heads or config.heads
        inner = HEAD * config.heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(config.dim, inner) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, config.dim)])

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None) -> Tensor:
        """(N, L, D), angles (L, 32), mask (N, L) false on padding or None -> (N, L, D)."""
        layers = (self.to_q, self.to_k, self.to_v)
        q, k, v = (layer(x).unflatten(-1, (self.heads, HEAD)).transpose(1, 2) for layer in layers)
        turned = self.rotary_heads
        if turned == self.heads:
            q, k = rotate(q, angles), rotate(k, angles)
        else:
            q, k = (torch.cat([rotate(z[:, :turned], angles), z[:, turned:]], 1) for z in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        out: Tensor = self.to_out[0](attended.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Two linear layers with a GELU (its tanh form) between them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        into = nn.Sequential(nn.Linear(config.dim, config.ff), nn.GELU(approximate="tanh"))
        # The names of the published files count a dropout that is none.
        self.ff = nn.Sequential(into, nn.Identity(), nn.Linear(config.ff, config.dim))

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D)."""
        out: Tensor = self.ff(x)
        return out


class Modulation(nn.Module):
    """`parts` vectors (N, 1, D) that follow from the time (adaptive layer norm, Peebles and Xie, arXiv:2212.09748)."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(dim, dim * parts)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        """(N, D) -> `parts` times (N, 1, D)."""
        return tuple(self.linear(F.silu(time))[:, None].chunk(self.parts, -1))


def normed(x: Tensor) -> Tensor:
    """Layer norm over the last axis, without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Block(nn.Module):
    """Attention and feed-forward, each scaled, shifted and gated by the time."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(config.dim, 6)
        self.attn = Attention(config)
        self.ff = FeedForward(config)

    def forward(self, x: Tensor, time: Tensor, angles: Tensor, mask: Tensor | None) -> Tensor:
        """(N, L, D), (N, D), (L, 32), (N, L) or None -> (N, L, D)."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.attn_norm(time)
        x = x + gate_a * self.attn(normed(x) * (1 + scale_a) + shift_a, angles, mask)
        out: Tensor = x + gate_f * self.ff(normed(x) * (1 + scale_f) + shift_f)
        return out


class TextBlock(nn.Module):
    """ConvNeXt V2 block (Woo et al., arXiv:2301.00808) over the frames of each row."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim, inner = config.text_dim, config.text_ff
        self.dwconv = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, inner)
        self.grn = ResponseNorm(inner)
        self.pwconv2 = nn.Linear(inner, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(N, L, E), mask (N, L, 1) false on padding or None -> (N, L, E)."""
        h = self.dwconv(x.transpose(1, 2)).transpose(1, 2)
        h = F.gelu(self.pwconv1(self.norm(h)))
        out: Tensor = x + self.pwconv2(self.grn(h, mask))
        return out


class ResponseNorm(nn.Module):
    """Global response normalisation: each channel by its norm over a row's own frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(N, L, E), mask (N, L, 1) or None -> (N, L, E)."""
        norm = torch.linalg.vector_norm(x if mask is None else x * mask, dim=1, keepdim=True)
        out: Tensor = self.gamma * (x * (norm / (norm.mean(-1, keepdim=True) + 1e-6))) + self.beta + x
        return out


class TextEmbedding(nn.Module):
    """One vector per frame: the first frames carry one character each, the rest the filler 0."""

    positions: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.filler_masked = config.filler_masked
        self.text_embed = nn.Embedding(config.vocabulary + 1, config.text_dim)
        self.text_blocks = nn.ModuleList([TextBlock(config) for _ in range(config.text_blocks)])
        self.register_buffer("positions", text_positions(config.text_dim), persistent=False)

    def forward(self, text: Tensor, mask: Tensor | None, drop: Tensor | None) -> Tensor:
        """(N, L) int64, 0 the filler, mask (N, L) false on padding or None -> (N, L, E), zero on padding.

        `drop` (N,) bool: rows whose characters are not told; v1 still knows how many there are.
        """
        x = self.text_embed(text if drop is None else text.masked_fill(drop[:, None], 0))
        own = None if mask is None else mask[..., None]
        if self.text_blocks:
            kept = text[..., None] != 0 if self.filler_masked else own
            x = x + self.positions[: text.shape[1]]
            x = x if kept is None else x * kept
            for block in self.text_blocks:
                x = block(x, own)
                x = x if kept is None else x * kept
        out: Tensor = x if own is None else x * own
        return out


def text_positions(dim: int) -> Tensor:
    """(TEXT_POSITIONS, E): cosines, then sines, of E / 2 frequencies."""
    angles = torch.arange(TEXT_POSITIONS).float()[:, None] * inverse_frequencies(dim)
    return torch.cat([angles.cos(), angles.sin()], -1)


def inverse_frequencies(dim: int) -> Tensor:
    """(dim / 2,): 10000^(-2i / dim)."""
    return 10000.0 ** (-torch.arange(0, dim, 2)[: dim // 2].float() / dim)


class ConvPosition(nn.Module):
    """Two wide convolutions that tell a frame where it is."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # 16 groups of channels; names as in the published files, where a Mish stands between.
        self.conv1d = nn.Sequential(
            nn.Conv1d(dim, dim, 31, groups=16, padding=15), nn.Mish(), nn.Conv1d(dim, dim, 31, groups=16, padding=15)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(N, L, D), mask (N, L) or None -> (N, L, D), zero on padding."""
        x = x.transpose(1, 2)
        for conv in (self.conv1d[0], self.conv1d[2]):
            x = F.mish(conv(x if mask is None else x * mask[:, None]))
        return (x if mask is None else x * mask[:, None]).transpose(1, 2)


class InputEmbedding(nn.Module):
    """Noisy spectrum, reference and text, side by side in every frame."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(2 * config.bands + config.text_dim, config.dim)
        self.conv_pos_embed = ConvPosition(config.dim)

    def forward(self, x: Tensor, reference: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        """(N, L, M) twice, (N, L, E), (N, L) or None -> (N, L, D)."""
        h = self.proj(torch.cat([x, reference, text], -1))
        out: Tensor = self.conv_pos_embed(h, mask) + h
        return out


class TimeEmbedding(nn.Module):
    """(N,) times in [0, 1] -> (N, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(nn.Linear(TIME_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """Sines, then cosines, of 1000 t at frequencies from 1 to 1/10000."""
        half = TIME_FEATURES // 2
        frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / (half - 1)))
        angles = 1000 * t.float()[:, None] * frequencies
        out: Tensor = self.time_mlp(torch.cat([angles.sin(), angles.cos()], -1).to(t.dtype))
        return out


class RotaryEmbedding(nn.Module):
    """Holds the frequencies, which the published files store."""

    inv_freq: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inv_freq", inverse_frequencies(HEAD))

    def forward(self, size: int) -> Tensor:
        """Angles (size, HEAD / 2)."""
        return torch.arange(size, device=self.inv_freq.device).float()[:, None] * self.inv_freq.float()


class FinalNorm(nn.Module):
    """Layer norm, scaled and shifted by the time."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(N, L, D), (N, D) -> (N, L, D)."""
        scale, shift = self.linear(F.silu(time))[:, None].chunk(2, -1)
        out: Tensor = normed(x) * (1 + scale) + shift
        return out


class DiT(nn.Module):
    """Velocity data - noise of noisy mel spectra, given text and the frames that are known.

    `checkpointing`: compute the blocks again in the backward pass instead of keeping what is inside them.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config, self.checkpointing = config, False
        self.time_embed = TimeEmbedding(config.dim)
        self.text_embed = TextEmbedding(config)
        self.input_embed = InputEmbedding(config)
        self.rotary_embed = RotaryEmbedding()
        self.transformer_blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.norm_out = FinalNorm(config.dim)
        self.proj_out = nn.Linear(config.dim, config.bands)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Zero what the paper starts at zero: the network then begins as v = 0."""
        for name, parameter in self.named_parameters():
            if any(part in name for part in ("attn_norm.", "norm_out.", "proj_out.")):
                parameter.zero_()

    def forward(
        self,
        x: Tensor,
        reference: Tensor,
        text: Tensor,
        t: Tensor,
        mask: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Tensor:
        """Velocity at F5-TTS's time, which is 0 for noise and 1 for data.

        Args:
            x: (N, L, M) noisy log-mel spectrum, reference frames first.
            reference: (N, L, M) known frames of the log-mel spectrum, zero elsewhere.
            text: (N, L) int64, characters of reference and new text, then 0.
            t: (N,) times.
            mask: (N, L) bool, false on padding; None: no row is padded.
            drop_text: (N,) bool, rows whose text is not told; None: all are.

        Returns:
            (N, L, M); what stands on padding means nothing.
        """
        time = self.time_embed(t)
        h = self.input_embed(x, reference, self.text_embed(text, mask, drop_text), mask)
        angles = self.rotary_embed(x.shape[1])
        for block in self.transformer_blocks:
            if self.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, time, angles, mask, use_reentrant=False)
            else:
                h = block(h, time, angles, mask)
        out: Tensor = self.proj_out(self.norm_out(h, time))
        return out
