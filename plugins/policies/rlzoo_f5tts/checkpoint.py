"""Weight files as F5-TTS and Vocos publish them, read without running anything that is in them, and written alike.

A model file keeps the averaged weights as `ema_model.transformer.NAME` (safetensors, or a pickle's
`ema_model_state_dict`), beside buffers of the spectrum, `step` and `initted`. Fine-tunes have the same layout, some
with the plain weights (`model_state_dict`, names without `ema_model.`), and vocabularies of other sizes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from rlzoo.errors import DataError
from rlzoo.safepickle import load_untrusted
from rlzoo.voices import known_model
from rlzoo.writing import write_bytes
from rlzoo_f5tts.mel import BANDS, Vocos
from rlzoo_f5tts.network import HEAD, DiT, DiTConfig, text_positions

PREFIX = "transformer."
AVERAGED = "ema_model."
MARK = "rlzoo-f5tts"
_HINT = "give a model file of F5-TTS, such as F5TTS_v1_Base/model_1250000.safetensors"
_BLOCK = re.compile(r"transformer_blocks\.(\d+)\.")
_TEXT_BLOCK = re.compile(r"text_embed\.text_blocks\.(\d+)\.")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a `.safetensors` or a pickled checkpoint, flat, and the header's metadata.

    Of a pickle the averaged weights are taken, else the plain ones. DataError for a file that is missing or damaged.
    """
    if not path.is_file():
        raise DataError(f"'{path}' does not exist", "check the path")
    if path.suffix != ".safetensors":
        return _unpickled(path), {}
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"'{path}' is not a complete safetensors file: {error}", "get or copy it again") from error


def _unpickled(path: Path) -> dict[str, Tensor]:
    content = load_untrusted(path)
    for name in ("ema_model_state_dict", "model_state_dict", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}, not named tensors", _HINT)
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def read_model(path: Path, *, filler_masked: bool | None = None, rotary_heads: int | None = None) -> DiT:
    """The network of a model file, with its weights in float32.

    What shapes do not tell, `filler_masked` and `rotary_heads`, comes from the arguments, else from the header of a
    file that rlzoo wrote, else v1's.

    Raises:
        DataError: the file is missing, damaged, of another model, or has weights that are not finite.
    """
    tensors, metadata = read_tensors(path)
    weights = model_weights(tensors, path)
    described = _described(metadata, path)
    told = {"filler_masked": filler_masked, "rotary_heads": rotary_heads}
    described.update({name: value for name, value in told.items() if value is not None})
    config = read_config(weights, path, described)
    with torch.device("meta"):
        network = DiT(config)
    _check(weights, network.state_dict(), path, _HINT)
    network.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
    network.text_embed.positions = text_positions(config.text_dim)
    return network


def model_weights(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The transformer's weights by their own names. DataError if there are none, saying what the file is."""
    averaged = {name: value for name, value in tensors.items() if name.startswith(AVERAGED)}
    named = {name.removeprefix(AVERAGED): value for name, value in (averaged or tensors).items()}
    found = {name.removeprefix(PREFIX): value for name, value in named.items() if name.startswith(PREFIX)}
    if not any(name.startswith("transformer_blocks.") for name in found) or "audio_embed.linear.weight" in found:
        what = known_model(tensors) or f"unknown: its first tensor is '{next(iter(tensors), '')}'"
        raise DataError(f"'{path}' is not a model of F5-TTS; it is {what}", _HINT)
    return found


def read_config(weights: Mapping[str, Tensor], path: Path, told: Mapping[str, Any]) -> DiTConfig:
    """The configuration that the weights' names and shapes tell. DataError if they are not F5-TTS's DiT."""
    try:
        projection, text = weights["proj_out.weight"], weights["text_embed.text_embed.weight"]
        query, ff = weights["transformer_blocks.0.attn.to_q.weight"], weights["transformer_blocks.0.ff.ff.0.0.weight"]
        blocks = 1 + max(int(m[1]) for name in weights if (m := _BLOCK.match(name)))
        text_blocks = 1 + max((int(m[1]) for name in weights if (m := _TEXT_BLOCK.match(name))), default=-1)
        if max(blocks, text_blocks) > len(weights):
            raise KeyError(f"transformer_blocks.{len(weights)}")
        inner = weights.get("text_embed.text_blocks.0.pwconv1.weight", text)
        return DiTConfig(
            dim=projection.shape[1],
            depth=blocks,
            heads=query.shape[0] // HEAD,
            ff=ff.shape[0],
            text_dim=text.shape[1],
            text_blocks=text_blocks,
            text_ff=inner.shape[0] if text_blocks else text.shape[1],
            vocabulary=text.shape[0] - 1,
            bands=projection.shape[0],
            **told,
        )
    except (KeyError, IndexError, ValidationError) as error:
        reason = f"it has no '{error.args[0]}'" if isinstance(error, KeyError) else "its sizes are not a DiT's"
        raise DataError(f"'{path}' is not F5-TTS's diffusion transformer: {reason}", _HINT) from error


def read_vocoder(path: Path) -> Vocos:
    """Vocos from `pytorch_model.bin` (or a .safetensors of the same names), frozen. DataError for anything else."""
    tensors, _ = read_tensors(path)
    hint = 'give charactr/vocos-mel-24khz\'s pytorch_model.bin, or set policy.vocoder = "griffin-lim"'
    weights = {k: v.float() for k, v in tensors.items() if k.startswith(("backbone.", "head.out."))}
    try:
        dim, bands, _ = weights["backbone.embed.weight"].shape
        inner = weights["backbone.convnext.0.pwconv1.weight"].shape[0]
        depth = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("backbone.convnext."))
    except (KeyError, ValueError) as error:
        raise DataError(f"'{path}' is not a Vocos vocoder of mel spectra", hint) from error
    if bands != BANDS or dim > 4096 or inner > 16384 or depth > 64:
        raise DataError(f"'{path}' is a Vocos of {bands} bands and width {dim}, not of {BANDS} mel bands", hint)
    vocoder = Vocos(dim, inner, depth)
    _check(weights, vocoder.state_dict(), path, hint)
    vocoder.load_state_dict(weights)
    return vocoder.eval().requires_grad_(False)


def write_model(path: Path, network: nn.Module, config: DiTConfig, description: Mapping[str, Any]) -> None:
    """Write a network's weights, adapters merged; see `write_weights`."""
    write_weights(path, merged(network), config, description)


def write_weights(path: Path, state: Mapping[str, Tensor], config: DiTConfig, description: Mapping[str, Any]) -> None:
    """Write weights in the published layout, atomically: F5-TTS's own loader reads them as averaged weights.

    The header repeats what shapes do not tell, and `description` (JSON values). DataError if it cannot be written.
    """
    weights = {f"{AVERAGED}{PREFIX}{name}": value.cpu().contiguous() for name, value in state.items()}
    weights |= {"initted": torch.tensor(True), "step": torch.tensor(int(description.get("step", 0)))}
    habits = {"filler_masked": config.filler_masked, "rotary_heads": config.rotary_heads}
    header = {"format": MARK, "config": json.dumps({**description, "network": habits}, ensure_ascii=False)}
    write_bytes(path, save(weights, header), refused="check free space and permissions")


def merged(network: nn.Module) -> dict[str, Tensor]:
    """The weights by their published names on the CPU, adapters (`lora.adapt`) added to what they adapt."""
    state = {
        name.replace(".base_layer.", "."): value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in network.named_modules():
        if hasattr(module, "get_delta_weight"):
            whole = module.base_layer.weight + module.get_delta_weight("default")
            state[f"{name}.weight"] = whole.detach().cpu().contiguous()
    return state


def _described(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if metadata.get("format") != MARK:
        return {}
    try:
        network = json.loads(metadata.get("config", ""))["network"]
        return {name: network[name] for name in ("filler_masked", "rotary_heads")}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"the description in '{path}' is damaged: {error}", "copy or make it again") from error


def _check(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path, hint: str) -> None:
    """DataError naming the first tensors that are missing, unknown, misshapen or not finite."""
    problems = [f"'{name}' is missing" for name in expected if name not in weights]
    problems += [f"'{name}' is unknown" for name in weights if name not in expected]
    problems += [
        f"'{name}' is {tuple(weights[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    problems += [f"'{name}' is not finite" for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if problems:
        raise DataError(
            f"the weights in '{path}' do not fit: {len(problems)} problems, {'; '.join(problems[:3])}", hint
        )
