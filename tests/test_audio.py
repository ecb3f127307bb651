"""Files, rates and levels."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from rlzoo.errors import DataError
from rlzoo.speech import audio


def tone(seconds: float, rate: int = 16_000, amplitude: float = 0.3) -> torch.Tensor:
    return amplitude * torch.sin(2 * torch.pi * 440 * torch.arange(int(seconds * rate)) / rate)


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    wave = tone(0.1)
    read, rate = audio.read_audio(audio.write_audio(tmp_path / "new" / "a.wav", wave, 16_000))
    assert rate == 16_000
    assert torch.allclose(read, wave, atol=1 / 32_000)
    assert [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".tmp")] == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("text.wav", b"this is not a recording", "cannot be read as audio"),
        ("zero.wav", b"", "cannot be read as audio"),
    ],
)
def test_what_is_not_audio_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        audio.read_audio(tmp_path / name)
    assert name in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (np.zeros((0, 1), np.float32), "no samples"),
        (np.zeros((100, 2), np.float32), "2 channels"),
        (np.array([[0.0], [np.nan], [np.inf]], np.float32), "NaN or infinite in 2 of 3"),
    ],
)
def test_bad_recordings_are_refused(tmp_path: Path, data: np.ndarray, said: str) -> None:
    soundfile.write(tmp_path / "a.wav", data, 16_000, subtype="FLOAT")
    with pytest.raises(DataError, match=said):
        audio.read_audio(tmp_path / "a.wav")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.wav"):
        audio.read_audio(tmp_path / "absent.wav")


def test_another_rate_is_refused_unless_resampling_is_asked_for(tmp_path: Path) -> None:
    path = audio.write_audio(tmp_path / "a.wav", tone(0.5, 8_000), 8_000)
    with pytest.raises(DataError, match="8000 Hz, expected 16000 Hz"):
        audio.read_audio(path, 16_000)
    wave, rate = audio.read_audio(path, 16_000, on_rate="resample")
    assert (wave.shape[0], rate) == (8_000, 16_000)
    middle = slice(1_000, 7_000)
    assert torch.allclose(wave[middle], tone(0.5)[middle], atol=5e-3)


def test_nothing_non_finite_and_nothing_empty_is_written(tmp_path: Path) -> None:
    for wave in (torch.tensor([0.0, float("nan")]), torch.zeros(0)):
        with pytest.raises(DataError, match=r"a\.wav"):
            audio.write_audio(tmp_path / "a.wav", wave, 16_000)
    assert list(tmp_path.iterdir()) == []


def test_resampling_a_ragged_batch_equals_resampling_its_rows() -> None:
    waves = [tone(0.5, 22_050), tone(0.31, 22_050), tone(0.01, 22_050)]
    batch = audio.resample_samples(audio.to_samples(waves, 22_050), 16_000)
    for row, wave in enumerate(waves):
        alone = audio.resample(wave, 22_050, 16_000)
        assert batch.row(row).shape == alone.shape
        assert torch.allclose(batch.row(row), alone, atol=1e-6)
        assert not batch.data[row, batch.lengths[row] :].any()


def test_pauses_do_not_count_towards_the_active_level() -> None:
    speech = tone(1.0)
    paused = torch.cat([torch.zeros(16_000), speech, torch.zeros(32_000)])
    power = audio.active_power(audio.to_samples([speech, paused], 16_000))
    assert power[0].item() == pytest.approx(0.3**2 / 2, rel=1e-3)
    assert power[1].item() == pytest.approx(power[0].item(), rel=0.05)


def test_normalised_rows_have_the_level_and_silence_stays_silent() -> None:
    batch = audio.to_samples([tone(1.0, amplitude=0.9), tone(0.4, amplitude=0.001), torch.zeros(800)], 16_000)
    level = 10 * audio.active_power(audio.normalise_level(batch)).log10()
    assert level[:2].tolist() == pytest.approx([-26.0, -26.0], abs=1e-3)
    assert not audio.normalise_level(batch).data[2].any()


def test_normalising_takes_gain_out_of_the_gradient() -> None:
    wave = (tone(0.2) + 0.05 * torch.randn(3_200, generator=torch.Generator().manual_seed(0))).requires_grad_()
    samples = audio.to_samples([wave], 16_000)
    target = torch.randn(3_200, generator=torch.Generator().manual_seed(1))
    (audio.normalise_level(samples).data[0] * target).sum().backward()
    assert wave.grad is not None
    # A function that does not change with gain has no derivative along the waveform itself.
    assert abs((wave.grad * wave).sum().item()) < 1e-4 * (wave.grad.norm() * wave.norm()).item()


def test_the_wrong_rate_is_named() -> None:
    with pytest.raises(DataError, match="'dnsmos' needs audio at 16000 Hz and was given 8000 Hz"):
        audio.require_rate(audio.to_samples([tone(0.1)], 8_000), 16_000, "dnsmos")


@pytest.mark.parametrize(("rate", "fft", "top"), [(16_000, 321, None), (22_050, 4096, 20_000.0), (8_000, 512, 900.0)])
def test_mel_filters_are_those_of_librosa(rate: int, fft: int, top: float | None) -> None:
    librosa = pytest.importorskip("librosa", reason="librosa is a tool of the tests")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Empty filters")
        expected = librosa.filters.mel(sr=rate, n_fft=fft, n_mels=48, fmax=top)
    assert np.allclose(audio.slaney_mel(rate, fft, 48, top).T.numpy(), expected, atol=1e-7)


def test_resampling_keeps_what_fits_and_removes_what_does_not() -> None:
    """Halving the rate of 16 kHz: 3.5 kHz stays as it was, 4.3 kHz would fold back to 3.7 kHz and is gone."""
    time = torch.arange(16_000, dtype=torch.float64) / 16_000
    for frequency, least, most in ((3_500, 0.98, 1.02), (4_300, 0.0, 1e-3)):
        wave = torch.sin(2 * torch.pi * frequency * time).float()
        halved = audio.resample_samples(audio.to_samples([wave], 16_000), 8_000).data[0, 1_000:-1_000]
        power = float(halved.square().mean()) / 0.5
        assert least <= power <= most, frequency


@pytest.mark.parametrize(("below_db", "counts"), [(17.0, True), (21.0, False)])
def test_speech_is_active_down_to_15_9_db_below_its_level(below_db: float, counts: bool) -> None:
    """ITU-T P.56. One second loud, one quieter: their mean lies 3 dB below the loud one, and the margin below that."""
    loud = tone(1.0, amplitude=0.2)
    wave = torch.cat([loud, loud * 10 ** (-below_db / 20)])
    power = 0.2**2 / 2
    expected = power * (1 + 10 ** (-below_db / 10)) / 2 if counts else power
    measured = float(audio.active_power(audio.to_samples([wave], 16_000))[0])
    assert 10 * np.log10(measured / expected) == pytest.approx(0.0, abs=0.2)
