"""Voice files: what was saved comes back, nothing is half written, and what is not a voice is named."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import save_file
from torch import Tensor, nn

from rlzoo.audio import read_audio
from rlzoo.errors import DataError
from rlzoo.files.safepickle import load_untrusted
from rlzoo.voices import VoiceFormat

State = dict[str, Tensor]


class Size(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: int = 4


VOICES = VoiceFormat("toy", Size, lambda size: nn.Sequential(nn.Linear(3, size.width), nn.BatchNorm1d(size.width)))
DESCRIPTION: dict[str, Any] = {"network": {"width": 4}, "text": "flite", "card": "Höre: made of ten hours"}


def weights(seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(7)
        for key, value in VOICES.network(Size()).state_dict().items()
    }


@pytest.mark.parametrize("half", [False, True])
def test_a_voice_comes_back(half: bool, tmp_path: Path) -> None:
    state, path = weights(), tmp_path / "sub/v.safetensors"
    VOICES.save(path, state, DESCRIPTION, half=half)
    loaded, description = VOICES.load(path)
    assert description == {**DESCRIPTION, "half": half}
    assert set(loaded) == set(state)
    for key, value in state.items():
        rounded = value.half().float() if half and value.dim() > 1 else value
        assert torch.equal(loaded[key], rounded)
        assert loaded[key].dtype == value.dtype
    assert list(path.parent.iterdir()) == [path]


def test_a_weight_too_large_for_half_is_refused(tmp_path: Path) -> None:
    state = weights()
    state["0.weight"][0, 0] = 1e6
    with pytest.raises(DataError, match=r"0\.weight"):
        VOICES.save(tmp_path / "v.safetensors", state, DESCRIPTION, half=True)
    assert list(tmp_path.iterdir()) == []


def test_shared_and_strided_tensors_are_saved_as_they_look(tmp_path: Path) -> None:
    state, bank = weights(), torch.randn(4, 4)
    state["0.weight"] = torch.randn(3, 4).t()
    state["0.bias"], state["1.bias"] = bank[0], bank[:, 1]
    VOICES.save(tmp_path / "v.safetensors", state, DESCRIPTION)
    loaded, _ = VOICES.load(tmp_path / "v.safetensors")
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_a_full_disk_leaves_the_old_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v.safetensors"
    VOICES.save(path, weights(), DESCRIPTION)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        VOICES.save(path, weights(seed=1), DESCRIPTION)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_and_foreign_voices(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    VOICES.save(path, weights(), DESCRIPTION)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], whole[:4], os.urandom(2000)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a complete safetensors file"):
            VOICES.load(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        VOICES.load(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="not a voice for toy"):
        VOICES.load(path)
    VoiceFormat("other", Size, VOICES.network).save(path, weights(), DESCRIPTION)
    with pytest.raises(DataError, match="is a voice for other, not for toy"):
        VOICES.load(path)
    with pytest.raises(DataError, match="does not exist"):
        VOICES.load(tmp_path / "none.safetensors")


def test_a_header_of_very_many_tensors_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "many.safetensors"
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"{number:06}": empty for number in range(70_000)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"0")
    with pytest.raises(DataError, match=r"the header of .* has 4,\d\d\d,\d\d\d bytes; that of a voice has 4,194,304"):
        VOICES.load(path)


PUBLISHED = {
    "Grad-TTS": ({"decoder.estimator.downs.0.0.mlp.1.weight": torch.zeros(2)}, None),
    "Matcha-TTS": ({"decoder.estimator.down_blocks.0.0.mlp.1.weight": torch.zeros(2)}, "state_dict"),
    "policy f5tts": ({"ema_model.transformer.transformer_blocks.0.attn.to_q.weight": torch.zeros(2)},
                     "ema_model_state_dict"),
}  # fmt: skip


@pytest.mark.parametrize("model", PUBLISHED)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_of_a_published_model_is_named_for_what_it_is(model: str, suffix: str, tmp_path: Path) -> None:
    """As its publisher saves it: a bare state dict, or one inside a training checkpoint, or safetensors."""
    state, under = PUBLISHED[model]
    path = tmp_path / f"model.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save({under: state, "step": 3} if under else state, path)
    with pytest.raises(DataError, match=model):
        VOICES.load(path)


def test_a_pickle_that_would_run_code_is_not_looked_into(tmp_path: Path) -> None:
    torch.save({"a": Size}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="is a checkpoint of PyTorch"):
        VOICES.load(tmp_path / "evil.pt")


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"version": "99"}, "version '99'"),
        ({"config": "{"}, "is no JSON"),
        ({"config": "[]"}, "holds list, expected an object"),
        ({"config": "{}"}, "describes no network"),
        (
            {"config": json.dumps({"network": {"widt": 1}})},
            "another version of rlzoo: its description has an unknown 'network.widt'",
        ),
        ({"config": json.dumps({"network": {"width": 5}})}, "of another shape"),
    ],
)
def test_descriptions_that_do_not_fit(header: dict[str, str], complaint: str, tmp_path: Path) -> None:
    good = {"format": "rlzoo-toy", "version": "1", "config": json.dumps(DESCRIPTION)}
    save_file(weights(), tmp_path / "v.safetensors", {**good, **header})
    with pytest.raises(DataError) as caught:
        VOICES.load(tmp_path / "v.safetensors")
    assert complaint in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"0.weight": None}, "1 missing: 0.weight"),
        ({"2.weight": torch.zeros(1)}, "1 unknown: 2.weight"),
        ({"0.weight": torch.zeros(4, 2)}, r"0.weight is (4, 2), expected (4, 3)"),
        ({"0.bias": torch.tensor([0.0, 0.0, 0.0, torch.nan])}, "not finite: 0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: dict[str, Tensor | None], complaint: str) -> None:
    state = {key: value for key, value in {**weights(), **change}.items() if value is not None}
    with pytest.raises(DataError) as caught:
        VOICES.check(state, Size(), "a.ckpt")
    assert complaint in caught.value.message
    assert "'a.ckpt'" in caught.value.message


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"RIFF$\x00\x00\x00WAVE", "is a recording \\(WAV\\) and not weights"),
        (b"\x1f\x8b\x08", "is a gzip archive and not weights"),
        (b"\x80\x02}q\x00.", "is a checkpoint of PyTorch"),
        (b"", "is empty"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, start: bytes, said: str) -> None:
    (tmp_path / "v.safetensors").write_bytes(start)
    with pytest.raises(DataError, match=said):
        VOICES.load(tmp_path / "v.safetensors")


def test_a_folder_a_published_model_and_another_policys_voice_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a directory"):
        VOICES.load(tmp_path)
    torch.save({"model": {"decoder.estimator.downs.0.weight": torch.zeros(2)}}, tmp_path / "grad-tts.pt")
    with pytest.raises(DataError, match=r"a checkpoint of PyTorch \(a published Grad-TTS model"):
        VOICES.load(tmp_path / "grad-tts.pt")
    save_file({"ups.0.weight": torch.zeros(2)}, tmp_path / "g.safetensors")
    with pytest.raises(DataError, match="it holds a HiFi-GAN"):
        VOICES.load(tmp_path / "g.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", {"format": "rlzoo-wavegrad2"})
    with pytest.raises(DataError, match="is a voice for wavegrad2, not for toy") as caught:
        VOICES.load(tmp_path / "w.safetensors")
    assert caught.value.hint == "give --policy wavegrad2"


CASES = Path(__file__).parents[2] / "shared/cases/weights"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ck/html.ckpt", "is a web page"),
        ("ck/lfs.ckpt", "is a pointer of Git LFS"),
        ("ck/grad-tts.pt", r"is a checkpoint of PyTorch \(a published Grad-TTS model"),
        ("nested-tuples.ckpt", "is a checkpoint of PyTorch"),
        ("st-bad_dtype.safetensors", "unknown variant"),
        ("st-deep.safetensors", "recursion limit"),
        ("st-huge_header.safetensors", "header too large"),
        ("st-huge_shape.safetensors", "overflow"),
        ("st-neg_offsets.safetensors", "not fully covered"),
        ("wav-rate1.wav", "is a recording"),
    ],
)
def test_the_weights_of_the_cases_are_refused_with_their_cause(name: str, said: str) -> None:
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    with pytest.raises(DataError, match=said) as caught:
        VOICES.load(CASES / name)
    assert caught.value.hint
    if name.endswith("ckpt"):
        with pytest.raises(DataError):
            load_untrusted(CASES / name)


@pytest.mark.parametrize(
    ("name", "said"), [("wav-rate0", "cannot be read"), ("wav-rate1", "a rate of 1 Hz"), ("wav-rate_max", "2147483647")]
)
def test_recordings_with_impossible_rates_are_refused(name: str, said: str) -> None:
    if not CASES.is_dir():
        pytest.skip("no cases in ../shared")
    with pytest.raises(DataError, match=said):
        read_audio(CASES / f"{name}.wav")
