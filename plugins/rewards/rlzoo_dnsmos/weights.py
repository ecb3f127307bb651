"""The published tensors, read out of Microsoft's `speechmos` package without importing it.

Importing it would need librosa and onnxruntime; its ONNX files are all that is wanted. Another package (of UTMOS
predictors) imports under the same name, so the files are told by their checksums.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.assets import sha256_of
from rlzoo.errors import DataError

# Path inside the package -> SHA-256 of the published file (speechmos 0.0.1.1; the same files as in DNS-Challenge).
P808 = "dnsmos_models/model_v8.onnx"
P835 = "dnsmos_models/sig_bak_ovr.onnx"
P835_PERSONALIZED = "pdnsmos_models/sig_bak_ovr.onnx"
SHA256 = {
    P808: "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
    P835: "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
    P835_PERSONALIZED: "9e3a197449ca2177f0997afec3bd6b890117ce2f17b89d6eea7fa0d47272c81c",
}
_HINT = "pip install --force-reinstall speechmos (Microsoft's, 0.0.1.1 or newer)"


def locate(file: str) -> Path:
    """The ONNX file inside the installed package. Raises DataError when it is missing or another one."""
    spec = find_spec("speechmos")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the package 'speechmos', which carries the weights of DNSMOS, is not installed", _HINT)
    root = Path(next(iter(spec.submodule_search_locations)))
    path = root / file
    if not path.is_file():
        raise DataError(
            f"the package 'speechmos' at '{root}' has no '{file}': it is not Microsoft's but a namesake", _HINT
        )
    found = sha256_of(path)
    if found != SHA256[file]:
        raise DataError(f"'{path}' has SHA-256 {found}, the published file has {SHA256[file]}", _HINT)
    return path


def tensors(file: str) -> dict[str, Tensor]:
    """Every tensor of the network under the name of its layer, e.g. `conv2d_1/kernel`, `dense/bias`.

    Kernels are (out, in, 3, 3), dense weights (in, out), as published.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(locate(file))).graph
    # numpy_helper's arrays are read-only views of the protobuf.
    return {_short(item.name): torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}


def _short(name: str) -> str:
    name = name.removesuffix(":0").removesuffix("/resource").removesuffix("/ReadVariableOp")
    name = name.replace("/BiasAdd", "/bias").replace("/MatMul", "/kernel")
    return "/".join(name.split("/")[-2:])
