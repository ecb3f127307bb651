"""Pretraining on a corpus of two tones: it learns, resumes exactly, and leaves a voice that can be used."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from rlzoo_wavegrad2 import PretrainOptions
from rlzoo_wavegrad2.checkpoint import load_voice
from rlzoo_wavegrad2.data import Batch, LogMel, windows
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig
from rlzoo_wavegrad2.pretrain import learning_rate, pretrain
from rlzoo_wavegrad2.schedules import placed_levels
from rlzoo_wavegrad2.tune import search, tune_schedule

from rlzoo.audio import write_audio
from rlzoo.errors import ConfigError, DataError

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
FAST = {
    "preset": "tiny",
    "utterances_per_step": 2,
    "windows_per_utterance": 2,
    "window_frames": 12,
    "warmup_steps": 5,
    "learning_rate": 3e-3,
    "precision": "fp32",
    "log_every": 1,
    "validation_utterances": 1,
    "validation_steps": (2,),
}


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AA is a tone of 400 Hz, IY one of 1000 Hz, each 100 ms."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "wavs").mkdir()
    time = torch.arange(800) / 8000
    tone = {"AA": 0.5 * torch.sin(2 * math.pi * 400 * time), "IY": 0.5 * torch.sin(2 * math.pi * 1000 * time)}
    metadata, phones = [], []
    for i in range(8):
        names = ["AA" if (i >> bit) & 1 else "IY" for bit in range(3)]
        write_audio(root / "wavs" / f"u{i}.wav", torch.cat([tone[name] for name in names]), 8000)
        metadata.append(f"u{i}|text {i}|text {i}")
        phones.append(json.dumps({"id": f"u{i}", "phones": names, "ends": [0.1, 0.2, 0.3]}))
    (root / "metadata.csv").write_text("\n".join(metadata) + "\n")
    (root / "phones.jsonl").write_text("\n".join(phones) + "\n")
    for name, ids in {"train": range(6), "validation": [6], "test": [7]}.items():
        (root / f"{name}.txt").write_text("".join(f"u{i}\n" for i in ids))
    return root


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_every_loss_falls_and_the_voice_loads(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=40))
    logged = [row for row in rows(tmp_path / "run") if "noise" in row]
    for name, share in (("noise", 0.8), ("spectral", 0.97)):
        first, last = (sum(row[name] for row in part) / 5 for part in (logged[:5], logged[-5:]))
        assert last < share * first, name
    _, description = load_voice(voice)
    assert description["card"]["step"] == 40
    assert description["card"]["phones"] == ["AA", "IY"]
    assert sorted(path.name for path in (tmp_path / "run/validation/0000040").iterdir()) == [
        "u6-2.wav",
        "u6-original.wav",
    ]


def test_killed_and_resumed_is_bit_identical(corpus: Path, tmp_path: Path) -> None:
    options = PretrainOptions(**FAST, steps=6, save_every=4)

    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 5:
            raise Killed

    pretrain(corpus, tmp_path / "whole", options)
    with pytest.raises(Killed):
        pretrain(corpus, tmp_path / "cut", options, on_step=kill)
    pretrain(corpus, tmp_path / "cut", options, resume=True)
    whole, cut = (torch.load(tmp_path / name / "train.pt", weights_only=True) for name in ("whole", "cut"))
    for name, value in whole["losses"].items():
        assert torch.equal(value, cut["losses"][name]), name
    for name, value in whole["average"].items():
        assert torch.equal(value, cut["average"][name]), name
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in rows(tmp_path / n)] for n in ("whole", "cut")
    ]
    assert timeless[0] == timeless[1]


def test_a_run_is_not_overwritten_and_nothing_is_not_resumed(corpus: Path, tmp_path: Path) -> None:
    pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=1))
    with pytest.raises(ConfigError, match="already holds"):
        pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=1))
    with pytest.raises(DataError, match="nothing to resume"):
        pretrain(corpus, tmp_path / "other", PretrainOptions(**FAST, steps=1), resume=True)
    (tmp_path / "run/train.pt").write_bytes((tmp_path / "run/train.pt").read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot read"):
        pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=2), resume=True)


def test_unknown_presets_are_named(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'huge'"):
        pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST | {"preset": "huge"}, steps=1))


def test_learning_rate_warms_up_and_decays() -> None:
    options = PretrainOptions(steps=100, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5)
    assert learning_rate(0, 0.0, options) == pytest.approx(1e-4)
    assert learning_rate(50, 0.0, options) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(100, 0.0, options) == pytest.approx(1e-5)
    timed = options.model_copy(update={"minutes": 2.0})
    assert learning_rate(50, 120.0, timed) == pytest.approx(1e-5)


def test_windows_take_the_same_place_in_frames_and_audio() -> None:
    hop, total = 4, 9
    hidden = torch.arange(total, dtype=torch.float32).expand(1, 2, -1)
    wave = torch.arange(total * hop, dtype=torch.float32)
    batch = Batch(torch.zeros(1, 1), torch.ones(1), torch.tensor([[total]]), [wave])
    cut_hidden, cut_wave = windows(batch, hidden, 3, 5, hop, torch.Generator().manual_seed(0))
    assert cut_hidden.shape == (5, 2, 3)
    for h, w in zip(cut_hidden, cut_wave, strict=True):
        assert w[0] == h[0, 0] * hop
        assert (h[0].diff() == 1).all()
    short_hidden, short_wave = windows(batch, hidden, 12, 1, hop, torch.Generator())
    assert short_hidden.shape == (1, 2, 12)
    assert not short_wave[0, total * hop :].any()


def test_log_mel_has_a_column_per_frame_and_peaks_at_the_tone() -> None:
    mel = LogMel(PRESETS["mini"])
    wave = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)[None]
    spectrum = mel(wave)
    assert spectrum.shape == (1, 40, 100)
    band = int(spectrum[0, :, 50].argmax())
    centre = int(mel.banks[:, band].argmax()) * 8000 / mel.fft
    assert centre == pytest.approx(1000, abs=120)


def test_search_finds_levels_that_the_grid_does_not_hold() -> None:
    wanted = torch.tensor([1.0, 0.97, 0.6, 0.3, placed_levels(4)[-1].item()], dtype=torch.float64)

    def distance(levels: torch.Tensor) -> float:
        return float((torch.logit(levels[1:] ** 2) - torch.logit(wanted[1:] ** 2)).abs().sum())

    tuned = search(distance, 4, rounds=4)
    assert tuned.distance < 0.5 * tuned.untuned
    assert all(a > b for a, b in zip(tuned.levels, tuned.levels[1:], strict=False))


def test_tuned_schedules_are_kept_with_the_voice(corpus: Path, tmp_path: Path) -> None:
    voice = pretrain(corpus, tmp_path / "run", PretrainOptions(**FAST, steps=2))
    (tuned,) = tune_schedule(voice, corpus, [2], utterances=1)
    assert tuned.distance <= tuned.untuned
    assert load_voice(voice)[1]["schedules"] == {"2": list(tuned.levels)}
