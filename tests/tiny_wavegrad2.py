"""A network of WaveGrad 2 that trains in milliseconds, at 8 kHz, and a corpus of tones for it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from rlzoo_wavegrad2.network import NetworkConfig

from rlzoo.audio import write_audio

TINY = NetworkConfig(
    sample_rate=8000,
    encoder_channels=16,
    speaker_channels=4,
    predictor_channels=8,
    down_channels=(8, 16),
    up_channels=(24, 16, 8),
    factors=(10, 8),
    dilations=((1, 2, 4, 8),) * 2,
)


def make_tones(root: Path, splits: Mapping[str, Iterable[int]]) -> Path:
    """A corpus: AA1 is a tone of 400 Hz, IY1 one of 1000 Hz, each 100 ms; `splits` has the utterances of each list."""
    time = torch.arange(800) / 8000
    tone = {"AA1": 0.5 * torch.sin(2 * math.pi * 400 * time), "IY1": 0.5 * torch.sin(2 * math.pi * 1000 * time)}
    metadata, phones = [], []
    for i in sorted(i for ids in splits.values() for i in ids):
        names = ["AA1" if (i >> bit) & 1 else "IY1" for bit in range(3)]
        write_audio(root / "wavs" / f"u{i}.wav", torch.cat([tone[name] for name in names]), 8000)
        said = " ".join({"AA1": "ah", "IY1": "ee"}[name] for name in names)
        metadata.append(f"u{i}|{said}|{said}\n")
        phones.append(json.dumps({"id": f"u{i}", "phones": names, "ends": [0.1, 0.2, 0.3]}) + "\n")
    (root / "metadata.csv").write_text("".join(metadata))
    (root / "phones.jsonl").write_text("".join(phones))
    for name, ids in splits.items():
        (root / f"{name}.txt").write_text("".join(f"u{i}\n" for i in ids))
    return root
