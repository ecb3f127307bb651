"""Pictures of a voice: loss curves of its training, spectrograms of recording and samples side by side.

python benchmarks/voice/pictures.py train.jsonl losses.png
python benchmarks/voice/pictures.py NAME=train.jsonl OTHER=train.jsonl compared.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

mpl.use("Agg")
from matplotlib import pyplot as plt


def typical(waves: Sequence[Tensor]) -> int:
    """Index of the one with the median length."""
    return sorted(range(len(waves)), key=lambda row: len(waves[row]))[len(waves) // 2]


def spectrograms(waves: Mapping[str, Tensor], rate: int, path: Path) -> None:
    """{name: (L,) audio in [-1, 1]} -> one panel each, on one scale of 70 dB, windows of 32 ms."""
    size = 2 ** round(0.032 * rate).bit_length() // 2
    figure, axes = plt.subplots(1, len(waves), figsize=(3.2 * len(waves), 2.6), sharey=True, layout="constrained")
    image = None
    for axis, (name, wave) in zip(axes, waves.items(), strict=True):
        window = torch.hann_window(size)
        power = torch.stft(wave.float(), size, size // 4, window=window, return_complex=True).abs()
        level = 20 * (2 * power / window.sum()).clamp(min=1e-6).log10()
        extent = (0, len(wave) / rate, 0, rate / 2000)
        image = axis.imshow(level, origin="lower", aspect="auto", vmin=-90, vmax=-20, extent=extent, cmap="magma")
        axis.set(title=name, xlabel="seconds")
    axes[0].set_ylabel("kHz")
    figure.colorbar(image, ax=axes, label="dB of full scale")
    save(figure, path)


def losses(log: Path, path: Path) -> None:
    """train.jsonl of `rlzoo pretrain` -> training losses, noise loss by level, distances of K-step samples."""
    rows = read(log)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    panels = (
        ("training", ("noise", "spectral", "estimate", "duration")),
        ("validation/noise_", None),
        ("validation/mel_", None),
    )
    begin = untrained(rows)
    for axis, (title, wanted) in zip(axes, panels, strict=True):
        shown = rows if wanted else rows[begin:]
        names = wanted or sorted({key for row in shown for key in row if key.startswith(title)})
        for name in names:
            points = [(row["seconds"] / 60, row[name]) for row in shown if name in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker="" if wanted else ".", lw=0.8, label=name.split("/")[-1])
        axis.set(title=title.strip("_"), xlabel="minutes", yscale="log")
        axis.legend(fontsize=7)
    save(figure, path)


def compared(logs: Mapping[str, Path], path: Path) -> None:
    """{name: train.jsonl} -> one line for each log: held-out noise loss and distances of 6-step samples."""
    keys = {"noise_0.6": "noise loss at level 0.6", "mel_6": "log-mel distance", "mcd_6": "mel-cepstral distance, dB"}
    trained = {name: rows[untrained(rows) :] for name, rows in ((name, read(log)) for name, log in logs.items())}
    figure, axes = plt.subplots(1, len(keys), figsize=(11, 3.2), layout="constrained")
    for axis, (key, title) in zip(axes, keys.items(), strict=True):
        for name, rows in trained.items():
            points = [(row["seconds"] / 60, row[f"validation/{key}"]) for row in rows if f"validation/{key}" in row]
            axis.plot(*zip(*points, strict=True), marker=".", lw=0.8, label=name)
        axis.set(title=title, xlabel="minutes", yscale="log")
        axis.legend(fontsize=7)
    save(figure, path)


def untrained(rows: Sequence[Mapping[str, float]]) -> int:
    """Number of rows up to the last step without a noise loss: until then the denoiser is not trained."""
    return max((index + 1 for index, row in enumerate(rows) if "duration" in row and "noise" not in row), default=0)


def read(log: Path) -> list[dict[str, float]]:
    """Rows of a train.jsonl."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def save(figure: Figure, path: Path) -> None:
    """PNG with 64 colours: a spectrogram is noise to the compressor, and these files are committed."""
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    *given, target = sys.argv[1:]
    if "=" in given[0]:
        compared({name: Path(log) for name, _, log in (word.partition("=") for word in given)}, Path(target))
    else:
        losses(Path(given[0]), Path(target))
