"""Speaker similarity: published names, a literal restatement, SpeechBrain's own code, ragged batches, references."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rlzoo_similarity import ECAPA, SimilarityOptions
from rlzoo_similarity.network import ECAPA as Network
from rlzoo_similarity.network import load
from rlzoo_similarity.resemblyzer import Encoder
from rlzoo_similarity.reward import SimilarityReward
from rlzoo_similarity.spectrum import features, mel_filters
from torch import Tensor, nn
from torch.nn import functional as F

from rlzoo.api import Prompt, Samples
from rlzoo.assets import at_hand
from rlzoo.audio import resample, to_samples, write_audio
from rlzoo.errors import ConfigError, DataError
from rlzoo.testing import check_reward

RATE = 16_000


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The 231 tensors of the published file, written out: names and shapes of SpeechBrain's `embedding_model.ckpt`."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, kernel: int = 1) -> None:
        shapes[f"{name}.conv.weight"], shapes[f"{name}.conv.bias"] = (outputs, inputs, kernel), (outputs,)

    def norm(name: str, size: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.norm.{part}"] = (size,)
        shapes[f"{name}.norm.num_batches_tracked"] = ()

    def tdnn(name: str, outputs: int, inputs: int, kernel: int = 1) -> None:
        conv(f"{name}.conv", outputs, inputs, kernel)
        norm(f"{name}.norm", outputs)

    tdnn("blocks.0", 1024, 80, 5)
    for block in (1, 2, 3):
        tdnn(f"blocks.{block}.tdnn1", 1024, 1024)
        tdnn(f"blocks.{block}.tdnn2", 1024, 1024)
        for part in range(7):
            tdnn(f"blocks.{block}.res2net_block.blocks.{part}", 128, 128, 3)
        conv(f"blocks.{block}.se_block.conv1", 128, 1024)
        conv(f"blocks.{block}.se_block.conv2", 1024, 128)
    tdnn("mfa", 3072, 3072)
    tdnn("asp.tdnn", 128, 9216)
    conv("asp.conv", 3072, 128)
    norm("asp_bn", 6144)
    conv("fc", 192, 6144)
    return shapes


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random, of a size at which activations stay alive through all layers."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in published_shapes().items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("tracked"):
            values = torch.tensor(7)
        elif name.endswith(("norm.weight", "running_var")):
            values = 1 + 0.2 * values.abs()
        elif len(shape) == 3:
            values = values * (2 / math.prod(shape[1:])) ** 0.5
        else:
            values = 0.1 * values
        tensors[name] = values
    return tensors


@pytest.fixture(scope="module")
def checkpoint(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("ecapa") / "embedding_model.ckpt"
    torch.save(weights, path)
    yield path
    path.unlink()


def voice(seed: int, seconds: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(int(seconds * RATE)) / RATE
    tone = torch.stack([torch.sin(2 * math.pi * (90 + 25 * seed) * k * t) / k for k in range(1, 30)]).sum(0)
    wave = 0.05 * tone * (0.4 + 0.6 * torch.sin(2 * math.pi * 3 * t) ** 2)
    return wave + 0.003 * torch.randn(len(t), generator=generator)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_audio(tmp_path_factory.mktemp("voice") / "reference.wav", voice(1, 1.0), RATE)


@pytest.fixture(scope="module")
def reward(checkpoint: Path, reference: Path) -> SimilarityReward:
    return SimilarityReward(SimilarityOptions(checkpoint=checkpoint, reference=reference))


def waves() -> list[Tensor]:
    return [voice(1, 0.7), voice(2, 0.31), voice(3, 0.06), voice(4, 0.5)]


def literal(w: dict[str, Tensor], wave: Tensor) -> Tensor:
    """Front end and network written down once more, one clip, in the order of the paper: (L,) -> (192,)."""
    frames = []
    padded = F.pad(wave, (200, 200))
    window = torch.tensor([0.54 - 0.46 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    for start in range(0, len(wave) + 1, 160):
        frames.append(torch.fft.rfft(padded[start : start + 400] * window).abs().square())
    mel = [700 * (10 ** (i * 2595 * math.log10(1 + 8000 / 700) / 81 / 2595) - 1) for i in range(82)]
    hz = torch.arange(201) * 40.0
    bands = [(1 - (hz - mel[i + 1]).abs() / (mel[i + 1] - mel[i])).clamp(min=0) for i in range(80)]
    x = 10 * torch.log10((torch.stack(frames) @ torch.stack(bands).T).clamp(min=1e-10))
    x = torch.maximum(x, x.max() - 80)
    x = (x - x.mean(0)).T[None]

    def conv(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        kernel = w[f"{name}.conv.weight"]
        reach = dilation * (kernel.shape[2] - 1) // 2
        x = F.pad(x, (reach, reach), mode="reflect") if reach else x
        return F.conv1d(x, kernel, w[f"{name}.conv.bias"], dilation=dilation)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance, gain, shift = (
            w[f"{name}.norm.{part}"][:, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * gain + shift

    def tdnn(name: str, x: Tensor, dilation: int = 1) -> Tensor:
        return norm(f"{name}.norm", conv(f"{name}.conv", x, dilation).relu())

    x, outputs = tdnn("blocks.0", x), []
    for block in (1, 2, 3):
        name = f"blocks.{block}"
        parts = list(tdnn(f"{name}.tdnn1", x).split(128, 1))
        for index in range(1, 8):
            heard = parts[index] + parts[index - 1] if index > 1 else parts[index]
            parts[index] = tdnn(f"{name}.res2net_block.blocks.{index - 1}", heard, block + 1)
        h = tdnn(f"{name}.tdnn2", torch.cat(parts, 1))
        gate = conv(f"{name}.se_block.conv2", conv(f"{name}.se_block.conv1", h.mean(2, keepdim=True)).relu())
        x = x + h * gate.sigmoid()
        outputs.append(x)
    x = tdnn("mfa", torch.cat(outputs, 1))
    whole = [x.mean(2, keepdim=True).expand_as(x), x.std(2, correction=0, keepdim=True).expand_as(x)]
    weight = conv("asp.conv", tdnn("asp.tdnn", torch.cat([x, *whole], 1)).tanh()).softmax(2)
    mean = (weight * x).sum(2, keepdim=True)
    pooled = torch.cat([mean, (weight * (x - mean) ** 2).sum(2, keepdim=True).sqrt()], 1)
    return conv("fc", norm("asp_bn", pooled))[0, :, 0]


def test_names_shapes_and_size_are_the_published_ones() -> None:
    shapes = published_shapes()
    assert len(shapes) == 231
    with torch.device("meta"):
        network = Network()
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in network.parameters()) == 20_767_552
    # What a file of these tensors weighs, apart from names and zip headers: the published one has 83,316,686 bytes.
    floats = sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith("tracked"))
    assert 0 < ECAPA.size - 4 * floats < 200_000


def test_a_ragged_batch_equals_the_literal_network(reward: SimilarityReward, weights: dict[str, Tensor]) -> None:
    batch = to_samples(waves(), RATE)
    dirty = Samples(F.pad(batch.data, (0, 3_000), value=0.7), batch.lengths, batch.media)
    for row, wave in enumerate(waves()):
        dirty.data[row, len(wave) :] = 0.5
    with torch.no_grad():
        expected = torch.stack([literal(weights, wave) for wave in waves()])
        found = reward.embed(dirty)
        together = reward._embed(batch.data, batch.lengths)  # what a GPU computes at once and a CPU row by row
    assert torch.allclose(F.normalize(together, dim=1), F.normalize(found, dim=1), atol=1e-5)
    expected, found = F.normalize(expected, dim=1), F.normalize(found, dim=1)  # the cosine sees directions
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std(0).mean().item() > 5e-3  # clips differ by much more than the tolerance


@pytest.mark.slow
def test_equals_speechbrain(reward: SimilarityReward, weights: dict[str, Tensor]) -> None:
    pytest.importorskip("speechbrain", reason="speechbrain is a tool of the tests")
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization

    channels, kernels = [1024] * 4 + [3072], [5, 3, 3, 3, 1]
    network = ECAPA_TDNN(80, channels=channels, kernel_sizes=kernels, dilations=[1, 2, 3, 4, 1], lin_neurons=192)
    network.load_state_dict(weights)
    front, normalise = Fbank(n_mels=80), InputNormalization(norm_type="sentence", std_norm=False)
    for wave in waves():
        with torch.no_grad():
            heard = normalise(front(wave[None]), torch.ones(1))
            expected = F.normalize(network.eval()(heard)[0, 0], dim=0)
            found = F.normalize(reward.embed(to_samples([wave], RATE))[0], dim=0)
            assert torch.allclose(found, expected, atol=1e-5)
            ours, _ = features(wave[None], torch.tensor([len(wave)]), mel_filters())
            assert torch.allclose(ours.transpose(1, 2), heard, atol=1e-3)


def test_the_reference_itself_scores_one_and_gain_does_not_matter(reward: SimilarityReward, reference: Path) -> None:
    same = voice(1, 1.0)
    scores = reward.score(to_samples([same, 0.3 * same, voice(3, 1.0)], RATE), [Prompt("p")] * 3).values.tolist()
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert scores[1] == pytest.approx(1, abs=1e-3)
    assert scores[2] < 0.999


def test_references_of_prompts_at_any_rate(checkpoint: Path, reward: SimilarityReward, tmp_path: Path) -> None:
    each = SimilarityReward(SimilarityOptions(checkpoint=checkpoint))
    prompts = []
    for seed, rate in ((1, 22_050), (2, RATE)):
        path = write_audio(tmp_path / f"{seed}.wav", resample(voice(seed, 1.0), RATE, rate), rate)
        prompts.append(Prompt(str(seed), "", {"audio": str(path)}))
    batch = to_samples([voice(1, 1.0), voice(1, 1.0)], RATE)
    own, other = each.score(batch, prompts).values.tolist()
    assert own > 0.9
    assert own > other
    assert len(each.references) == 2
    with pytest.raises(ConfigError, match="'similarity' compares with a recording, and prompt 'q' has none"):
        each.score(to_samples([voice(1, 0.1)], RATE), [Prompt("q")])


@pytest.mark.slow
def test_the_contract(checkpoint: Path, reference: Path) -> None:
    made = SimilarityReward(SimilarityOptions(checkpoint=checkpoint, reference=reference))
    results = check_reward(lambda: made, offers_gradient=True)
    assert {result.outcome for result in results} == {"passed"}, [r for r in results if r.outcome != "passed"]


def test_climbing_the_gradient_raises_the_score(reward: SimilarityReward) -> None:
    samples = to_samples([voice(3, 0.4), torch.zeros(2_000)], RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), [Prompt("p")] * 2).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert not data.grad[1, samples.lengths[1] :].any()
    moved = Samples(samples.data + 1e-6 * data.grad.sign(), samples.lengths, samples.media)
    with torch.no_grad():
        after = reward.score(moved, [Prompt("p")] * 2).values
    assert after[0].item() > before[0].item()
    assert all(parameter.grad is None for parameter in reward.network.parameters())


def test_bad_input(checkpoint: Path, reference: Path, reward: SimilarityReward, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs audio at 16000 Hz"):
        reward.score(to_samples([torch.zeros(9)], 8_000), [Prompt("p")])
    with pytest.raises(DataError, match="empty clip"):
        reward.score(Samples(torch.zeros(1, 9), torch.tensor([0]), to_samples([torch.zeros(9)], RATE).media), [])
    with pytest.raises(DataError, match="does not exist"):
        SimilarityReward(SimilarityOptions(checkpoint=checkpoint, reference=tmp_path / "absent.wav"))
    assert not at_hand((ECAPA,))
    with pytest.raises(DataError, match="'ecapa-voxceleb' is not in the cache"):
        SimilarityReward(SimilarityOptions(reference=reference, encoder="ecapa"))
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load(tmp_path / "text.ckpt")
    torch.save({"fc.conv.weight": torch.ones(1)}, tmp_path / "other.ckpt")
    with pytest.raises(DataError, match="is not this ECAPA-TDNN: 231 tensors differ"):
        load(tmp_path / "other.ckpt")
    torch.save(nn.Linear(1, 1).state_dict()["weight"], tmp_path / "tensor.ckpt")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load(tmp_path / "tensor.ckpt")


# --- Resemblyzer's encoder


def speech_like(seconds: float, seed: int = 0) -> Tensor:
    """Noise that comes and goes, louder than the level that quiet clips are raised to."""
    noise = torch.randn(int(RATE * seconds), generator=torch.Generator().manual_seed(seed))
    return 0.2 * noise * torch.sin(torch.arange(len(noise)) / RATE * 6.0 + seed)


@pytest.mark.parametrize("seconds", [0.4, 1.5, 2.9, 4.1])
def test_resemblyzers_encoder_is_the_packages(seconds):
    package = pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed", exc_type=ImportError)
    from rlzoo_similarity.resemblyzer import load_resemblyzer

    wave = speech_like(seconds)
    expected = package.VoiceEncoder("cpu", verbose=False).embed_utterance(wave.numpy())
    found = load_resemblyzer()(wave[None], torch.tensor([len(wave)]))[0]
    assert float((found - torch.from_numpy(expected)).abs().max()) < 1e-5


def test_resemblyzers_windows_are_the_packages_in_number_and_level():
    """Needs no weights. 1.6 s every 0.77 s; a last one that is less than three quarters full is left out."""
    encoder = Encoder()
    counts = {seconds: len(encoder.windows(speech_like(seconds))) for seconds in (0.1, 1.0, 2.0, 2.5, 3.0, 4.0)}
    assert counts == {0.1: 1, 1.0: 1, 2.0: 2, 2.5: 2, 3.0: 3, 4.0: 4}
    wave = speech_like(1.0)
    rms = float(wave.square().mean().sqrt())
    loud = encoder.windows(wave)
    torch.testing.assert_close(encoder.windows(2 * wave), 4 * loud, rtol=1e-3, atol=1e-6)  # left as it is
    at_the_level = loud * (10 ** (-30 / 20) / rms) ** 2
    torch.testing.assert_close(encoder.windows(0.001 * wave), at_the_level, rtol=1e-3, atol=1e-6)


def test_resemblyzers_rows_are_independent_and_differentiable(tmp_path):
    pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed", exc_type=ImportError)
    reward = SimilarityReward(SimilarityOptions(reference=write_audio(tmp_path / "r.wav", speech_like(2.0, 1), RATE)))
    waves = [speech_like(1.2, 2), speech_like(2.6, 3)]
    batch = to_samples(waves, RATE)
    batch.data.requires_grad_(True)
    scores = reward.score(batch, [Prompt("a"), Prompt("b")]).values
    alone = [float(reward.score(to_samples([wave], RATE), [Prompt("a")]).values) for wave in waves]
    assert scores.tolist() == pytest.approx(alone, abs=1e-5)
    scores.sum().backward()
    assert batch.data.grad is not None
    assert bool(batch.data.grad[0, : len(waves[0])].any())
    assert not bool(batch.data.grad[0, len(waves[0]) :].any())
    quiet = to_samples([0.25 * waves[0]], RATE)
    assert reward.score(quiet, [Prompt("a")]).values.isfinite().all()


def test_a_prompts_voice_counts_before_its_own_recording(tmp_path):
    pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed", exc_type=ImportError)
    voice, own = (write_audio(tmp_path / f"{seed}.wav", speech_like(2.0, seed), RATE) for seed in (4, 5))
    reward = SimilarityReward(SimilarityOptions())
    clip = to_samples([speech_like(2.0, 4)], RATE)
    same = reward.score(clip, [Prompt("a", "", {"voice": str(voice), "audio": str(own)})]).values
    other = reward.score(clip, [Prompt("a", "", {"audio": str(own)})]).values
    assert float(same) > 0.99 > float(other)


def test_which_encoder_is_meant_follows_from_the_options_alone(tmp_path):
    assert SimilarityOptions().who == "resemblyzer"
    assert SimilarityOptions(checkpoint=tmp_path / "e.ckpt").who == SimilarityOptions(encoder="ecapa").who == "ecapa"
    with pytest.raises(ValueError, match="ECAPA-TDNN's"):
        SimilarityOptions(encoder="resemblyzer", checkpoint=tmp_path / "e.ckpt")
