"""The WaveGrad 2 network, with the parameter names of the public model."""

from rlzoo_wavegrad2.network.presets import PRESETS, NetworkConfig
from rlzoo_wavegrad2.network.wavegrad2 import WaveGrad2Network

__all__ = ["PRESETS", "NetworkConfig", "WaveGrad2Network"]
