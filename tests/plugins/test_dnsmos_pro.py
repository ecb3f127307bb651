"""DNSMOS Pro: equal to the published archive, the measured figures, gradients, bad input."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from rlzoo_dnsmos_pro import BVCC, DNSMOSProOptions
from rlzoo_dnsmos_pro.network import load, repeated
from rlzoo_dnsmos_pro.reward import DNSMOSProReward
from torch import Tensor, nn

from rlzoo.api import Samples
from rlzoo.assets import at_hand
from rlzoo.audio import normalise_level, read_audio, to_samples
from rlzoo.errors import DataError

RATE = 16_000
SHARED = Path(__file__).parents[2] / "../shared/data"
PUBLISHED = SHARED / "dnsmos_pro/model_best_BVCC.pt"


class Block(nn.Module):
    """Named like the published modules, so that its TorchScript archive has their layout."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, *more: nn.Module) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), *more)

        self.encoder = nn.Sequential(block(1, 32), block(32, 32, nn.MaxPool2d(3)), block(32, 64), block(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x).amax((2, 3))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        first, second = (nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(2))
        self.head = nn.Sequential(first, second, nn.Sequential(nn.Linear(64, 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class Pro(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._encoder, self._head = Block(), Head()

    def forward(self, x: Tensor) -> Tensor:
        y = self._head(self._encoder(x))
        return torch.stack([y[:, 0] * 2 + 3, nn.functional.softplus(y[:, 1]) * 4], 1)


def scripted(path: Path) -> Path:
    torch.manual_seed(0)
    model = Pro()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the published archive is one all the same
        torch.jit.script(model.eval()).save(str(path))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scripted(tmp_path_factory.mktemp("pro") / "model_best.pt")


@pytest.fixture(scope="module")
def reward(archive: Path) -> DNSMOSProReward:
    return DNSMOSProReward(DNSMOSProOptions(checkpoint=archive))


def published() -> DNSMOSProReward:
    if not PUBLISHED.is_file():
        pytest.skip("DNSMOS Pro's weights of ../shared are not here")
    return DNSMOSProReward(DNSMOSProOptions(checkpoint=PUBLISHED))


def sounds() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(11 * RATE) / RATE
    buzz = 0.2 * torch.sin(2 * torch.pi * 200 * t) * (0.5 + 0.5 * torch.sin(2 * torch.pi * 3 * t))
    # A floor of noise: without it most bins hold the rounding of the FFT, of which the logarithm makes much.
    buzz = buzz + 0.001 * torch.randn(len(buzz), generator=generator)
    return [buzz[: 2 * RATE] + 0.02 * torch.randn(2 * RATE, generator=generator), buzz, 0.1 * buzz[:9_000]]


def independent(path: Path, wave: Tensor) -> Tensor:
    """The archive run by TorchScript on librosa's spectrum. (2,)."""
    librosa = pytest.importorskip("librosa", reason="librosa is a tool of the tests")
    import numpy as np

    magnitude = np.abs(librosa.stft(wave.numpy(), n_fft=320, hop_length=160, win_length=320)).T
    picture = torch.from_numpy(np.log10(np.clip(magnitude, 1e-7, 1e7))).float()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        result: Tensor = torch.jit.load(str(path), map_location="cpu").eval()(picture[None, None])[0]
    return result


def check_equal(reward: DNSMOSProReward, path: Path) -> None:
    samples = to_samples(sounds(), RATE)
    with torch.no_grad():
        found = reward.score(samples, [])
    levelled = normalise_level(samples)
    for row in range(len(samples)):
        mean, variance = independent(path, repeated(levelled.row(row)))
        assert found.values[row].item() == pytest.approx(mean.item(), abs=1e-4)
        assert found.parts["variance"][row].item() == pytest.approx(variance.item(), abs=1e-4)


def test_equals_an_archive_of_the_same_layout(reward: DNSMOSProReward, archive: Path) -> None:
    check_equal(reward, archive)


def test_equals_the_published_archive() -> None:
    check_equal(published(), PUBLISHED)


def test_repetition() -> None:
    wave = torch.arange(70_000.0)
    assert torch.equal(repeated(wave), torch.cat([wave, wave, wave])[:160_000])
    assert repeated(torch.zeros(200_000)).shape == (200_000,)


def test_a_row_does_not_depend_on_its_batch(reward: DNSMOSProReward) -> None:
    batch = to_samples(sounds(), RATE)
    padded = Samples(nn.functional.pad(batch.data, (0, 999)), batch.lengths, batch.media)
    with torch.no_grad():
        alone = torch.cat([reward.score(to_samples([wave], RATE), []).values for wave in sounds()])
        assert torch.allclose(reward.score(padded, []).values, alone, atol=1e-5)


def test_climbing_the_gradient_raises_the_score(reward: DNSMOSProReward) -> None:
    samples = to_samples([sounds()[0], torch.zeros(9_000)], RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), []).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert data.grad[0].any()
    moved = samples.data + 1e-5 * data.grad.sign()
    with torch.no_grad():
        after = reward.score(Samples(moved, samples.lengths, samples.media), []).values
    assert after[0].item() > before[0].item()


def test_bad_input_is_refused(reward: DNSMOSProReward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="needs audio at 16000 Hz"):
        reward.score(to_samples([torch.zeros(9)], 8_000), [])
    with pytest.raises(DataError, match="empty clip"):
        reward.score(Samples(torch.zeros(1, 9), torch.tensor([0]), to_samples([torch.zeros(9)], RATE).media), [])
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="is not a DNSMOS Pro archive"):
        load(tmp_path / "other.pt")
    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("RLZOO_OFFLINE", "1")
    assert not at_hand((BVCC,))
    with pytest.raises(DataError, match="'dnsmos-pro-bvcc' is not in the cache"):
        DNSMOSProReward(DNSMOSProOptions())


def test_the_code_in_the_archive_is_not_run(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(tmp_path / "m.pt", "w") as target:
        for name in source.namelist():
            target.writestr(name, b"raise SystemExit" if "/code/" in name else source.read(name))
    load(tmp_path / "m.pt")


@pytest.mark.slow
def test_the_measured_figures_on_natural_and_noisy_speech() -> None:
    reward = published()
    assert PUBLISHED.stat().st_size == BVCC.size
    waves = [read_audio(p, RATE, on_rate="resample")[0] for p in sorted((SHARED / "ljspeech/wavs").glob("*.wav"))]
    generator = torch.Generator().manual_seed(0)

    def noisy(wave: Tensor, snr_db: float) -> Tensor:
        noise = torch.randn(wave.shape, generator=generator)
        return wave + noise * wave.square().mean().sqrt() * 10 ** (-snr_db / 20)

    rows = [waves] + [[noisy(wave, snr) for wave in waves] for snr in (20, 10, 5, 0)]
    with torch.no_grad():
        scores = torch.stack([reward.score(to_samples(row, RATE), []).values for row in rows])
    assert scores[0].mean().item() == pytest.approx(4.31, abs=0.05)
    assert (scores[:-1] > scores[1:]).float().mean().item() >= 0.95
