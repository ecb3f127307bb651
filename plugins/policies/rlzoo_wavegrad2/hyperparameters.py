"""Hyper-parameters of a checkpoint of maum-ai/wavegrad2, from its settings or from the shapes of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from rlzoo.errors import DataError
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig

PUBLISHER = "get the file from its publisher again, or give another checkpoint"
# Until 2021-07-08, 82 minutes after the parameters got their present names; 5000 since.
_OLD_POS_EMB_SCALE = 50000.0


@dataclass(frozen=True)
class MaumConfig:
    """Description in a public checkpoint."""

    network: NetworkConfig
    language: str = "eng"
    speakers: tuple[str, ...] = ()
    """Names in the order of the speaker embedding; empty if the file does not tell them."""
    epoch: int | None = None
    global_step: int | None = None
    assumed: tuple[str, ...] = ()
    """Settings that the file does not hold and that leave no trace in the shapes: taken from the published defaults."""


def from_parameters(values: Mapping[str, Any], state: Mapping[str, Tensor], path: str | Path) -> MaumConfig:
    """Read the stored hyper-parameters. DataError for a missing or wrong one, or one of another network."""
    # save_hyperparameters(hparams) stores the configuration itself; some Lightning versions wrap it under its name.
    p = _Parameters(values.get("hparams", values) if "wavegrad" not in values else values, path)
    language = p.text("data.lang")
    if language != "eng":
        raise DataError(
            f"'{path}' was trained on the language '{language}'", "the text front-end speaks English ('eng') only"
        )
    up, down = "wavegrad.upsample", "wavegrad.downsample"
    factors, dilations = p.counts("wavegrad.scale_factors"), p.rows(f"{up}.dilations")
    up_channels = (p.count(f"{up}.preconv_channel"), *p.counts(f"{up}.out_channels"))
    down_channels = (p.count(f"{down}.preconv_channel"), *p.counts(f"{down}.out_channels"))
    if not len(factors) == len(dilations) == len(up_channels) - 1 == len(down_channels):
        raise DataError(
            f"'{path}': {len(factors)} scale factors, {len(dilations)} rows of dilations, {len(up_channels) - 1} "
            f"upsampling and {len(down_channels) - 1} downsampling blocks do not fit together",
            PUBLISHER,
        )
    if any(len(row) != 4 or row[0] != 1 for row in dilations):
        raise DataError(
            f"'{path}': hyper-parameter '{up}.dilations' is {dilations}, expected four per block, the first of them 1",
            PUBLISHER,
        )
    p.expect("encoder.kernel", 5)
    p.expect("encoder.depth", 3)
    p.expect(f"{down}.dilations", [[1, 2, 4]] * (len(down_channels) - 1))
    p.expect("window.scale", math.prod(factors))
    p.expect("dur_predictor.range_lstm_channel", p.count("dur_predictor.dur_lstm_channel"))
    speakers = p.texts("data.speakers")
    embedding = state.get("encoder.embedding.weight")
    network = NetworkConfig(
        sample_rate=p.count("audio.sampling_rate"),
        symbols=PRESETS["base"].symbols if embedding is None else embedding.shape[0],
        speakers=len(speakers),
        encoder_channels=p.count("encoder.channel"),
        speaker_channels=p.count("encoder.speaker_emb"),
        predictor_channels=p.count("dur_predictor.dur_lstm_channel"),
        down_channels=down_channels,
        up_channels=up_channels,
        factors=factors,
        dilations=dilations,
        # 'is_large' is missing in older configurations; the names of the weights never lie about it.
        large=_is_large(state),
        pos_emb_scale=p.number("ddpm.pos_emb_scale"),
    )
    p.expect("wavegrad.encode_channel", network.hidden_channels)
    return MaumConfig(network, language, speakers)


def from_shapes(state: Mapping[str, Tensor], is_old: bool) -> MaumConfig:
    """Infer from bare weights; `assumed` names values that leave no trace in them. `is_old`: names before July 2021."""
    network = PRESETS["large" if _is_large(state) else "base"]
    update: dict[str, Any] = {"pos_emb_scale": _OLD_POS_EMB_SCALE} if is_old else {}
    for key, name in (("encoder.embedding.weight", "symbols"), ("speaker_embedding.weight", "speakers")):
        if key in state and state[key].dim() == 2:
            update[name] = state[key].shape[0]
    return MaumConfig(
        network.model_copy(update=update), assumed=("dilations", "factors", "language", "pos_emb_scale", "sample_rate")
    )


def _is_large(state: Mapping[str, Tensor]) -> bool:
    return any("upsampling_basic_block" in key for key in state)


class _Parameters:
    """Read-only look at nested hyper-parameters that names the path of whatever is missing or of another type."""

    def __init__(self, values: Mapping[str, Any], path: str | Path) -> None:
        self._values, self._path = values, path

    def has(self, key: str) -> bool:
        return self._find(key) is not None

    def number(self, key: str) -> float:
        value = self._need(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise self._wrong(key, value, "a positive number")
        return float(value)

    def count(self, key: str) -> int:
        value = self._need(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1_000_000:
            raise self._wrong(key, value, "a positive whole number")
        return value

    def counts(self, key: str) -> tuple[int, ...]:
        value = self._need(key)
        if not _are_counts(value):
            raise self._wrong(key, value, "a list of positive whole numbers")
        return tuple(value)

    def rows(self, key: str) -> tuple[tuple[int, ...], ...]:
        value = self._need(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(map(_are_counts, value)):
            raise self._wrong(key, value, "a list of lists of positive whole numbers")
        return tuple(map(tuple, value))

    def text(self, key: str) -> str:
        value = self._need(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._need(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(x, str) for x in value):
            raise self._wrong(key, value, "a list of names")
        return tuple(value)

    def expect(self, key: str, expected: Any) -> None:
        if self.has(key) and self._need(key) != expected:
            raise self._wrong(key, self._need(key), f"{expected!r}, the only value this network knows")

    def _find(self, key: str) -> Any:
        value: Any = self._values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def _need(self, key: str) -> Any:
        value = self._find(key)
        if value is None:
            raise DataError(f"'{self._path}': hyper-parameter '{key}' is missing", PUBLISHER)
        return value

    def _wrong(self, key: str, value: Any, expected: str) -> DataError:
        return DataError(f"'{self._path}': hyper-parameter '{key}' is {value!r}, expected {expected}", PUBLISHER)


def _are_counts(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    return is_list and all(isinstance(x, int) and not isinstance(x, bool) and 0 < x < 1_000_000 for x in value)


__all__ = ["PUBLISHER", "MaumConfig", "from_parameters", "from_shapes"]
