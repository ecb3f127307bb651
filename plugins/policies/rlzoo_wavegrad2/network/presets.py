"""Sizes of the network. `base` and `large` are as published; `mini` is the same network, narrower, for a laptop."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlzoo.plugin import Options

Size = Annotated[int, Field(ge=1, le=1 << 16)]


class NetworkConfig(Options):
    """Everything that shapes the network or changes what its weights mean. Stored with every checkpoint."""

    sample_rate: Annotated[int, Field(ge=1_000, le=384_000)] = 22050
    """Hz."""
    symbols: Size = 151
    """Rows of the phoneme embedding."""
    speakers: Size = 1
    encoder_channels: Size = 512
    speaker_channels: Size = 64
    predictor_channels: Size = 512
    """LSTM units per direction of the duration and of the range predictor."""
    down_channels: tuple[Size, ...] = (32, 128, 128, 256, 512)
    """Channels after the first convolution and after each downsampling block."""
    up_channels: tuple[Size, ...] = (768, 512, 512, 256, 128, 128)
    """Channels after the first convolution on the hidden frames and after each upsampling block."""
    factors: Annotated[tuple[Size, ...], Field(max_length=8)] = (5, 5, 3, 2, 2)
    """Upsampling factors; their product is the hop. All but the first, reversed, downsample."""
    dilations: tuple[tuple[int, ...], ...] = ((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 1, 2), (1, 2, 1, 2))
    """Dilations of the four convolutions of each upsampling block."""
    large: bool = False
    """Every block doubled, as the public repository's large decoder."""
    pos_emb_scale: Annotated[float, Field(gt=0, le=1e6)] = 5000.0
    """Factor on the noise level inside its sinusoidal embedding; 50000 in checkpoints before 2021-07-08."""

    @model_validator(mode="after")
    def _frames_are_short(self) -> Self:
        if self.hop > 1 << 16:
            raise ValueError(f"factors: {self.hop:,} samples a frame, expected 65,536 at most")
        return self

    @property
    def hop(self) -> int:
        """Samples per hidden frame."""
        return math.prod(self.factors)

    @property
    def hidden_channels(self) -> int:
        """H: encoder and speaker side by side."""
        return self.encoder_channels + self.speaker_channels

    @property
    def frame_rate(self) -> float:
        """Hidden frames per second."""
        return self.sample_rate / self.hop


Preset = Literal["mini", "mini-16k", "base", "large"]

PRESETS: dict[str, NetworkConfig] = {
    "base": NetworkConfig(),
    "large": NetworkConfig(large=True, dilations=((1, 2, 4, 8),) * 5),
    # 8 kHz, 10 ms frames. Channels are multiples of 16 so that matrix units on CPU and GPU are filled; the parameters
    # fit 10 MB in fp16 with room, and the fewest channels stand at the highest rates, where they cost most.
    "mini": NetworkConfig(
        sample_rate=8000,
        encoder_channels=192,
        speaker_channels=16,
        predictor_channels=96,
        down_channels=(16, 48, 96, 192),
        up_channels=(256, 192, 96, 48, 32),
        factors=(5, 4, 2, 2),
        dilations=((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
    ),
    # The same one octave up: 16 kHz, 12.5 ms frames (80 Hz, as the paper's), one more block at the new highest rate.
    "mini-16k": NetworkConfig(
        sample_rate=16000,
        encoder_channels=192,
        speaker_channels=16,
        predictor_channels=96,
        down_channels=(16, 32, 64, 128, 192),
        up_channels=(256, 192, 128, 64, 48, 32),
        factors=(5, 5, 2, 2, 2),
        dilations=((1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8)),
    ),
}
