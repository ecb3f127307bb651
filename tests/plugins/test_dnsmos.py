"""DNSMOS equals the published package, row by row, and gives gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rlzoo_dnsmos import DNSMOSOptions, available, clips, weights
from rlzoo_dnsmos.reward import DNSMOSReward
from speaking import check_half_precision

from rlzoo.api import Samples
from rlzoo.audio import normalise_level, read_audio, to_samples
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.errors import DataError
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.rewards import voice_like

RATE = 16_000
CLIPS = Path(__file__).parents[2] / "../shared/data/ljspeech/wavs"


def synthetic() -> dict[str, torch.Tensor]:
    """Waveforms that need no file: a buzz like a vowel, noise, silence, very short, longer than one window."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.arange(12 * RATE) / RATE
    buzz = sum(torch.sin(2 * torch.pi * 120 * k * seconds) / k for k in range(1, 20)) * 0.1
    assert isinstance(buzz, torch.Tensor)
    syllables = buzz * (0.5 + 0.5 * torch.sin(2 * torch.pi * 3 * seconds))
    noise = 0.1 * torch.randn(3 * RATE, generator=generator)
    return {
        "syllables, 12 s": syllables,
        "syllables, 2.5 s": syllables[: 5 * RATE // 2],
        "noisy syllables": syllables[: 3 * RATE] + noise,
        "noise": noise,
        "silence": torch.zeros(RATE),
        "10 ms": syllables[:160],
        "a click": torch.nn.functional.one_hot(torch.tensor(4_000), RATE).float(),
    }


def recordings(*names: str) -> dict[str, torch.Tensor]:
    """The named LJSpeech clips, or all of them, each clean and at 10 dB noise."""
    if not CLIPS.is_dir():
        pytest.skip("the LJSpeech clips of ../shared are not here")
    paths = [CLIPS / f"LJ001-{name}.wav" for name in names] or sorted(CLIPS.glob("*.wav"))
    clean = {path.stem: read_audio(path, RATE, on_rate="resample")[0].clamp(-1, 1) for path in paths}
    return clean | {f"{name}, noisy": with_noise(wave, 10) for name, wave in clean.items()}


def with_noise(wave: torch.Tensor, snr_db: float) -> torch.Tensor:
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(1))
    return (wave + noise * wave.square().mean().sqrt() * 10 ** (-snr_db / 20)).clamp(-1, 1)


def package() -> Any:
    for needed in ("librosa", "onnxruntime", "requests"):
        pytest.importorskip(needed, reason=f"the published package needs {needed}, which is a tool of the tests")
    from speechmos import dnsmos

    return dnsmos


@pytest.fixture(scope="module")
def p808() -> DNSMOSReward:
    return DNSMOSReward(DNSMOSOptions())


@pytest.fixture(scope="module")
def p835() -> DNSMOSReward:
    return DNSMOSReward(DNSMOSOptions(model="p835"))


def compare(waves: dict[str, torch.Tensor], p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    reference = package()
    samples = to_samples(list(waves.values()), RATE)
    with torch.no_grad():
        overall = p808.score(samples, []).values
        parts = p835.score(samples, []).parts
    for row, (name, wave) in enumerate(waves.items()):
        expected = reference.run(wave.numpy(), RATE)
        found = {"p808_mos": overall[row]} | {f"{part}_mos": values[row] for part, values in parts.items()}
        for key, value in found.items():
            assert value.item() == pytest.approx(float(expected[key]), abs=1e-4), (name, key)


def test_equals_the_published_package_on_synthetic_sounds(p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    waves = synthetic()
    compare({name: waves[name] for name in ("syllables, 12 s", "noise", "silence", "10 ms")}, p808, p835)


def test_equals_the_published_package_on_recordings(p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    compare(recordings("0004"), p808, p835)


@pytest.mark.slow
def test_equals_the_published_package_on_all_recordings_and_a_minute(p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    waves = recordings()
    compare(waves | {"one minute": torch.cat(list(waves.values()))[: 60 * RATE]}, p808, p835)


def test_personalized_equals_the_published_package() -> None:
    waves = {name: wave for name, wave in synthetic().items() if name in ("syllables, 2.5 s", "noise")}
    with torch.no_grad():
        reward = DNSMOSReward(DNSMOSOptions(model="p835", personalized=True))
        parts = reward.score(to_samples(list(waves.values()), RATE), []).parts
    for row, wave in enumerate(waves.values()):
        expected = package().run(wave.numpy(), RATE, model_type="dnsmos_personalized")
        for part, values in parts.items():
            assert values[row].item() == pytest.approx(float(expected[f"{part}_mos"]), abs=1e-4)


def test_scores_are_these_numbers(p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    """Those of the published package (the tests above), where what it needs is not installed."""
    noise = 0.3 * torch.randn(24_000, generator=torch.Generator().manual_seed(0))
    samples = to_samples([voice_like(2.0, RATE, 1), noise], RATE)
    personal = DNSMOSReward(DNSMOSOptions(model="p835", personalized=True))
    with torch.no_grad():
        found = {"p808": p808.score(samples, []).values}
        found |= p835.score(samples, []).parts
        found |= {f"personal {part}": values for part, values in personal.score(samples, []).parts.items()}
    assert {name: values.tolist() for name, values in found.items()} == {
        "p808": pytest.approx([2.3287, 2.1258], abs=2e-3),
        "sig": pytest.approx([1.7602, 1.1971], abs=2e-3),
        "bak": pytest.approx([1.6963, 1.1418], abs=2e-3),
        "ovrl": pytest.approx([1.4232, 1.0610], abs=2e-3),
        "personal sig": pytest.approx([3.5379, 2.6913], abs=2e-3),
        "personal bak": pytest.approx([2.6890, 1.3793], abs=2e-3),
        "personal ovrl": pytest.approx([2.5785, 1.4724], abs=2e-3),
    }


@pytest.mark.parametrize("length", [144_160, 160_000, 176_000, 16 * RATE, 17 * RATE, 33 * RATE + 5, 60 * RATE])
def test_windows_are_those_of_the_package(length: int) -> None:
    """Its loop, literally: hops from the length, slices cut in floating point, short slices skipped."""
    kept = []
    for index in range(int(np.floor(length / RATE) - 9.01) + 1):
        piece = range(length)[int(index * RATE) : int((index + 9.01) * RATE)]
        if len(piece) >= int(9.01 * RATE):
            kept.append(index)
    assert clips.windows(length) == kept


@pytest.mark.parametrize("model", ["p808", "p835"])
def test_a_gpu_scores_clips_together_as_a_cpu_one_by_one(model: str) -> None:
    """Three windows beside one, and rows that are filled to different lengths. More clips are no more launches."""
    samples = to_samples([synthetic()[name] for name in ("syllables, 2.5 s", "syllables, 12 s", "noise")], RATE)
    with torch.no_grad():
        here = DNSMOSReward(DNSMOSOptions(model=model)).score(samples, [])
        with FakeCuda() as gpu:
            there, launched = DNSMOSReward(DNSMOSOptions(model=model)).to("cuda"), []
            for some in (samples[1:2], samples):
                with gpu.counted() as count:
                    scores = there.score(some.to("cuda"), [])
                launched.append(count.kernels)
            found = {name: part.cpu() for name, part in {"values": scores.values, **scores.parts}.items()}
    for name, part in {"values": here.values, **here.parts}.items():
        torch.testing.assert_close(found[name], part, rtol=0, atol=1e-4, msg=name)
    assert launched[1] < 1.5 * launched[0]


@pytest.mark.parametrize("model", ["p808", "p835"])
def test_a_row_does_not_depend_on_its_batch(model: str, p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    reward = p808 if model == "p808" else p835
    waves = [synthetic()[name] for name in ("syllables, 2.5 s", "noise", "10 ms")]
    batch = to_samples(waves, RATE)
    dirty = Samples(torch.nn.functional.pad(batch.data, (0, 999)), batch.lengths, batch.media)
    with torch.no_grad():
        together = reward.score(dirty, []).values
        alone = torch.cat([reward.score(to_samples([wave], RATE), []).values for wave in waves])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("model", ["p808", "p835"])
def test_climbing_the_gradient_raises_the_score(model: str, p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    reward = p808 if model == "p808" else p835
    waves = synthetic()
    samples = to_samples([waves["noisy syllables"], waves["silence"]], RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), []).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert data.grad[0].any()
    assert not data.grad[1, samples.lengths[1] :].any()
    moved = samples.data + 1e-4 * data.grad.sign()
    after = reward.score(Samples(moved, samples.lengths, samples.media), []).values
    assert after[0].item() > before[0].item() + 1e-3


def test_p808_does_not_hear_the_level_and_p835_is_levelled_on_request(p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    samples = to_samples([synthetic()["noisy syllables"]], RATE)
    quiet = Samples(samples.data * 0.1, samples.lengths, samples.media)
    levelled = DNSMOSReward(DNSMOSOptions(model="p835", level_dbfs=-26))
    with torch.no_grad():
        assert p808.score(quiet, []).values.item() == pytest.approx(p808.score(samples, []).values.item(), abs=1e-3)
        assert abs(p835.score(quiet, []).values.item() - p835.score(samples, []).values.item()) > 0.01
        expected = p835.score(normalise_level(samples), []).values.item()
        for given in (quiet, samples):
            assert levelled.score(given, []).values.item() == pytest.approx(expected, abs=1e-4)


def test_part_selects_the_score(p835: DNSMOSReward) -> None:
    samples = to_samples([synthetic()["noise"]], RATE)
    with torch.no_grad():
        parts = p835.score(samples, []).parts
        for part in ("sig", "bak"):
            chosen = DNSMOSReward(DNSMOSOptions.model_validate({"model": "p835", "part": part}))
            assert torch.equal(chosen.score(samples, []).values, parts[part])


def test_recordings_outrank_noisier_ones(p808: DNSMOSReward) -> None:
    clean = recordings("0004", "0011", "0020")
    waves = [wave for name, wave in clean.items() if "noisy" not in name]
    with torch.no_grad():
        means = [
            p808.score(to_samples([with_noise(wave, snr) for wave in waves], RATE), []).values.mean().item()
            for snr in (60, 20, 10, 0)
        ]
    assert means == sorted(means, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "windows", "least"), [("0002", 6, 1.5), ("0004", 1, 1.2)])
def test_speed_against_the_published_package(
    name: str, windows: int, least: float, p808: DNSMOSReward, p835: DNSMOSReward
) -> None:
    """In CPU-seconds against the package's full call: P.808 at least 5 times as fast, P.835 1.5 times.

    On a clip of a single window, where windows share nothing, P.835 was measured to be 1.4 to 1.5 times as fast.
    """
    keep_freed_memory()  # as every command of rlzoo does
    wave = recordings(name)[f"LJ001-{name}"]
    assert len(clips.windows(clips.filled(len(wave)))) == windows
    samples, reference = to_samples([wave], RATE), package()
    calls = (
        lambda: reference.run(wave.numpy(), RATE),
        lambda: p808.score(samples, []),
        lambda: p835.score(samples, []),
    )

    def seconds(call: Callable[[], Any]) -> float:
        start = time.process_time()  # of all threads; other processes change it little
        with torch.no_grad():
            call()
        return time.process_time() - start

    for call in calls:
        seconds(call)
    # In turns, so that whatever else the machine does befalls all of them alike.
    full, fast, slow = (
        min(spent) for spent in zip(*[[seconds(call) for call in calls] for _ in range(3)], strict=True)
    )
    print(f"package {full:.2f} s, P.808 {fast:.2f} s, P.835 {slow:.2f} s")
    assert full / fast > 5
    assert full / slow > least


def test_the_wrong_package_the_wrong_rate_and_nothing(
    p808: DNSMOSReward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="needs audio at 16000 Hz and was given 22050 Hz"):
        p808.score(to_samples([torch.zeros(999)], 22_050), [])
    with pytest.raises(DataError, match="empty clip"):
        p808.score(Samples(torch.zeros(1, 9), torch.tensor([0]), to_samples([torch.zeros(9)], RATE).media), [])
    assert available(DNSMOSOptions())
    namesake = tmp_path / "speechmos"
    namesake.mkdir()
    (namesake / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "speechmos", raising=False)
    with pytest.raises(DataError, match="not Microsoft's but a namesake"):
        DNSMOSReward(DNSMOSOptions())
    (namesake / "dnsmos_models").mkdir()
    (namesake / weights.P808).write_bytes(b"something else")
    with pytest.raises(DataError, match="SHA-256"):
        DNSMOSReward(DNSMOSOptions())


@pytest.mark.parametrize("model", ["p808", "p835"])
def test_bfloat16_moves_scores_little(model: Any, p808: DNSMOSReward, p835: DNSMOSReward) -> None:
    exact = {"p808": p808, "p835": p835}[model]
    half = DNSMOSReward(DNSMOSOptions(model=model, precision="bfloat16"))
    waves = synthetic()
    samples = to_samples([waves["syllables, 2.5 s"], waves["noisy syllables"]], RATE)
    check_half_precision(exact, half, samples, 0.03)
