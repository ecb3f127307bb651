"""Public checkpoints and our own voice files: everything is read, nothing is run, nothing is half written."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rlzoo_wavegrad2.checkpoint import VOICES, load_maum_checkpoint
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.policy import SHIPPED, read_voice
from rlzoo_wavegrad2.symbols import SYMBOLS
from torch import Tensor

from rlzoo.errors import DataError

State = dict[str, Tensor]

NARROW = NetworkConfig(
    encoder_channels=16,
    speaker_channels=4,
    predictor_channels=8,
    down_channels=(8, 12, 12, 16, 16),
    up_channels=(24, 16, 16, 12, 12, 8),
)
NARROW_LARGE = NARROW.model_copy(update={"large": True, "dilations": ((1, 2, 4, 8),) * 5})


def weights(config: NetworkConfig, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    state = WaveGrad2Network(config, init=False).state_dict()
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(7)
        for key, value in state.items()
    }


def weightless(config: NetworkConfig) -> State:
    """The real shapes with one number of storage each, so that a file of the full model stays small."""
    with torch.device("meta"):
        state = WaveGrad2Network(config, init=False).state_dict()
    return {
        key: torch.full((1,), 0.5).expand(value.shape) if value.is_floating_point() else torch.tensor(7)
        for key, value in state.items()
    }


def parameters(config: NetworkConfig, **changes: Any) -> dict[str, Any]:
    """Hyper-parameters with the sections of the public `hparameter.yaml`; `changes` as section__key=value."""
    values: dict[str, Any] = {
        "train": {"batch_size": 12, "adam": {"lr": 3e-4, "weight_decay": 1e-6}, "gpus": 2, "loss_rate": {"dur": 1.0}},
        "data": {"lang": "eng", "text_cleaners": ["english_cleaners"], "speakers": ["LJSpeech"], "val_meta": "val.txt"},
        "audio": {"n_mel_channels": 80, "sampling_rate": config.sample_rate, "mel_fmax": 8000.0},
        "encoder": {
            "channel": config.encoder_channels,
            "kernel": 5,
            "depth": 3,
            "dropout_rate": 0.5,
            "speaker_emb": config.speaker_channels,
        },
        "dur_predictor": {
            "dur_lstm_channel": config.predictor_channels,
            "range_lstm_channel": config.predictor_channels,
        },
        "window": {"scale": config.hop, "length": 256},
        "wavegrad": {
            "encode_channel": config.hidden_channels,
            "scale_factors": list(config.factors),
            "upsample": {
                "preconv_channel": config.up_channels[0],
                "out_channels": list(config.up_channels[1:]),
                "dilations": [list(row) for row in config.dilations],
            },
            "downsample": {
                "preconv_channel": config.down_channels[0],
                "out_channels": list(config.down_channels[1:]),
                "dilations": [[1, 2, 4]] * (len(config.down_channels) - 1),
            },
            "pos_emb_dim": 512,
        },
        "ddpm": {
            "max_step": 1000,
            "noise_schedule": "torch.linspace(1e-6, 0.01, hparams.ddpm.max_step)",
            "pos_emb_scale": int(config.pos_emb_scale),
            "pos_emb_channels": 128,
        },
        "log": {"name": "wavegrad2", "checkpoint_dir": "checkpoint"},
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        place = values
        for section in sections:
            place = place[section]
        if value is None:
            del place[key]
        else:
            place[key] = value
    return values


def lightning(state: State, hyper_parameters: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What Lightning 1.2.10 puts into a `.ckpt`; its callbacks are keyed by their class."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    fake = types.ModuleType(name)
    fake.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", types.ModuleType("pytorch_lightning.callbacks"))
    monkeypatch.setitem(sys.modules, name, fake)
    first = next(iter(state.values()))
    moments = {0: {"step": 9, "exp_avg": torch.zeros_like(first), "exp_avg_sq": torch.zeros_like(first)}}
    return {
        "epoch": 1059,
        "global_step": 555_000,
        "pytorch-lightning_version": "1.2.10",
        "callbacks": {fake.ModelCheckpoint: {"best_model_score": torch.tensor(0.1), "best_model_path": "a.ckpt"}},
        "optimizer_states": [
            {"state": moments, "param_groups": [{"lr": 1.5e-5, "betas": (0.9, 0.999), "params": [0]}]}
        ],
        "lr_schedulers": [],
        "state_dict": state,
        "hparams_name": "hparams",
        "hyper_parameters": hyper_parameters,
        "hparams_type": dict,
    }


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    # What the file pretends to come from is not there when it is read.
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch_lightning"]:
        del sys.modules[name]
    return path


# The public format


@pytest.mark.parametrize("config", [NARROW, NARROW_LARGE], ids=["base", "large"])
def test_weights_and_settings_come_back(config: NetworkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = weights(config)
    path = write(tmp_path / "a.ckpt", lightning(state, parameters(config), monkeypatch))
    loaded, public = load_maum_checkpoint(path)
    assert public.network == config
    assert (public.language, public.speakers, public.epoch, public.global_step) == ("eng", ("LJSpeech",), 1059, 555_000)
    assert public.assumed == ()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    WaveGrad2Network(public.network, init=False).load_state_dict(loaded)


def test_an_omegaconf_object_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    config = NARROW.model_copy(update={"pos_emb_scale": 50000.0, "speakers": 2, "dilations": ((1, 2, 1, 2),) * 5})
    hyper = omegaconf.OmegaConf.create(parameters(config, data__speakers=["LJSpeech", "other"]))
    assert type(hyper).__module__ == "omegaconf.dictconfig"
    path = write(tmp_path / "a.ckpt", lightning(weights(config), hyper, monkeypatch))
    for name in [name for name in sys.modules if name.split(".")[0] == "omegaconf"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        importlib.import_module("omegaconf")
    _, public = load_maum_checkpoint(path)
    assert public.network == config
    assert public.speakers == ("LJSpeech", "other")


@pytest.mark.parametrize(("preset", "tensors"), [("base", 183), ("large", 265)])
def test_the_full_size_models_fit(preset: str, tensors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PRESETS[preset]
    path = write(tmp_path / "a.ckpt", lightning(weightless(config), parameters(config), monkeypatch))
    loaded, public = load_maum_checkpoint(path)
    assert public.network == config
    assert public.network.symbols == len(SYMBOLS)
    assert len(loaded) == tensors


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["base", "large"])
def test_a_file_of_the_full_size(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = PRESETS[preset]
    state = weights(config)
    path = write(tmp_path / "a.ckpt", lightning(state, parameters(config), monkeypatch))
    assert path.stat().st_size > 176_000_000
    loaded, _ = load_maum_checkpoint(path)
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_an_older_file_has_other_names_and_no_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = NARROW.model_copy(update={"pos_emb_scale": 50000.0})
    state = weights(config)
    names = {"duration_predictor": "get_duration", "range_parameter_predictor": "get_range"}
    old = {}
    for key, value in state.items():
        for new_name, old_name in names.items():
            key = key.replace(f"resampling.{new_name}.", f"resampling.{old_name}.")
        old[key] = value
    assert set(old) != set(state)
    loaded, public = load_maum_checkpoint(write(tmp_path / "a.ckpt", lightning(old, parameters(config), monkeypatch)))
    assert public.network == config
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_what_a_file_does_not_say_is_told_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "base_EMA", weightless(PRESETS["base"]))
    description = read_voice(path)[1]
    assert {"dilations", "sample_rate"} <= set(description["assumed"])
    (said,) = (record.getMessage() for record in caplog.records)
    assert str(path) in said
    assert "dilations" in said
    assert "published values of the base model" in said
    caplog.clear()
    config = NARROW
    path = write(tmp_path / "whole.ckpt", lightning(weights(config), parameters(config), monkeypatch))
    assert read_voice(path)[1]["assumed"] == []
    assert not caplog.records


def test_the_voice_that_ships_is_read_without_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHIPPED.suffix == ".safetensors"
    assert SHIPPED.stat().st_size < 10_000_000

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a pickle was opened")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    state, description = read_voice(SHIPPED)
    assert len(state) > 100
    assert description["preset"] == "mini"


def test_a_bare_ema_file_takes_the_published_defaults(tmp_path: Path) -> None:
    state = weightless(PRESETS["base"].model_copy(update={"speakers": 3}))
    _, public = load_maum_checkpoint(write(tmp_path / "wavegrad2_epoch=9_EMA", state))
    assert public.network == PRESETS["base"].model_copy(update={"speakers": 3})
    assert "pos_emb_scale" in public.assumed
    assert public.epoch is None
    _, public = load_maum_checkpoint(write(tmp_path / "large_EMA", weightless(PRESETS["large"])))
    assert public.network == PRESETS["large"]
    # The names changed on the very day on which the scale did, a little before.
    old = {
        key.replace("duration_predictor", "get_duration"): value for key, value in weightless(PRESETS["base"]).items()
    }
    _, public = load_maum_checkpoint(write(tmp_path / "old_EMA", old))
    assert public.network.pos_emb_scale == 50000


def test_half_weights_schedule_buffers_and_a_wrapped_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = weights(NARROW)
    stored = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    stored["betas"] = torch.linspace(1e-6, 0.01, 1000)
    path = write(tmp_path / "a.ckpt", lightning(stored, {"hparams": parameters(NARROW), "train": True}, monkeypatch))
    loaded, public = load_maum_checkpoint(path)
    assert public.network == NARROW
    assert {value.dtype for value in loaded.values()} == {torch.float32, torch.int64}
    assert set(loaded) == set(state)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data__lang": "kor"}, "language 'kor'"),
        ({"ddpm__pos_emb_scale": None}, "'ddpm.pos_emb_scale' is missing"),
        ({"ddpm__pos_emb_scale": "big"}, "'ddpm.pos_emb_scale' is 'big'"),
        ({"audio__sampling_rate": -1}, "'audio.sampling_rate' is -1"),
        ({"wavegrad__scale_factors": [5, 5, 3, 2]}, "4 scale factors"),
        ({"wavegrad__scale_factors": 300}, "'wavegrad.scale_factors' is 300"),
        ({"wavegrad__upsample__dilations": [[1, 2]] * 5}, "expected four"),
        ({"wavegrad__upsample__dilations": None}, "'wavegrad.upsample.dilations' is missing"),
        ({"wavegrad__downsample__dilations": [[1, 2, 8]] * 4}, "'wavegrad.downsample.dilations'"),
        ({"encoder__kernel": 3}, "'encoder.kernel' is 3"),
        ({"window__scale": 256}, "'window.scale' is 256"),
        ({"dur_predictor__range_lstm_channel": 9}, "'dur_predictor.range_lstm_channel' is 9"),
        ({"data__speakers": ["a", "b"]}, "speaker_embedding.weight is (1, 4), expected (2, 4)"),
        ({"encoder__channel": 20, "wavegrad__encode_channel": 24}, "expected (151, 20)"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_named(
    changes: dict[str, Any], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = lightning(weights(NARROW), parameters(NARROW, **changes), monkeypatch)
    with pytest.raises(DataError) as caught:
        load_maum_checkpoint(write(tmp_path / "a.ckpt", content))
    assert complaint in caught.value.message
    assert str(tmp_path / "a.ckpt") in caught.value.message
    assert caught.value.hint


def drop(state: State) -> None:
    for key in list(state)[:5]:
        del state[key]


def add(state: State) -> None:
    state["decoder.extra"] = torch.zeros(1)


def reshape(state: State) -> None:
    state["decoder.films.1.scale_conv.conv1d.weight"] = torch.zeros(9, 12, 3)


def spoil(state: State) -> None:
    state["encoder.cnn.0.0.bias"][3] = float("nan")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (drop, "5 missing: encoder.embedding.weight, encoder.cnn.0.0.weight, encoder.cnn.0.0.bias ..."),
        (add, "1 unknown: decoder.extra"),
        (reshape, "decoder.films.1.scale_conv.conv1d.weight is (9, 12, 3), expected (12, 12, 3)"),
        (spoil, "not finite: encoder.cnn.0.0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    damage: Callable[[State], None], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = weights(NARROW)
    damage(state)
    with pytest.raises(DataError) as caught:
        load_maum_checkpoint(write(tmp_path / "a.ckpt", lightning(state, parameters(NARROW), monkeypatch)))
    assert complaint in caught.value.message
    assert caught.value.hint


class Touch:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("place", ["hyper_parameters", "callbacks", "state_dict", "epoch"])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    content = lightning(weights(NARROW), parameters(NARROW), monkeypatch)
    content[place] = {"x": Touch(marker)}
    path = write(tmp_path / "a.ckpt", content)
    with pytest.raises(DataError, match="system"):
        load_maum_checkpoint(path)
    assert not marker.exists()
    # The file is not a dud: the ordinary loader does run it.
    torch.load(path, weights_only=False, pickle_module=Lenient)
    assert marker.exists()


class _Lenient(pickle.Unpickler):
    def find_class(self, name: str, attribute: str) -> Any:
        return dict if name.startswith("pytorch_lightning") else super().find_class(name, attribute)


class Lenient:
    Unpickler = _Lenient


def test_a_schedule_written_as_code_is_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ran"
    hyper = parameters(NARROW, ddpm__noise_schedule=f"__import__('os').system('touch {marker}')")
    load_maum_checkpoint(write(tmp_path / "a.ckpt", lightning(weights(NARROW), hyper, monkeypatch)))
    assert not marker.exists()


def test_truncated_and_foreign_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.ckpt", lightning(weights(NARROW), parameters(NARROW), monkeypatch))
    whole = path.read_bytes()
    broken = [whole[: len(whole) * part // 7] for part in range(7)] + [whole[:-1], os.urandom(4096), b"", b"PK\x03\x04"]
    for content in broken:
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            load_maum_checkpoint(path)
        assert str(path) in caught.value.message
        assert caught.value.hint
    with pytest.raises(DataError, match="does not exist"):
        load_maum_checkpoint(tmp_path / "none.ckpt")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, {"state_dict": {}}, {"state_dict": {"w": "text"}}, 3])
def test_pickles_of_something_else(content: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_maum_checkpoint(write(tmp_path / "a.ckpt", content))
    assert caught.value.hint


# Our own format: see also tests/test_voices.py


def test_a_half_voice_is_half_as_large_and_nearly_equal(tmp_path: Path) -> None:
    state = weights(PRESETS["mini"])
    network = {"network": PRESETS["mini"].model_dump(mode="json")}
    VOICES.save(tmp_path / "full.safetensors", state, network)
    VOICES.save(tmp_path / "half.safetensors", state, network, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.52 * sizes[1]
    assert sizes[0] < 10_000_000
    loaded, _ = VOICES.load(tmp_path / "half.safetensors")
    for key, value in state.items():
        if value.dim() > 1:
            assert torch.allclose(loaded[key], value, rtol=1e-3, atol=1e-6)
        else:
            assert torch.equal(loaded[key], value)
        assert loaded[key].dtype == value.dtype
