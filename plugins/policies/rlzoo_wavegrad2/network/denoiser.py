"""The WaveGrad denoiser: noisy waveform + hidden frames + noise level -> noise (Chen et al., arXiv:2009.00713).

Shapes: B rows, T hidden frames of `hop` samples, L = T·hop samples, C channels. Rates go L -> T on the way down (one
FiLM statistic per rate) and T -> L on the way up, each U-block modulated by the statistic of its output rate.

Rows may be shorter than the batch. Then every activation is kept zero behind the row's end before it is convolved, and
repeats its last valid column before it is interpolated, exactly what happens to a row alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from rlzoo_wavegrad2.network import rows
from rlzoo_wavegrad2.network.layers import Conv, LReLUConv, downsample, lrelu, modulate, upsample, upsample_convolve
from rlzoo_wavegrad2.network.presets import NetworkConfig


class Extent:
    """Valid lengths of a padded batch at one rate; knows how to hide what lies behind them."""

    def __init__(self, lengths: Tensor, size: int) -> None:
        self.lengths, self.size = lengths, size
        positions = torch.arange(size, device=lengths.device)
        self.valid = (positions < lengths[:, None])[:, None]  # (B, 1, L)
        self.clamped = torch.minimum(positions, lengths[:, None] - 1)[:, None]  # (B, 1, L)

    def scaled(self, factor: int) -> Extent:
        return Extent(self.lengths * factor, self.size * factor)

    def trim(self, x: Tensor) -> Tensor:
        return torch.where(self.valid, x, x.new_zeros(()))

    def extend(self, x: Tensor) -> Tensor:
        return x.gather(2, self.clamped.expand_as(x))


def trim(x: Tensor, extent: Extent | None) -> Tensor:
    return x if extent is None else extent.trim(x)


def extend(x: Tensor, extent: Extent | None) -> Tensor:
    return x if extent is None else extent.extend(x)


class FiLM(nn.Module):
    """Feature-wise modulation from one rate of the downsampling path: (B, I, L) -> scale, shift (B, O, L)."""

    def __init__(self, inputs: int, outputs: int, pos_emb_scale: float) -> None:
        super().__init__()
        self.signal_conv = nn.Sequential(Conv(inputs, inputs, 3))
        self.scale_conv = Conv(inputs, outputs, 3)
        self.shift_conv = Conv(inputs, outputs, 3)
        self.pos_emb_scale = pos_emb_scale

    def embedding(self, level: Tensor) -> Tensor:
        """(B,) sqrt(alpha_bar) -> (B, I) sinusoids, in float32: 5000 x level needs more digits than bf16 has."""
        half = self.scale_conv.conv1d.in_channels // 2
        exponents = torch.arange(half, device=level.device, dtype=torch.float32) / half
        angle = self.pos_emb_scale * level.float()[:, None] * 1e-4**exponents
        return torch.cat([angle.sin(), angle.cos()], 1)

    def forward(self, x: Tensor, level: Tensor, extent: Extent | None) -> tuple[Tensor, Tensor]:
        signal = lrelu(self.signal_conv(x))
        signal = trim(signal + self.embedding(level)[..., None].to(signal.dtype), extent)
        # Two convolutions: the halves of a fused one would be strided views, dearer in every use than it saves.
        return self.scale_conv(signal), self.shift_conv(signal)


class DownBasic(nn.Module):
    """Downsample by `factor`, then three convolutions; the residual is mixed at the low rate, where it is cheapest."""

    def __init__(self, inputs: int, outputs: int, factor: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        channels = (inputs, *([outputs] * len(dilations)))
        convs = [LReLUConv(a, b, d) for a, b, d in zip(channels, channels[1:], dilations, strict=False)]
        # Index 0 of the published sequence is the parameterless interpolation.
        self.main_branch = nn.ModuleList([nn.Identity(), *convs])
        self.residual_branch = nn.ModuleList([Conv(inputs, outputs, 1)])
        self.factor = factor

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """(B, I, L) -> (B, O, L // factor)."""
        low = downsample(x, self.factor)
        main = low
        for conv in list(self.main_branch)[1:]:
            main = trim(conv(main), extent)
        return trim(main + self.residual_branch[0](low), extent)

    def row(self, x: Tensor) -> Tensor:
        """One row: (L, I) -> (L // factor, O)."""
        return rows.down_basic(self, x)


class DownBlockLarge(nn.Module):
    """A downsampling block followed by three more convolutions at the low rate."""

    def __init__(self, inputs: int, outputs: int, factor: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.downsampling_basic_block = DownBasic(inputs, outputs, factor, dilations)
        self.main_branch = nn.ModuleList([LReLUConv(outputs, outputs, d) for d in dilations])
        self.residual_branch = nn.ModuleList([Conv(outputs, outputs, 1)])

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        """(B, I, L) -> (B, O, L // factor)."""
        x = self.downsampling_basic_block(x, extent)
        main = x
        for conv in self.main_branch:
            main = trim(conv(main), extent)
        return trim(main + self.residual_branch[0](x), extent)

    def row(self, x: Tensor) -> Tensor:
        """One row: (L, I) -> (L // factor, O)."""
        x = self.downsampling_basic_block.row(x)
        return rows.convolutions_down(list(self.main_branch), self.residual_branch[0], x)


class Modulation(nn.Module):
    """Leaky ReLU of the modulated input, then a convolution."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.convolution = Conv(channels, channels, 3, dilation)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, extent: Extent | None) -> Tensor:
        return trim(self.convolution(trim(modulate(x, scale, shift), extent)), extent)


class UpBasic(nn.Module):
    """Upsample by `factor` (1: stay) under FiLM; two residual halves, the same scale and shift three times."""

    def __init__(self, inputs: int, outputs: int, factor: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        first = Conv(inputs, outputs, 3, dilations[0])
        # Published names: with upsampling the sequence is (LReLU, interpolation, conv), without it (LReLU, conv).
        entry = (
            {"upsampling": nn.ModuleDict({"2": first})} if factor > 1 else {"noupsampling": nn.ModuleDict({"1": first})}
        )
        self.first_block_main_branch = nn.ModuleDict({**entry, "modulation": Modulation(outputs, dilations[1])})
        mix = Conv(inputs, outputs, 1)
        self.first_block_residual_branch = nn.ModuleList([mix])
        self.second_block_main_branch = nn.ModuleDict(
            {"modulation_0": Modulation(outputs, dilations[2]), "modulation_1": Modulation(outputs, dilations[3])}
        )
        self.factor = factor
        self._shortcuts = [first, mix]  # in a list: registered once, under their published names

    @property
    def entry(self) -> Conv:
        """The first convolution of the main branch."""
        return self._shortcuts[0]

    @property
    def residual(self) -> Conv:
        """The first half's residual."""
        return self._shortcuts[1]

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, extents: tuple[Extent | None, Extent | None]) -> Tensor:
        before, after = extents
        if self.factor > 1:
            first = self.entry.conv1d
            last = None if before is None else before.lengths - 1
            x = extend(x, before)
            main = upsample_convolve(lrelu(x), first.weight, first.bias, self.factor, last)
            residual = upsample(self.residual(x), self.factor)
        else:
            main, residual = self.entry(lrelu(x)), self.residual(x)
        h = residual + self.first_block_main_branch["modulation"](main, scale, shift, after)
        second = self.second_block_main_branch["modulation_0"](h, scale, shift, after)
        return trim(h + self.second_block_main_branch["modulation_1"](second, scale, shift, after), after)

    def row(self, x: Tensor, film: rows.Film, project: Tensor | None = None) -> Tensor:
        """One row: (L, I) -> (factor L, O), or through `project` (O, P) to (factor L, P)."""
        return rows.up_basic(self, x, film, project)


class UpBlockLarge(UpBasic):
    """An upsampling block followed by a second one at the same rate under the same modulation."""

    def __init__(self, inputs: int, outputs: int, factor: int, dilations: tuple[int, ...]) -> None:
        super().__init__(outputs, outputs, 1, dilations)
        self.upsampling_basic_block = UpBasic(inputs, outputs, factor, dilations)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, extents: tuple[Extent | None, Extent | None]) -> Tensor:
        x = self.upsampling_basic_block(x, scale, shift, extents)
        return super().forward(x, scale, shift, (extents[1], extents[1]))

    def row(self, x: Tensor, film: rows.Film, project: Tensor | None = None) -> Tensor:
        """One row: (L, I) -> (factor L, O), or through `project` (O, P) to (factor L, P)."""
        return super().row(self.upsampling_basic_block.row(x, film), film, project)


class Denoiser(nn.Module):
    """eps(y_noisy, hidden, sqrt(alpha_bar)): (B, L), (B, H, T), (B,) -> (B, L)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        down, up, factors = config.down_channels, config.up_channels, config.factors
        self.factors, self.narrowest = factors, min(up)
        self.recompute = False  # see `run`
        self.ublock_preconv = Conv(config.hidden_channels, up[0], 3)
        up_block = UpBlockLarge if config.large else UpBasic
        self.ublocks = nn.ModuleList(
            up_block(a, b, f, d) for a, b, f, d in zip(up, up[1:], factors, config.dilations, strict=False)
        )
        self.ublock_postconv = Conv(up[-1], 1, 3)
        self.dblock_preconv = Conv(1, down[0], 5)
        down_block = DownBlockLarge if config.large else DownBasic
        self.dblocks = nn.ModuleList(
            down_block(a, b, f, (1, 2, 4)) for a, b, f in zip(down, down[1:], factors[:0:-1], strict=False)
        )
        self.films = nn.ModuleList(FiLM(a, b, config.pos_emb_scale) for a, b in zip(down, up[:0:-1], strict=False))

    def forward(self, noisy: Tensor, hidden: Tensor, level: Tensor, frames: Tensor | None = None) -> Tensor:
        """`frames` (B,) int64: valid hidden frames of each row; None: all rows fill the batch."""
        if rows.suits(noisy, self.narrowest) or (rows.on_cpu(noisy) and not torch.is_grad_enabled()):
            return self.row_by_row(noisy, hidden, level, frames)
        return self._together(noisy, hidden, level, frames)

    def _together(self, noisy: Tensor, hidden: Tensor, level: Tensor, frames: Tensor | None) -> Tensor:
        # extents[i]: behind the i-th upsampling block; extents[0] is the frame rate.
        extents: list[Extent | None] = [None] * (len(self.factors) + 1)
        if frames is not None:
            extents[0] = at = Extent(frames, hidden.shape[2])
            for i, factor in enumerate(self.factors):
                extents[i + 1] = at = at.scaled(factor)
        x = trim(self.dblock_preconv(trim(noisy[:, None], extents[-1])), extents[-1])
        statistics = [x]
        for i, block in enumerate(self.dblocks):
            x = self.run(block, x, extents[-2 - i])
            statistics.append(x)
        x = trim(self.ublock_preconv(trim(hidden, extents[0])), extents[0])
        for i in range(len(self.ublocks)):
            x = self.run(self._up, i, x, statistics.pop(), level, (extents[i], extents[i + 1]))
        out: Tensor = trim(self.ublock_postconv(x), extents[-1])
        return out[:, 0]

    def _up(
        self, i: int, x: Tensor, statistic: Tensor, level: Tensor, extents: tuple[Extent | None, Extent | None]
    ) -> Tensor:
        scale, shift = self.films[-1 - i](statistic, level, extents[1])
        up: Tensor = self.ublocks[i](x, scale, shift, extents)
        return up

    def run(self, block: Callable[..., Tensor], *args: Any) -> Tensor:
        """`block(*args)`; with `recompute` a gradient keeps its arguments alone and computes its inside once more."""
        if not (self.recompute and torch.is_grad_enabled()):
            return block(*args)
        # Nothing in here draws.
        out: Tensor = checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False)
        return out

    def row_by_row(self, noisy: Tensor, hidden: Tensor, level: Tensor, frames: Tensor | None) -> Tensor:
        """The same, each row cut to its own length: on a CPU its activations stay in the caches, padding costs nothing,
        and its result is bit for bit what it would be alone."""
        size, valid = noisy.shape[1] // hidden.shape[2], hidden.shape[2]
        given = [valid] * len(noisy) if frames is None else frames.tolist()
        quick, outs = rows.suits(noisy, self.narrowest), [noisy[:0]] * len(noisy)

        def compute(row: int) -> None:
            x, h, at = noisy[row, : given[row] * size], hidden[row, :, : given[row]], level[row : row + 1]
            out = rows.denoise_row(self, x, h, at) if quick else self._together(x[None], h[None], at, None)[0]
            outs[row] = F.pad(out, (0, (valid - given[row]) * size))

        if quick:
            rows.each_row(compute, [frames * size * self.ublock_postconv.conv1d.in_channels for frames in given])
        else:
            for row in range(len(noisy)):
                compute(row)
        return torch.stack(outs)


def init_orthogonal(module: nn.Module) -> None:
    """The published initialisation: orthogonal weights of gain 1 in every convolution."""
    for child in module.modules():
        if isinstance(child, nn.Conv1d):
            nn.init.orthogonal_(child.weight)


__all__ = ["Denoiser", "init_orthogonal"]
