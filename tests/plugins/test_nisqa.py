"""NISQA: the published figure, an independent run, batches, gradients, bad input."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rlzoo_nisqa import V2, NISQAOptions, NISQATTSOptions
from rlzoo_nisqa.network import NISQA, Settings
from rlzoo_nisqa.reward import DIMENSIONS, NISQAReward, NISQATTSReward, load
from rlzoo_nisqa.spectrum import FrontEnd, reflected
from speaking import check_half_precision
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.api import Samples
from rlzoo.assets import at_hand
from rlzoo.audio import read_audio, to_samples
from rlzoo.errors import DataError

SHARED = Path(__file__).parents[2] / "../shared/data"
RATE = 22_050

# The settings that the published checkpoints carry.
COMMON = {
    "ms_n_fft": 4096,
    "ms_hop_length": 0.01,
    "ms_win_length": 0.02,
    "ms_n_mels": 48,
    "ms_seg_length": 15,
    "cnn_c_out_1": 16,
    "cnn_c_out_2": 32,
    "cnn_c_out_3": 64,
    "cnn_kernel_size": (3, 3),
    "cnn_dropout": 0.2,
    "td_2": "skip",
}
V2_ARGS: dict[str, Any] = COMMON | {
    "ms_fmax": 20_000,
    "ms_seg_hop_length": 4,
    "ms_max_segments": 1300,
    "cnn_model": "adapt",
    "cnn_fc_out_h": None,
    "cnn_pool_1": [24, 7],
    "cnn_pool_2": [12, 5],
    "cnn_pool_3": [6, 3],
    "td": "self_att",
    "td_sa_d_model": 64,
    "td_sa_nhead": 1,
    "td_sa_num_layers": 2,
    "td_sa_h": 64,
    "td_sa_dropout": 0.1,
    "td_lstm_h": None,
    "pool": "att",
    "pool_att_h": 128,
    "pool_att_dropout": 0,
    "model": "NISQA_DIM",
}
TTS_ARGS: dict[str, Any] = COMMON | {
    "ms_fmax": 8_000,
    "ms_seg_hop_length": 1,
    "cnn_model": "standard",
    "cnn_fc_out_h": 20,
    "cnn_pool_1": None,
    "cnn_pool_2": None,
    "cnn_pool_3": None,
    "td": "lstm",
    "td_sa_d_model": None,
    "td_sa_nhead": None,
    "td_sa_num_layers": None,
    "td_sa_h": None,
    "td_lstm_h": 128,
    "pool": "last_step_bi",
    "pool_att_h": None,
    "model": "NISQA",
}


def random_checkpoint(args: dict[str, Any], path: Path) -> Path:
    torch.manual_seed(0)
    network = NISQA(Settings.of(args))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    torch.save({"args": args, "model_state_dict": network.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def v2_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(V2_ARGS, tmp_path_factory.mktemp("nisqa") / "v2.tar")


@pytest.fixture(scope="module")
def tts_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(TTS_ARGS, tmp_path_factory.mktemp("nisqa") / "tts.tar")


@pytest.fixture
def v2(v2_path: Path) -> NISQAReward:
    return NISQAReward(NISQAOptions(checkpoint=v2_path))


@pytest.fixture
def tts(tts_path: Path) -> NISQATTSReward:
    return NISQATTSReward(NISQATTSOptions(checkpoint=tts_path))


def published(name: str) -> Path:
    path = SHARED / "nisqa" / name
    if not path.is_file():
        pytest.skip("NISQA's weights of ../shared are not here")
    return path


def sounds() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(RATE) / RATE
    return [
        0.2 * torch.sin(2 * torch.pi * 200 * t) + 0.02 * torch.randn(RATE, generator=generator),
        0.1 * torch.randn(9_000, generator=generator),
        0.3 * torch.sin(2 * torch.pi * 900 * t[:5_000]),
    ]


def independent(path: Path, wave: Tensor, rate: int) -> Tensor:
    """Another implementation of v2: librosa's mel picture and the network that torchmetrics published. (5,)."""
    pytest.importorskip("librosa", reason="librosa is a tool of the tests")
    published_elsewhere = pytest.importorskip(
        "torchmetrics.functional.audio.nisqa", reason="torchmetrics is a tool of the tests"
    )
    content = torch.load(path, map_location="cpu", weights_only=True)
    network = published_elsewhere._NISQADIM(content["args"])
    network.load_state_dict(content["model_state_dict"])
    network.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        mel = published_elsewhere._get_librosa_melspec(wave[None].numpy(), rate, content["args"])
    segments, count = published_elsewhere._segment_specs(torch.from_numpy(mel), content["args"])
    with torch.no_grad():
        result: Tensor = network(segments[:, : int(count)], count[None])[0]
    return result


@pytest.mark.parametrize("rate", [22_050, 16_000, 48_000, 8_000])
def test_equals_an_independent_run(v2: NISQAReward, v2_path: Path, rate: int) -> None:
    with torch.no_grad():
        parts = v2.score(to_samples(sounds()[:2], rate), []).parts
    for row, wave in enumerate(sounds()[:2]):
        expected = independent(v2_path, wave, rate)
        found = torch.stack([parts[name][row] for name in DIMENSIONS])
        assert torch.allclose(found, expected, atol=1e-4), (rate, row)


def test_tts_equals_the_network_written_down_once_more(tts: NISQATTSReward, tts_path: Path) -> None:
    w = torch.load(tts_path, weights_only=True)["model_state_dict"]
    wave = sounds()[1]
    h = FrontEnd(Settings.of(TTS_ARGS))(wave, RATE)[:, None]
    for index in range(1, 7):
        h = F.conv2d(h, w[f"cnn.model.conv{index}.weight"], w[f"cnn.model.conv{index}.bias"], padding=1)
        mean, variance, gain, shift = (
            w[f"cnn.model.bn{index}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        h = ((h - mean) / (variance + 1e-5).sqrt() * gain + shift).relu()
        if index == 1:
            h = F.max_pool2d(F.pad(h, (1, 1)), 2)  # after a rectifier zeros never win
        elif index in (2, 4):
            h = F.max_pool2d(h, 2)
    x = h.flatten(1) @ w["cnn.model.fc_out.weight"].T + w["cnn.model.fc_out.bias"]
    ends = []
    for suffix, order in (("", range(len(x))), ("_reverse", range(len(x) - 1, -1, -1))):
        state, cell = torch.zeros(128), torch.zeros(128)
        for frame in order:
            lstm = "time_dependency.model.lstm"
            gates = w[f"{lstm}.weight_ih_l0{suffix}"] @ x[frame] + w[f"{lstm}.bias_ih_l0{suffix}"]
            gates = gates + w[f"{lstm}.weight_hh_l0{suffix}"] @ state + w[f"{lstm}.bias_hh_l0{suffix}"]
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
        ends.append(state)
    expected = torch.cat(ends) @ w["pool.model.linear.weight"][0] + w["pool.model.linear.bias"][0]
    with torch.no_grad():
        assert tts.score(to_samples([wave], RATE), []).values.item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("which", ["v2", "tts"])
def test_a_row_does_not_depend_on_its_batch(which: str, v2: NISQAReward, tts: NISQATTSReward) -> None:
    reward = v2 if which == "v2" else tts
    batch = to_samples(sounds(), RATE)
    padded = Samples(F.pad(batch.data, (0, 3_000)), batch.lengths, batch.media)
    with torch.no_grad():
        alone = torch.cat([reward.score(to_samples([wave], RATE), []).values for wave in sounds()])
        assert torch.allclose(reward.score(batch, []).values, alone, atol=1e-4)
        assert torch.allclose(reward.score(padded, []).values, alone, atol=1e-4)


@pytest.mark.parametrize("which", ["v2", "tts"])
def test_climbing_the_gradient_raises_the_score(which: str, v2: NISQAReward, tts: NISQATTSReward) -> None:
    reward = v2 if which == "v2" else tts
    samples = to_samples([sounds()[0], sounds()[1], torch.zeros(4_000)], RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), []).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert not data.grad[1, samples.lengths[1] :].any()
    moved = samples.data + 1e-5 * data.grad.sign()
    with torch.no_grad():
        after = reward.score(Samples(moved, samples.lengths, samples.media), []).values
    assert bool((after[:2] > before[:2]).all())


@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.2])
def test_silence_and_short_clips_have_a_score(v2: NISQAReward, rate: int, seconds: float) -> None:
    size = int(rate * seconds)
    with torch.no_grad():
        values = v2.score(to_samples([torch.zeros(size), torch.linspace(-0.1, 0.1, size)], rate), []).values
    assert torch.isfinite(values).all()


def test_reflection_is_numpys(v2: NISQAReward) -> None:
    import numpy as np

    for size, padding in ((10, 3), (5, 4), (5, 23), (2, 7)):
        wave = torch.arange(size, dtype=torch.float32)
        assert reflected(wave, padding).tolist() == np.pad(wave.numpy(), padding, mode="reflect").tolist()


def test_options_choose_part_rate_and_level(v2: NISQAReward, v2_path: Path) -> None:
    batch = to_samples(sounds()[:1], RATE)
    chosen = NISQAReward(NISQAOptions(checkpoint=v2_path, part="loudness"))
    with torch.no_grad():
        assert torch.equal(chosen.score(batch, []).values, v2.score(batch, []).parts["loudness"])
    assert v2.sample_rate is None
    fixed = NISQAReward(NISQAOptions(checkpoint=v2_path, sample_rate=16_000))
    assert fixed.sample_rate == 16_000
    with pytest.raises(DataError, match="needs audio at 16000 Hz and was given 22050 Hz"):
        fixed.score(batch, [])
    levelled = NISQAReward(NISQAOptions(checkpoint=v2_path, level_dbfs=-26))
    quiet = Samples(0.1 * batch.data, batch.lengths, batch.media)
    with torch.no_grad():
        assert torch.allclose(levelled.score(batch, []).values, levelled.score(quiet, []).values, atol=1e-4)


def test_bfloat16_moves_scores_little(v2: NISQAReward, tts: NISQATTSReward, v2_path: Path, tts_path: Path) -> None:
    halves = {
        v2: NISQAReward(NISQAOptions(checkpoint=v2_path, precision="bfloat16")),
        tts: NISQATTSReward(NISQATTSOptions(checkpoint=tts_path, precision="bfloat16")),
    }
    samples = to_samples(sounds(), RATE)
    for exact, half in halves.items():
        check_half_precision(exact, half, samples, 0.05)


def test_bad_checkpoints_are_refused(v2_path: Path, tts_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 1 outputs, 'nisqa' needs 5"):
        NISQAReward(NISQAOptions(checkpoint=tts_path))
    (tmp_path / "cut.tar").write_bytes(v2_path.read_bytes()[:5_000])
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load(tmp_path / "cut.tar")
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load(tmp_path / "text.tar")
    torch.save({"state_dict": {}}, tmp_path / "other.tar")
    with pytest.raises(DataError, match="has no 'args'"):
        load(tmp_path / "other.tar")
    torch.save({"args": V2_ARGS | {"td": "transformer"}, "model_state_dict": {}}, tmp_path / "kind.tar")
    with pytest.raises(DataError, match="of the kind adapt, transformer, att"):
        load(tmp_path / "kind.tar")
    torch.save({"args": V2_ARGS, "model_state_dict": {}}, tmp_path / "empty.tar")
    with pytest.raises(DataError, match="does not fit its own settings"):
        load(tmp_path / "empty.tar")


def test_without_weights_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("RLZOO_OFFLINE", "1")
    assert not at_hand((V2,))
    with pytest.raises(DataError, match="'nisqa-v2' is not in the cache"):
        NISQAReward(NISQAOptions())
    assert "NO COMMERCIAL USE" in V2.terms()


def recordings() -> list[Tensor]:
    return [read_audio(path, RATE)[0] for path in sorted((SHARED / "ljspeech/wavs").glob("*.wav"))]


def test_published_weights_on_a_recording_equal_an_independent_run() -> None:
    path = published("nisqa.tar")
    wave = read_audio(SHARED / "ljspeech/wavs/LJ001-0002.wav", RATE)[0]
    with torch.no_grad():
        parts = NISQAReward(NISQAOptions(checkpoint=path)).score(to_samples([wave], RATE), []).parts
    found = torch.stack([parts[name][0] for name in DIMENSIONS])
    assert torch.allclose(found, independent(path, wave, RATE), atol=1e-3)


@pytest.mark.slow
def test_the_published_figure_on_natural_speech() -> None:
    """The ground-truth row of the DLPO paper reports 4.37 for LJSpeech."""
    path = published("nisqa.tar")
    reward = NISQAReward(NISQAOptions(checkpoint=path))
    waves = recordings()
    with torch.no_grad():
        together = reward.score(to_samples(waves, RATE), [])
        alone = torch.cat([reward.score(to_samples([wave], RATE), []).values for wave in waves])
    assert len(waves) == 24
    assert together.values.mean().item() == pytest.approx(4.37, abs=0.03)
    assert torch.allclose(together.values, alone, atol=1e-4)
    for row, wave in enumerate(waves):
        found = torch.stack([together.parts[name][row] for name in DIMENSIONS])
        assert torch.allclose(found, independent(path, wave, RATE), atol=1e-3)


@pytest.mark.slow
def test_the_measured_figure_of_nisqa_tts_on_natural_speech() -> None:
    reward = NISQATTSReward(NISQATTSOptions(checkpoint=published("nisqa_tts.tar")))
    with torch.no_grad():
        mean = reward.score(to_samples(recordings(), RATE), []).values.mean().item()
    assert mean == pytest.approx(4.21, abs=0.05)
