"""LoRA (Hu et al., arXiv:2106.09685) on the transformer's linear layers, by `peft`: W + alpha / rank · B A."""

from __future__ import annotations

import re

import torch
from torch import nn

from rlzoo.errors import ConfigError, PluginError

LAYERS = r"transformer_blocks\.\d+\.(attn\.to_(q|k|v|out\.0)|ff\.ff\.(0\.0|2))"


def adapt(network: nn.Module, rank: int, alpha: float, layers: str) -> None:
    """Give adapters to the layers of attention and feed-forward whose name has a match of `layers`; freeze the rest.

    A's draw has its own seed: the same options give the same starting weights, which resuming relies on.

    Raises:
        ConfigError: `layers` is not a regular expression, or none of the layers matches.
        PluginError: peft is missing.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        hint = "pip install 'rlzoo-speech[lora]', or set policy.trainable = \"all\""
        raise PluginError(f"policy.trainable = 'lora' needs the package 'peft' ({error})", hint) from error
    try:
        pattern = re.compile(layers)
    except re.error as error:
        raise ConfigError(
            f"policy.lora_layers = '{layers}' is not a regular expression: {error}", "see Python's re"
        ) from error
    there = [name for name, _ in network.named_modules() if re.fullmatch(LAYERS, name)]
    chosen = [name for name in there if pattern.search(name)]
    if not chosen:
        raise ConfigError(f"policy.lora_layers = '{layers}' matches no layer", f"available: {', '.join(there[:6])} ...")
    # One pattern, which peft matches with whole names; a list it would match with their ends.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="|".join(map(re.escape, chosen)))
    # peft draws from the global generator: here from a fixed seed, and what others draw from it later is as before.
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too
        inject_adapter_in_model(config, network)
