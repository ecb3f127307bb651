"""Both published layouts of the strong learner -> the tensors of `StrongLearner`. No tensor is reshaped.

SpeechMOS: a plain state dict. sarulab: a Lightning checkpoint, whose embedding tables hold 3 domains and 3,000
listeners; row 0 is BVCC, row 288 the mean listener. Either goes through `load_untrusted`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from rlzoo.errors import DataError
from rlzoo.safepickle import load_untrusted, without_wrapper
from rlzoo_utmos.network import StrongLearner

DOMAIN_ROW = 0
LISTENER_ROW = 288
_HINT = "give a checkpoint of UTMOS22's strong learner, or leave `checkpoint` out"

_REMNANTS = re.compile(r"wav2vec2\.(mask_emb|quantizer\..*|project_q\..*|final_proj\..*)")
"""Tensors of pre-training in a wav2vec 2.0 checkpoint; unused."""

# fairseq's names (both layouts) -> torchaudio's.
_RENAMES = [
    (r"wav2vec2\.feature_extractor\.conv_layers\.(\d)\.0\.", r"wav2vec2.feature_extractor.conv_layers.\1.conv."),
    (r"wav2vec2\.feature_extractor\.conv_layers\.0\.2\.", "wav2vec2.feature_extractor.conv_layers.0.layer_norm."),
    (r"wav2vec2\.layer_norm\.", "wav2vec2.encoder.feature_projection.layer_norm."),
    (r"wav2vec2\.post_extract_proj\.", "wav2vec2.encoder.feature_projection.projection."),
    (r"wav2vec2\.encoder\.pos_conv\.0\.weight_g", "wav2vec2.encoder.transformer.pos_conv_embed.conv.@0"),
    (r"wav2vec2\.encoder\.pos_conv\.0\.weight_v", "wav2vec2.encoder.transformer.pos_conv_embed.conv.@1"),
    (r"wav2vec2\.encoder\.pos_conv\.0\.", "wav2vec2.encoder.transformer.pos_conv_embed.conv."),
    (r"\.@(\d)$", r".parametrizations.weight.original\1"),
    (r"wav2vec2\.encoder\.layer_norm\.", "wav2vec2.encoder.transformer.layer_norm."),
    (r"wav2vec2\.encoder\.layers\.(\d+)\.self_attn\.", r"wav2vec2.encoder.transformer.layers.\1.attention."),
    (
        r"wav2vec2\.encoder\.layers\.(\d+)\.self_attn_layer_norm\.",
        r"wav2vec2.encoder.transformer.layers.\1.layer_norm.",
    ),
    (
        r"wav2vec2\.encoder\.layers\.(\d+)\.fc1\.",
        r"wav2vec2.encoder.transformer.layers.\1.feed_forward.intermediate_dense.",
    ),
    (r"wav2vec2\.encoder\.layers\.(\d+)\.fc2\.", r"wav2vec2.encoder.transformer.layers.\1.feed_forward.output_dense."),
    (r"wav2vec2\.encoder\.layers\.(\d+)\.final_", r"wav2vec2.encoder.transformer.layers.\1.final_"),
    (r"^domain_emb$", "domain"),
    (r"^judge_emb$", "listener"),
]

_LIGHTNING = [
    (r"^feature_extractors\.0\.ssl_model\.", "wav2vec2."),
    (r"^output_layers\.0\.decoder_rnn\.", "blstm."),
    (r"^output_layers\.1\.net\.0\.", "projection.0."),
    (r"^output_layers\.1\.net\.3\.", "projection.2."),
]


def load(path: Path) -> StrongLearner:
    """The network with the checkpoint's weights, frozen. Raises DataError for anything else."""
    tensors = renamed(published(load_untrusted(path), path))
    network = StrongLearner().eval().requires_grad_(False)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = wrong[0]
        raise DataError(
            f"'{path}' is not a strong learner: {len(wrong)} tensors differ, the first is '{name}' "
            f"(expected {expected.get(name, 'none')}, found {found.get(name, 'none')})",
            _HINT,
        )
    network.load_state_dict(tensors)
    return network


def published(content: Any, path: Path) -> dict[str, Tensor]:
    """Content of the file, under SpeechMOS's names."""
    if not isinstance(content, dict):
        raise DataError(f"'{path}' holds a {type(content).__name__}, not a checkpoint", _HINT)
    state = content.get("state_dict", content)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise DataError(f"'{path}' holds no table of tensors", _HINT)
    if "state_dict" not in content:
        return without_wrapper(state)
    return dict(_from_lightning(name, tensor, path) for name, tensor in without_wrapper(state).items())


def _from_lightning(name: str, tensor: Tensor, path: Path) -> tuple[str, Tensor]:
    rows = {
        "feature_extractors.1.embedding.weight": ("domain_emb", DOMAIN_ROW),
        "output_layers.0.judge_embedding.weight": ("judge_emb", LISTENER_ROW),
    }
    if name in rows:
        target, row = rows[name]
        if tensor.ndim != 2 or tensor.shape[0] <= row:
            raise DataError(f"'{path}': '{name}' has the shape {tuple(tensor.shape)} and no row {row}", _HINT)
        return target, tensor[row : row + 1].clone()
    for pattern, replacement in _LIGHTNING:
        name = re.sub(pattern, replacement, name)
    return name, tensor


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """SpeechMOS's names -> those of `StrongLearner`, without the remnants of pre-training."""
    result = {}
    for name, tensor in tensors.items():
        if _REMNANTS.fullmatch(name):
            continue
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        result[name] = tensor.float()
    return result
