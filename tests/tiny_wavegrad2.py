"""A network of WaveGrad 2 that trains in milliseconds, at 8 kHz."""

from rlzoo_wavegrad2.network import NetworkConfig

TINY = NetworkConfig(
    sample_rate=8000,
    encoder_channels=16,
    speaker_channels=4,
    predictor_channels=8,
    down_channels=(8, 16),
    up_channels=(24, 16, 8),
    factors=(10, 8),
    dilations=((1, 2, 4, 8),) * 2,
)
