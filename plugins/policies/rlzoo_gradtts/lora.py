"""LoRA (Hu et al., arXiv:2106.09685) on the denoiser's convolutions: W + alpha / rank · B A, only A and B trained.

By `peft`, whose wrappers replace layers: this denoiser calls its layers, so that they are asked.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from rlzoo.errors import PluginError
from rlzoo.functional import chosen_convolutions


def adapt(network: nn.Module, rank: int, alpha: float, layers: str) -> None:
    """Give adapters to the convolutions whose name has a match of `layers`; everything else is frozen.

    A's draw has its own seed: the same options give the same starting weights, which resuming relies on.

    Raises:
        ConfigError: `layers` is not a regular expression, or none of the convolutions matches.
        PluginError: peft is missing.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        hint = "pip install 'rlzoo-speech[lora]'"
        raise PluginError(f"policy.trainable = 'lora' needs the package 'peft' ({error})", hint) from error
    chosen = chosen_convolutions(network, layers)
    # One pattern, which peft matches with whole names; a list it would match with their ends.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="|".join(map(re.escape, chosen)))
    # peft draws from the global generator: here from a fixed seed, and what others draw from it later is as before.
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too
        inject_adapter_in_model(config, network)
    for name, module in chosen.items():
        wrapper: Any = network.get_submodule(name)
        wrapper.lora_A["default"].dilation = module.dilation  # peft (0.21, #3697) leaves it at 1
