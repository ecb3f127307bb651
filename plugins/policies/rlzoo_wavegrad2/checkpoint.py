"""Weights on disk: our own voice files, and checkpoints of the public repository maum-ai/wavegrad2.

The public format is a Lightning 1.2 `.ckpt`: a pickle with the state dict, optimiser states and the hyper-parameters
as an OmegaConf object; its `*_EMA` files are bare state dicts. Both are read without running anything in them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from rlzoo.errors import DataError
from rlzoo.safepickle import load_untrusted, without_wrapper
from rlzoo.voices import VoiceFormat
from rlzoo_wavegrad2.hyperparameters import PUBLISHER, MaumConfig, from_parameters, from_shapes
from rlzoo_wavegrad2.network import NetworkConfig, WaveGrad2Network

VOICES = VoiceFormat("wavegrad2", NetworkConfig, partial(WaveGrad2Network, init=False))

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
    weights = without_wrapper({k: v for k, v in weights.items() if isinstance(k, str)})
    state = {_rename(k): v for k, v in weights.items() if k not in _BUFFERS}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(
            f"'{path}' has no weights: its top-level entries are {', '.join(map(repr, [*content][:3]))}",
            "a checkpoint of maum-ai/wavegrad2 has 'state_dict' and 'hyper_parameters', or is a bare state dict",
        )
    parameters = content.get("hyper_parameters") if whole else None
    is_old = any(key.startswith(tuple(_RENAMED)) for key in weights)
    if isinstance(parameters, dict):
        config = from_parameters(parameters, state, path)
    else:
        config = from_shapes(state, is_old)
    VOICES.check(state, config.network, path)
    loaded = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    counters = {key: content[key] for key in ("epoch", "global_step") if isinstance(content.get(key), int)}
    return loaded, MaumConfig(**{**vars(config), **(counters if whole else {})})


def _rename(key: str) -> str:
    for old, new in _RENAMED.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


__all__ = ["VOICES", "MaumConfig", "load_maum_checkpoint"]
