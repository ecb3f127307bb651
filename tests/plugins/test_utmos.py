"""UTMOS: the published keys, both layouts, ragged batches, gradients. Weights are random: the real ones are 411 MB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rlzoo_utmos import STRONG, UTMOSOptions
from rlzoo_utmos.checkpoint import load, renamed
from rlzoo_utmos.network import StrongLearner
from rlzoo_utmos.reward import UTMOSReward
from speaking import check_half_precision
from torch import Tensor
from torch.nn import functional as F

from rlzoo.api import Samples
from rlzoo.assets import at_hand
from rlzoo.audio import to_samples
from rlzoo.errors import DataError
from rlzoo.wav2vec2 import padded

RATE = 16_000
KEYS = Path(__file__).parents[2] / "../shared/design/utmos_keys.txt"


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The 225 tensors of the published file, written out here so that the test needs no other file."""
    shapes: dict[str, tuple[int, ...]] = {"domain_emb": (1, 128), "judge_emb": (1, 128), "wav2vec2.mask_emb": (768,)}
    convs = "wav2vec2.feature_extractor.conv_layers"
    for index, (inputs, kernel) in enumerate(zip((1, *[512] * 6), (10, 3, 3, 3, 3, 2, 2), strict=True)):
        shapes[f"{convs}.{index}.0.weight"] = (512, inputs, kernel)
    shapes |= {f"{convs}.0.2.weight": (512,), f"{convs}.0.2.bias": (512,)}

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    def linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

    position = "wav2vec2.encoder.pos_conv.0"
    shapes |= norm("wav2vec2.layer_norm", 512) | linear("wav2vec2.post_extract_proj", 768, 512)
    shapes |= {f"{position}.bias": (768,), f"{position}.weight_g": (1, 1, 128), f"{position}.weight_v": (768, 48, 128)}
    shapes |= norm("wav2vec2.encoder.layer_norm", 768)
    for index in range(12):
        layer = f"wav2vec2.encoder.layers.{index}"
        for part in ("q", "k", "v", "out"):
            shapes |= linear(f"{layer}.self_attn.{part}_proj", 768, 768)
        shapes |= linear(f"{layer}.fc1", 3072, 768) | linear(f"{layer}.fc2", 768, 3072)
        shapes |= norm(f"{layer}.self_attn_layer_norm", 768) | norm(f"{layer}.final_layer_norm", 768)
    for direction in ("l0", "l0_reverse"):
        shapes |= {f"blstm.weight_ih_{direction}": (2048, 1024), f"blstm.weight_hh_{direction}": (2048, 512)}
        shapes |= {f"blstm.bias_ih_{direction}": (2048,), f"blstm.bias_hh_{direction}": (2048,)}
    return shapes | linear("projection.0", 2048, 1024) | linear("projection.2", 1, 2048)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random, of a size at which activations stay alive through all layers."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in published_shapes().items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight") or ".0.2.weight" in name:
            values = 1 + 0.1 * values
        elif name.endswith("weight_g"):
            values = 3 + 0.1 * values
        elif len(shape) > 1 and "emb" not in name:
            values = values / torch.tensor(shape[1:]).prod().sqrt()
        else:
            values = 0.1 * values
        tensors[name] = values
    return tensors


@pytest.fixture(scope="module")
def plain(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("utmos") / "plain.pt"
    torch.save(weights, path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def reward(plain: Path) -> UTMOSReward:
    return UTMOSReward(UTMOSOptions(checkpoint=plain, level_dbfs=None))


def literal(weights: dict[str, Tensor], wave: Tensor) -> Tensor:
    """The network written down once more, one clip, no library model: (L,) -> ()."""
    w = weights

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
        return (x - mean) / (variance + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    h = wave[None, None]
    for index, stride in enumerate((5, 2, 2, 2, 2, 2, 2)):
        layer = f"wav2vec2.feature_extractor.conv_layers.{index}"
        h = F.conv1d(h, w[f"{layer}.0.weight"], stride=stride)
        if index == 0:
            mean, variance = h.mean(-1, keepdim=True), h.var(-1, keepdim=True, unbiased=False)
            h = (h - mean) / (variance + 1e-5).sqrt()
            h = h * w[f"{layer}.2.weight"][:, None] + w[f"{layer}.2.bias"][:, None]
        h = 0.5 * h * (1 + torch.erf(h / 2**0.5))
    x = linear("wav2vec2.post_extract_proj", norm("wav2vec2.layer_norm", h[0].T))

    position = "wav2vec2.encoder.pos_conv.0"
    v = w[f"{position}.weight_v"]
    kernel = w[f"{position}.weight_g"] * v / v.square().sum((0, 1), keepdim=True).sqrt()
    place = F.conv1d(x.T[None], kernel, w[f"{position}.bias"], padding=64, groups=16)[0, :, :-1]
    x = norm("wav2vec2.encoder.layer_norm", x + F.gelu(place).T)
    for index in range(12):
        layer = f"wav2vec2.encoder.layers.{index}"
        q, k, u = (linear(f"{layer}.self_attn.{n}_proj", x).view(-1, 12, 64).transpose(0, 1) for n in "qkv")
        mixed = (q @ k.transpose(1, 2) / 8).softmax(-1) @ u
        x = norm(
            f"{layer}.self_attn_layer_norm", x + linear(f"{layer}.self_attn.out_proj", mixed.transpose(0, 1).flatten(1))
        )
        x = norm(f"{layer}.final_layer_norm", x + linear(f"{layer}.fc2", F.gelu(linear(f"{layer}.fc1", x))))

    x = torch.cat([x, w["domain_emb"].expand(len(x), -1), w["judge_emb"].expand(len(x), -1)], 1)
    halves = []
    for direction, order in (("l0", range(len(x))), ("l0_reverse", range(len(x) - 1, -1, -1))):
        state, cell, outputs = torch.zeros(512), torch.zeros(512), {}
        for frame in order:
            gates = w[f"blstm.weight_ih_{direction}"] @ x[frame] + w[f"blstm.bias_ih_{direction}"]
            gates = gates + w[f"blstm.weight_hh_{direction}"] @ state + w[f"blstm.bias_hh_{direction}"]
            i, f, g, o = gates.chunk(4)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = outputs[frame] = o.sigmoid() * cell.tanh()
        halves.append(torch.stack([outputs[frame] for frame in range(len(x))]))
    score = linear("projection.2", linear("projection.0", torch.cat(halves, 1)).relu())
    return score.mean() * 2 + 3


def waves() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(size, generator=generator) for size in (9_000, 400, 12_345, 5_001)]


def test_the_list_of_tensors_is_the_published_one(weights: dict[str, Tensor]) -> None:
    assert len(weights) == 225
    assert sum(tensor.numel() for tensor in weights.values()) == 102_772_865
    if not KEYS.is_file():
        pytest.skip("../shared is not here")
    rows = [line.split("\t") for line in KEYS.read_text().splitlines() if not line.startswith("#")]
    assert {name: shape for name, shape, _ in rows} == {name: str(shape) for name, shape in published_shapes().items()}


def test_parameter_count() -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in StrongLearner().parameters()) == 102_772_097


def test_a_ragged_batch_equals_the_literal_network(weights: dict[str, Tensor], reward: UTMOSReward) -> None:
    batch = to_samples(waves(), RATE)
    padded = Samples(F.pad(batch.data, (0, 4_000)), batch.lengths, batch.media)
    with torch.no_grad():
        expected = torch.stack([literal(weights, wave) for wave in waves()])
        assert torch.allclose(reward.score(batch, []).values, expected, atol=1e-4)
        assert torch.allclose(reward.score(padded, []).values, expected, atol=1e-4)
    # The comparison means something only if clips differ by much more than its tolerance.
    assert expected.std().item() > 1e-2


def as_lightning(weights: dict[str, Tensor]) -> dict[str, object]:
    """The same tensors in the layout of the training code: tables of embeddings, other prefixes, more beside them."""
    domains, listeners = torch.randn(3, 128), torch.randn(3000, 128)
    domains[0], listeners[288] = weights["domain_emb"][0], weights["judge_emb"][0]
    state = {"feature_extractors.1.embedding.weight": domains, "output_layers.0.judge_embedding.weight": listeners}
    for name, tensor in weights.items():
        for old, new in (
            ("wav2vec2.", "feature_extractors.0.ssl_model."),
            ("blstm.", "output_layers.0.decoder_rnn."),
            ("projection.0.", "output_layers.1.net.0."),
            ("projection.2.", "output_layers.1.net.3."),
        ):
            if name.startswith(old):
                state[new + name.removeprefix(old)] = tensor
    return {"epoch": 3, "global_step": 7459, "state_dict": state, "optimizer_states": [{"state": {0: torch.ones(3)}}]}


def test_both_published_layouts_give_the_same_network(
    weights: dict[str, Tensor], reward: UTMOSReward, tmp_path: Path
) -> None:
    path = tmp_path / "epoch=3-step=7459.ckpt"
    torch.save(as_lightning(weights), path)
    found = load(path).state_dict()
    path.unlink()
    expected = reward.network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_climbing_the_gradient_raises_the_score(reward: UTMOSReward) -> None:
    samples = to_samples([waves()[0], waves()[3]], RATE)
    data = samples.data.clone().requires_grad_()
    before = reward.score(Samples(data, samples.lengths, samples.media), []).values
    before.sum().backward()
    assert data.grad is not None
    assert torch.isfinite(data.grad).all()
    assert not data.grad[1, samples.lengths[1] :].any()
    moved = samples.data + 1e-4 * data.grad.sign()
    with torch.no_grad():
        after = reward.score(Samples(moved, samples.lengths, samples.media), []).values
    assert bool((after > before).all())
    assert all(parameter.grad is None for parameter in reward.network.parameters())


def test_one_padded_batch_equals_row_by_row(reward: UTMOSReward) -> None:
    """What a GPU computes at once and a CPU row by row."""
    batch = to_samples(waves(), RATE)
    with torch.no_grad():
        together = reward.network(*padded(batch.data, batch.lengths))
        assert torch.allclose(reward.score(batch, []).values, together, atol=1e-4)


@pytest.mark.slow
def test_bfloat16_moves_scores_little(plain: Path, reward: UTMOSReward) -> None:
    half = UTMOSReward(UTMOSOptions(checkpoint=plain, level_dbfs=None, precision="bfloat16"))
    samples = to_samples(waves()[:2], RATE)
    check_half_precision(reward, half, samples, 0.05)


def test_silence_and_ten_milliseconds_have_a_score(reward: UTMOSReward) -> None:
    with torch.no_grad():
        values = reward.score(to_samples([torch.zeros(RATE), torch.zeros(160)], RATE), []).values
    assert torch.isfinite(values).all()


def test_levelled_by_default(plain: Path) -> None:
    levelled = UTMOSReward(UTMOSOptions(checkpoint=plain))
    wave = waves()[3]
    with torch.no_grad():
        values = levelled.score(to_samples([wave, 0.1 * wave], RATE), []).values
    assert values[0].item() == pytest.approx(values[1].item(), abs=1e-4)


def test_without_weights_it_refuses_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path))
    monkeypatch.setenv("RLZOO_OFFLINE", "1")
    assert not at_hand((STRONG,))
    with pytest.raises(DataError, match="not in the cache, and downloads are switched off") as error:
        UTMOSReward(UTMOSOptions())
    assert STRONG.url in error.value.hint
    absent = UTMOSOptions(checkpoint=tmp_path / "absent.pt")
    assert at_hand((STRONG,), absent.checkpoint)
    with pytest.raises(DataError, match=r"absent\.pt' does not exist"):
        UTMOSReward(absent)


def test_weights_in_the_cache_are_found(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLZOO_CACHE", str(tmp_path))
    STRONG.path.parent.mkdir(parents=True)
    os.link(plain, STRONG.path)
    assert not at_hand((STRONG,))  # not the published size
    monkeypatch.setattr("rlzoo.files.assets.cached", lambda asset: asset.path)
    UTMOSReward(UTMOSOptions())


def test_a_checkpoint_of_something_else_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    changed = {name: tensor for name, tensor in weights.items() if name.startswith(("blstm", "projection"))}
    changed["projection.2.weight"] = torch.ones(5, 2048)
    torch.save(changed, tmp_path / "a.pt")
    with pytest.raises(DataError, match="is not a strong learner: 21"):
        load(tmp_path / "a.pt")
    torch.save([1, 2], tmp_path / "b.pt")
    with pytest.raises(DataError, match="holds a list"):
        load(tmp_path / "b.pt")
    torch.save({"epoch": 1}, tmp_path / "c.pt")
    with pytest.raises(DataError, match="no table of tensors"):
        load(tmp_path / "c.pt")


def test_names_of_the_renamed_tensors_are_those_of_the_network(weights: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in StrongLearner().state_dict().items()}
    assert {name: tensor.shape for name, tensor in renamed(weights).items()} == expected
