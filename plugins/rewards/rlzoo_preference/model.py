"""The part that is trained: features -> one number, whose differences are log odds of being preferred."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from rlzoo.errors import DataError
from rlzoo.writing import write_bytes
from rlzoo_preference.encoders import EncoderSettings

FORMAT = "rlzoo-preference-1"
_HINT = "give a file that `rlzoo reward train-preference` wrote"
MAX_HIDDEN = 4096


class Head(nn.Module):
    """(N, D) features -> (N,) scores. Features are standardised with the mean and spread of the training clips."""

    mean: Tensor
    std: Tensor
    offset: Tensor

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        # The score of a clip alone means nothing, so the last layer needs no bias while it is trained; afterwards
        # `offset` makes the training clips' mean 0.
        self.register_buffer("offset", torch.zeros(()))
        self.body: nn.Module = nn.Sequential(nn.Linear(size, hidden), nn.Tanh()) if hidden else nn.Identity()
        self.last = nn.Linear(hidden or size, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def standardised(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return (features - self.mean) / self.std

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) -> (N,)."""
        scores: Tensor = self.last(self.body(self.standardised(features))).squeeze(-1) - self.offset
        return scores


def save(path: Path, head: Head, encoder: EncoderSettings, hidden: int, report: dict[str, Any]) -> None:
    """Write head, encoder and report as one safetensors file, whole or not at all. DataError."""
    about = {"encoder": encoder.model_dump(), "hidden": hidden, "report": report}
    # One entry only: safetensors writes several in no fixed order, and the same training should write the same file.
    metadata = {FORMAT: json.dumps(about)}
    tensors = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    write_bytes(path, serialise(tensors, metadata), refused="choose another --out")


def load(path: Path, sizes: dict[str, int]) -> tuple[Head, EncoderSettings]:
    """The frozen head and what it was trained on; `sizes` has the number of features of each encoder. DataError."""
    if not path.is_file():
        raise DataError(f"checkpoint '{path}' does not exist", "check the path of the option `checkpoint`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        about = json.loads(metadata[FORMAT])
        encoder = EncoderSettings.model_validate(about["encoder"])
        hidden = int(about["hidden"])
        if not 0 <= hidden <= MAX_HIDDEN:
            raise ValueError(f"{hidden} hidden units, expected 0 to {MAX_HIDDEN}")
        head = Head(sizes[encoder.name], hidden)
        head.load_state_dict(tensors)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise ValueError("its weights are not finite")
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, ValidationError, RuntimeError) as error:
        raise DataError(f"'{path}' is no preference model: {str(error).splitlines()[0]}", _HINT) from error
    return head.eval().requires_grad_(False), encoder
