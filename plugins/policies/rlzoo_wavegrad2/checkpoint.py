"""Weights on disk: checkpoints of the public repository maum-ai/wavegrad2, and our own voice files.

The public format is a Lightning 1.2 `.ckpt`: a pickle with the state dict, optimiser states and the hyper-parameters
as an OmegaConf object; its `*_EMA` files are bare state dicts. Both are read without running anything in them.
A voice file is safetensors, its description JSON in the header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rlzoo.errors import DataError
from rlzoo.safepickle import load_untrusted
from rlzoo_wavegrad2.hyperparameters import PUBLISHER, MaumConfig, from_parameters, from_shapes
from rlzoo_wavegrad2.network import NetworkConfig, WaveGrad2Network

FORMAT, FORMAT_VERSION = "rlzoo-wavegrad2", 1

# Names before 2021-07-08 14:51 KST.
_RENAMED = {
    "resampling.get_duration.": "resampling.duration_predictor.",
    "resampling.get_range.": "resampling.range_parameter_predictor.",
}
# Constants of the noise schedule, which are computed and not loaded.
_BUFFERS = frozenset(
    str.split(
        "betas alphas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod_prev sqrt_alphas_cumprod "
        "sqrt_recip_alphas_cumprod sqrt_alphas_cumprod_m1 posterior_log_variance_clipped posterior_mean_coef1 "
        "posterior_mean_coef2"
    )
)


def load_maum_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], MaumConfig]:
    """Weights (float32, on the CPU, names of the published model) and configuration of a public checkpoint.

    Takes base and large models, the parameter names of before July 2021, and bare `*_EMA` state dicts.

    Raises:
        DataError: not a checkpoint, damaged, would run code, another language, or weights that do not fit; names the
            first offending ones.
    """
    content = load_untrusted(path)
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}, not a checkpoint", PUBLISHER)
    whole = isinstance(content.get("state_dict"), dict)
    weights = content["state_dict"] if whole else content
    state = {_rename(k): v for k, v in weights.items() if isinstance(k, str) and k not in _BUFFERS}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(
            f"'{path}' has no weights: its top-level entries are {_some(map(repr, content))}",
            "a checkpoint of maum-ai/wavegrad2 has 'state_dict' and 'hyper_parameters', or is a bare state dict",
        )
    parameters = content.get("hyper_parameters") if whole else None
    is_old = any(key.startswith(tuple(_RENAMED)) for key in weights if isinstance(key, str))
    if isinstance(parameters, dict):
        config = from_parameters(parameters, state, path)
    else:
        config = from_shapes(state, is_old)
    check_weights(state, config.network, path)
    loaded = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    counters = {key: content[key] for key in ("epoch", "global_step") if isinstance(content.get(key), int)}
    return loaded, MaumConfig(**{**vars(config), **(counters if whole else {})})


def check_weights(state: Mapping[str, Tensor], config: NetworkConfig, path: str | Path) -> None:
    """Compare names, shapes and finiteness of `state` with what the network of `config` needs.

    Raises:
        DataError: naming the first missing, unknown, misshapen or non-finite tensors.
    """
    with torch.device("meta"):
        expected = WaveGrad2Network(config, init=False).state_dict()
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if unknown := [key for key in state if key not in expected]:
        problems.append(f"{len(unknown)} unknown: {_some(unknown)}")
    if wrong := [key for key in expected if key in state and state[key].shape != expected[key].shape]:
        shapes = [f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}" for key in wrong]
        problems.append(f"{len(wrong)} of another shape: {_some(shapes)}")
    if problems:
        raise DataError(
            f"the weights in '{path}' are not those of this WaveGrad 2 network: {'; '.join(problems)}",
            "check that it is a checkpoint of WaveGrad 2 and that its hyper-parameters belong to it",
        )
    if broken := [key for key, value in state.items() if not torch.isfinite(value).all()]:
        raise DataError(f"weights in '{path}' are not finite: {_some(broken)}", PUBLISHER)


def save_voice(path: str | Path, state: Mapping[str, Tensor], config: Mapping[str, Any], *, half: bool = False) -> None:
    """Write weights and their description (JSON values) as one safetensors file, atomically.

    Args:
        config: `network`, the fields of `NetworkConfig`, and whatever else a voice needs: text style, card ...
        half: store matrices and kernels in float16; vectors (biases, norms) stay as they are, they weigh nothing. The
            description tells it under `half`.

    Raises:
        DataError: a weight beyond float16's range, or the file cannot be written.
    """
    path = Path(path)
    config = {**config, "half": half}
    tensors = {}
    for key, value in state.items():
        value = value.detach().cpu()
        if half and value.dim() > 1 and value.is_floating_point():
            if float(value.abs().max()) > torch.finfo(torch.float16).max:
                raise DataError(f"weight '{key}' is too large for float16", "save the voice in float32")
            value = value.half()
        tensors[key] = value.contiguous().clone()
    header = {"format": FORMAT, "version": str(FORMAT_VERSION), "config": json.dumps(config, ensure_ascii=False)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(save(tensors, header))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"cannot write '{path}': {error.strerror}", "check free space and permissions") from error


def load_voice(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_voice` wrote: weights (float32, on the CPU) and description.

    Raises:
        DataError: the file is missing, damaged, of another kind or of a newer version, or its weights do not fit the
            network that it describes.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"voice '{path}' does not exist", "check the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"'{path}' is not a complete safetensors file: {error}", "it may be cut off: copy or make it again"
        ) from error
    if header.get("format") != FORMAT:
        raise DataError(f"'{path}' is not a voice for wavegrad2: its header has no '{FORMAT}'", "check the path")
    version = header.get("version", "")
    if version != str(FORMAT_VERSION):
        raise DataError(f"'{path}' has version '{version}', this program reads {FORMAT_VERSION}", "update rlzoo")
    try:
        config = json.loads(header.get("config", ""))
    except json.JSONDecodeError as error:
        raise DataError(f"the description in '{path}' is damaged: {error}", "copy or make it again") from error
    if not isinstance(config, dict):
        raise DataError(f"the description in '{path}' is a {type(config).__name__}", "copy or make it again")
    try:
        network = NetworkConfig.model_validate(config.get("network"))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, ("network", *problem["loc"])))
        raise DataError(f"'{path}' describes no network: {where}: {problem['msg']}", "make the voice again") from error
    check_weights(state, network, path)
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, config


def _rename(key: str) -> str:
    for old, new in _RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _some(items: Any, count: int = 3) -> str:
    listed = list(items)
    return ", ".join(map(str, listed[:count])) + (" ..." if len(listed) > count else "")


__all__ = ["MaumConfig", "check_weights", "load_maum_checkpoint", "load_voice", "save_voice"]
