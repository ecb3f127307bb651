"""The WaveGrad 2 denoiser written out literally: the specification that the fast one must equal.

One row, no padding, every tensor at its full rate, interpolation by torch, a convolution per published layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from rlzoo_wavegrad2.network import NetworkConfig
from torch import Tensor
from torch.nn import functional as F

Weights = Mapping[str, Tensor]


def conv(w: Weights, name: str, x: Tensor, dilation: int = 1) -> Tensor:
    weight = w[f"{name}.conv1d.weight"]
    return F.conv1d(x, weight, w[f"{name}.conv1d.bias"], padding=dilation * (weight.shape[2] // 2), dilation=dilation)


def lrelu(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def resample(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="linear", align_corners=False)


def position(config: NetworkConfig, level: Tensor, channels: int) -> Tensor:
    half = channels // 2
    exponents = torch.arange(half, dtype=level.dtype, device=level.device) / half
    angle = config.pos_emb_scale * level[:, None] * 1e-4**exponents
    return torch.cat([angle.sin(), angle.cos()], 1)[..., None]


def film(w: Weights, config: NetworkConfig, name: str, x: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    signal = lrelu(conv(w, f"{name}.signal_conv.0", x)) + position(config, level, x.shape[1])
    return conv(w, f"{name}.scale_conv", signal), conv(w, f"{name}.shift_conv", signal)


def down_basic(w: Weights, name: str, x: Tensor, factor: int) -> Tensor:
    main = resample(x, 1 / factor)
    for i, dilation in enumerate((1, 2, 4)):
        main = conv(w, f"{name}.main_branch.{i + 1}.convolution", lrelu(main), dilation)
    return main + resample(conv(w, f"{name}.residual_branch.0", x), 1 / factor)


def down(w: Weights, config: NetworkConfig, name: str, x: Tensor, factor: int) -> Tensor:
    if not config.large:
        return down_basic(w, name, x, factor)
    x = down_basic(w, f"{name}.downsampling_basic_block", x, factor)
    main = x
    for i, dilation in enumerate((1, 2, 4)):
        main = conv(w, f"{name}.main_branch.{i}.convolution", lrelu(main), dilation)
    return main + conv(w, f"{name}.residual_branch.0", x)


def up_basic(
    w: Weights, name: str, x: Tensor, factor: int, d: tuple[int, ...], scale: Tensor, shift: Tensor, entry: str
) -> Tensor:
    raised = lrelu(x) if factor == 1 else resample(lrelu(x), factor)
    main = conv(w, f"{name}.first_block_main_branch.{entry}", raised, d[0])
    main = conv(w, f"{name}.first_block_main_branch.modulation.convolution", lrelu(scale * main + shift), d[1])
    residual = conv(w, f"{name}.first_block_residual_branch.0", x)
    h = main + (residual if factor == 1 else resample(residual, factor))
    out = h
    for i in (0, 1):
        modulated = lrelu(scale * out + shift)
        out = conv(w, f"{name}.second_block_main_branch.modulation_{i}.convolution", modulated, d[2 + i])
    return h + out


def denoise(w: Weights, config: NetworkConfig, noisy: Tensor, hidden: Tensor, level: Tensor) -> Tensor:
    """(B, L), (B, H, T), (B,) -> (B, L), `w` a state dict of the decoder."""
    x = conv(w, "dblock_preconv", noisy[:, None])
    statistics = [film(w, config, "films.0", x, level)]
    for i, factor in enumerate(config.factors[:0:-1]):
        x = down(w, config, f"dblocks.{i}", x, factor)
        statistics.append(film(w, config, f"films.{i + 1}", x, level))
    x = conv(w, "ublock_preconv", hidden)
    for i, (factor, dilations) in enumerate(zip(config.factors, config.dilations, strict=True)):
        scale, shift = statistics[len(config.factors) - 1 - i]
        name = f"ublocks.{i}"
        if config.large:
            basic = f"{name}.upsampling_basic_block"
            x = up_basic(w, basic, x, factor, dilations, scale, shift, "upsampling.2")
            x = up_basic(w, name, x, 1, dilations, scale, shift, "noupsampling.1")
        else:
            x = up_basic(w, name, x, factor, dilations, scale, shift, "upsampling.2")
    return conv(w, "ublock_postconv", x)[:, 0]
