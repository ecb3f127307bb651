"""Distill-MOS equals the published package, row by row, and its gradient is finite and right."""

from __future__ import annotations

import contextlib
import io
import math
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlzoo_distillmos import DistillMOSOptions, available, weights
from rlzoo_distillmos.network import GRADIENT_FLOOR, WINDOW, DistillMOS, compress
from rlzoo_distillmos.reward import DistillMOSReward, Window, cut, starts

from rlzoo.api import Samples
from rlzoo.audio import read_audio, to_samples
from rlzoo.errors import DataError
from rlzoo.testing.rewards import voice_like

RATE = 16_000
CLIPS = Path(__file__).parents[2] / "../shared/data/ljspeech/wavs"


@pytest.fixture(scope="module")
def reward() -> DistillMOSReward:
    return DistillMOSReward(DistillMOSOptions())


@pytest.fixture(scope="module")
def package() -> Any:
    distillmos = pytest.importorskip("distillmos", reason="the published network needs xls-r-sqa")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        return distillmos.ConvTransformerSQAModel().eval()


def synthetic() -> dict[str, torch.Tensor]:
    """Waveforms that need no file, shorter and longer than a window, with zeros inside and nothing but zeros."""
    generator = torch.Generator().manual_seed(0)
    with_pause = voice_like(2.0, RATE, 1)
    with_pause[8_000:20_000] = 0
    return {
        "voice with a pause": with_pause,
        "9.4 s of noise": 0.3 * torch.randn(150_001, generator=generator),
        "almost a full window": voice_like(7.6, RATE, 2),
        "silence": torch.zeros(RATE),
        "10 ms": voice_like(0.01, RATE, 0),
        "one sample": torch.ones(1),
    }


def recordings(*names: str) -> dict[str, torch.Tensor]:
    """The named LJSpeech clips, or all of them."""
    if not CLIPS.is_dir():
        pytest.skip("the LJSpeech clips of ../shared are not here")
    paths = [CLIPS / f"{name}.wav" for name in names] or sorted(CLIPS.glob("*.wav"))
    return {path.stem: read_audio(path, RATE, on_rate="resample")[0] for path in paths}


def noisy(wave: torch.Tensor, snr_db: float) -> torch.Tensor:
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(1))
    return (wave + noise * wave.square().mean().sqrt() * 10 ** (-snr_db / 20)).clamp(-1, 1)


@torch.no_grad()
def compare(waves: dict[str, torch.Tensor], reward: DistillMOSReward, package: Any) -> None:
    """In one ragged batch; that no bit depends on the batch is tested below."""
    found = reward.score(to_samples(list(waves.values()), RATE), []).values
    for value, (name, wave) in zip(found, waves.items(), strict=True):
        assert value.item() == pytest.approx(package(wave[None]).item(), abs=1e-4), name


def test_equals_the_published_package_on_synthetic_sounds(reward: DistillMOSReward, package: Any) -> None:
    compare(synthetic(), reward, package)


def test_equals_the_published_package_on_recordings(reward: DistillMOSReward, package: Any) -> None:
    (wave,) = recordings("LJ001-0002").values()
    compare({"clean": wave, "noisy": noisy(wave, 10)}, reward, package)


@pytest.mark.slow
def test_equals_the_published_package_on_all_recordings(reward: DistillMOSReward, package: Any) -> None:
    clean = recordings()
    compare(clean | {f"{name}, noisy": noisy(wave, 5) for name, wave in clean.items()}, reward, package)


@torch.no_grad()
def test_scores_are_these_numbers(reward: DistillMOSReward) -> None:
    """Those of the published network (the tests above), where it is not installed; the last clip has three windows."""
    noise = 0.3 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    samples = to_samples([voice_like(2.0, RATE, 1), noise, voice_like(9.0, RATE, 2)], RATE)
    assert reward.score(samples, []).values.tolist() == pytest.approx([1.9207, 2.3076, 1.3889], abs=2e-3)


@pytest.mark.parametrize("over", [0, 1, 15_999, 16_000, 16_001, 37_777, 123_456, 837_120])
def test_windows_are_those_of_the_package(over: int) -> None:
    hops = math.ceil(over / 16_000) + 1
    assert starts(WINDOW + over) == [int(part * over) for part in np.linspace(0, 1, hops)]
    assert starts(WINDOW - 1) == [0]


@torch.no_grad()
def test_no_bit_of_a_row_depends_on_its_batch(reward: DistillMOSReward) -> None:
    waves = [synthetic()[name] for name in ("voice with a pause", "9.4 s of noise", "10 ms")]
    batch = to_samples(waves, RATE)
    dirty = Samples(torch.nn.functional.pad(batch.data, (0, 999)), batch.lengths, batch.media)
    for row, wave in enumerate(waves):
        dirty.data[row, len(wave) :] = 0.9
    alone = torch.cat([reward.score(to_samples([wave], RATE), []).values for wave in waves])
    assert torch.equal(reward.score(dirty, []).values, alone)


@torch.no_grad()
def test_windows_together_as_on_a_gpu_score_as_alone(reward: DistillMOSReward) -> None:
    waves = [synthetic()[name] for name in ("10 ms", "voice with a pause")]
    data = to_samples(waves, RATE).data
    data[0, 160:] = 0.9
    windows = [Window(row, 0, len(wave)) for row, wave in enumerate(waves)] + [Window(1, 500, 4_000)]
    (piece,) = cut(data, windows, 3)
    alone = torch.cat([reward.network(part) for part in cut(data, windows, 1)])
    assert torch.allclose(reward.network(piece), alone, atol=1e-5)


@torch.no_grad()
def test_the_level_does_not_matter(reward: DistillMOSReward) -> None:
    wave = synthetic()["voice with a pause"]
    loud, quiet = reward.score(to_samples([wave, 0.01 * wave], RATE), []).values
    assert loud.item() == pytest.approx(quiet.item(), abs=1e-3)


def test_the_gradient_is_finite_on_padding_and_silence_and_stays_inside(reward: DistillMOSReward) -> None:
    waves = [synthetic()[name] for name in ("voice with a pause", "silence", "one sample")]
    samples = to_samples(waves, RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), []).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    for row, wave in enumerate(waves):
        assert not data.grad[row, len(wave) :].any()
    assert not data.grad[1].any()
    moved = samples.data + 1e-5 * data.grad.sign()
    with torch.no_grad():
        after = reward.score(Samples(moved, samples.lengths, samples.media), []).values
    assert after[0] > before[0]


def test_the_gradient_equals_finite_differences() -> None:
    network = DistillMOS(weights.published()).double()
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(1, 4_000, generator=generator, dtype=torch.float64)
    way = torch.randn(1, 4_000, generator=generator, dtype=torch.float64)
    wave.requires_grad_()
    (gradient,) = torch.autograd.grad(network(wave).sum(), wave)
    with torch.no_grad():
        step = 1e-7
        found = (network(wave + step * way) - network(wave - step * way)) / (2 * step)
    assert (gradient * way).sum().item() == pytest.approx(found.item(), rel=1e-4)


def test_compression_has_the_true_gradient_above_the_floor_and_a_bounded_one_below() -> None:
    magnitude = torch.tensor([0.5, 2e-4, 1e-6, 0.0], dtype=torch.float64)
    bins = torch.stack([magnitude, torch.zeros_like(magnitude)], -1).requires_grad_()
    compressed = compress(bins)
    assert compressed[:3, 0].tolist() == pytest.approx((magnitude[:3] ** 0.3).tolist())
    compressed[:, 0].sum().backward()
    assert bins.grad is not None
    slope = bins.grad[:, 0]
    assert slope[:2].tolist() == pytest.approx((0.3 * magnitude[:2] ** -0.7).tolist())
    assert slope[2:].tolist() == pytest.approx([GRADIENT_FLOOR**-0.35] * 2)


@torch.no_grad()
def test_noise_lowers_the_score_of_a_recording(reward: DistillMOSReward) -> None:
    (wave,) = recordings("LJ001-0002").values()
    found = reward.score(to_samples([wave, *(noisy(wave, db) for db in (20, 10, 0))], RATE), []).values.tolist()
    assert found == sorted(found, reverse=True)
    assert found[0] - found[-1] > 1.5


def test_an_empty_clip_is_refused(reward: DistillMOSReward) -> None:
    empty = Samples(torch.zeros(1, 10), torch.zeros(1, dtype=torch.int64), to_samples([torch.ones(1)], RATE).media)
    with pytest.raises(DataError, match="empty clip"):
        reward.score(empty, [])


def test_a_missing_or_different_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="is not installed"):
        weights.locate()
    spec = ModuleSpec("distillmos", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(weights, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="has no file"):
        weights.locate()
    (tmp_path / "weights").mkdir()
    (tmp_path / weights.FILE).write_bytes(b"other weights")
    with pytest.raises(DataError, match="has the SHA-256"):
        weights.locate()


def test_the_package_is_read_without_being_imported() -> None:
    code = (
        "import sys; from rlzoo.rewards import build_reward; build_reward('distillmos', {});"
        "print({'distillmos', 'xls_r_sqa', 'transformers'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
    assert available(DistillMOSOptions())
