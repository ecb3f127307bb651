"""Float32 on a GPU is float32: one decision for the whole process, taken once and never taken back.

NVIDIA's matrix units can round the factors of a float32 product to ten bits (TF32), and PyTorch lets convolutions do so
unless it is told otherwise. Log-probabilities and scores are compared to more digits than that. The switch belongs to
the process: turned on and off around a reward, it would reach what another thread samples meanwhile.
"""

from __future__ import annotations

from typing import Any

import torch


def use_real_float32() -> None:
    """Turn TF32 off for matrix products, convolutions and recurrent layers; does nothing if it is off already."""
    backends: Any = torch.backends
    parts = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    if all(part.fp32_precision == "ieee" for part in parts):
        return
    # The older switches first: code that still reads them gets an error where they say something else.
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = False
    for part in parts:
        part.fp32_precision = "ieee"
