"""The published weights, read from Microsoft's package `distillmos` without importing it.

Importing it would import the code that trained it (xls-r-sqa, torchaudio). Only the weight file is used.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from rlzoo.assets import sha256_of
from rlzoo.errors import DataError

FILE = "weights/distill_mos_v7.pt"
SHA256 = "b18b3ac60227267cfb91e5d00ce22cc7b73716fd92f269484da1446e27031a40"
"""SHA-256 of the file in distillmos 0.9.1."""
_HINT = "pip install --force-reinstall distillmos==0.9.1"


def locate() -> Path:
    """Path of the weight file in the installed package. Raises DataError if it is missing or a different file."""
    spec = find_spec("distillmos")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the package 'distillmos', which holds the weights of Distill-MOS, is not installed", _HINT)
    path = Path(next(iter(spec.submodule_search_locations))) / FILE
    if not path.is_file():
        raise DataError(f"the package 'distillmos' has no file '{path}'", _HINT)
    found = sha256_of(path)
    if found != SHA256:
        raise DataError(f"'{path}' has the SHA-256 {found}; the published file has {SHA256}", _HINT)
    return path


def published() -> dict[str, Tensor]:
    """Every published tensor under its published name, float32. Raises DataError as `locate` does."""
    content = torch.load(locate(), map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = content["model"]
    return tensors
