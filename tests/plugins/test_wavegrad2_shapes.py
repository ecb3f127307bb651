"""The network has the public model's parameters, by name and shape, and its layers' output shapes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network
from rlzoo_wavegrad2.network.encoder import gaussian_upsampling
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

DESIGN = Path(__file__).parents[3] / "shared" / "design"
PHONES, FRAMES = 35, 220


def listing(name: str) -> list[str]:
    path = DESIGN / name
    if not path.exists():
        pytest.skip(f"no listing of the public model at {path}")
    return path.read_text().splitlines()


def meta(preset: str) -> WaveGrad2Network:
    # No memory, no initialisation: shapes only.
    with torch.device("meta"):
        return WaveGrad2Network(PRESETS[preset], init=False)


@pytest.mark.parametrize(("preset", "tensors", "parameters"), [("base", 183, 44_079_009), ("large", 265, 55_788_961)])
def test_parameter_counts_are_the_published_ones(preset: str, tensors: int, parameters: int) -> None:
    network = meta(preset)
    assert len(network.state_dict()) == tensors
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_parts_of_the_base_model_have_the_published_sizes() -> None:
    network = meta("base")

    def count(part: nn.Module) -> int:
        return sum(p.numel() for p in part.parameters())

    assert count(network.encoder) == 5_591_040
    assert count(network.resampling.duration_predictor) == 10_765_312
    assert count(network.resampling.range_parameter_predictor) == 10_769_408
    assert [count(block) for block in network.decoder.ublocks] == [3_934_720, 3_410_432, 1_115_392, 279_168, 213_632]
    assert [count(block) for block in network.decoder.dblocks] == [115_200, 164_352, 525_312, 2_099_200]
    assert [count(film) for film in network.decoder.films] == [27_936, 147_840, 246_400, 984_320, 2_360_832]


@pytest.mark.parametrize(("preset", "name"), [("base", "wavegrad2_keys.txt"), ("large", "wavegrad2_keys_large.txt")])
def test_keys_shapes_and_types_equal_the_listing(preset: str, name: str) -> None:
    expected = {}
    for line in listing(name):
        if not line.startswith("#"):
            key, shape, dtype = line.split("\t")
            expected[key] = (ast.literal_eval(shape), dtype)
    found = meta(preset).state_dict()
    assert {key: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for key, v in found.items()} == expected


def published_outputs() -> dict[str, tuple[tuple[int, ...], ...]]:
    """Module name -> the shapes of what it returns, from the listing."""
    outputs = {}
    for line in listing("wavegrad2_shapes.txt"):
        name = line.split(" ")[0]
        if name.startswith(("encoder.", "speaker_embedding", "resampling.", "decoder.")):
            shapes = ast.literal_eval(line[line.index("] ") + 2 :])
            outputs[name] = (shapes,) if isinstance(shapes, tuple) else tuple(s for s in shapes if isinstance(s, tuple))
    assert len(outputs) == 43
    return outputs


def record(network: nn.Module, seen: dict[str, tuple[tuple[int, ...], ...]]) -> None:
    for name, module in network.named_modules():

        def hook(_: nn.Module, __: object, output: object, name: str = name) -> None:
            parts = output if isinstance(output, tuple) and not isinstance(output, PackedSequence) else (output,)
            seen[name] = tuple(tuple(part.shape) for part in parts if isinstance(part, Tensor))

        module.register_forward_hook(hook)


def test_the_denoisers_layers_return_the_published_shapes() -> None:
    published = published_outputs()
    network, seen = meta("base"), {}
    record(network, seen)
    hidden = torch.empty(1, network.config.hidden_channels, FRAMES, device="meta")
    noisy, level = torch.empty(1, FRAMES * 300, device="meta"), torch.empty(1, device="meta")
    assert network.decoder(noisy, hidden, level).shape == (1, 66000)
    compared = 0
    for name, shapes in published.items():
        if name.startswith("decoder.films") and name.endswith("positional_encoding"):
            film = network.get_submodule(name.removesuffix(".positional_encoding"))
            assert film.embedding(level).shape == shapes[0]  # type: ignore[operator]
        elif name.startswith("decoder."):
            # A published convolution sits one level below the module that calls it here.
            assert seen[name.removesuffix(".conv1d")] == shapes, name
        else:
            continue
        compared += 1
    assert compared == 22


def test_the_text_sides_layers_return_the_published_shapes() -> None:
    published = published_outputs()
    network = meta("base")
    # Recurrent layers do not run without memory; the denoiser stays without.
    for part in ("encoder", "speaker_embedding", "resampling"):
        getattr(network, part).to_empty(device="cpu")
    for parameter in (p for p in network.parameters() if not p.is_meta):
        nn.init.normal_(parameter, std=0.01)
    for norm in (m for m in network.encoder.modules() if isinstance(m, nn.BatchNorm1d)):
        norm.reset_running_stats()
    seen: dict[str, tuple[tuple[int, ...], ...]] = {}
    record(network.eval(), seen)
    lengths = torch.tensor([PHONES])
    durations = torch.full((1, PHONES), 6.0)
    durations[0, :10] = 7.0
    with torch.no_grad():
        encoded = network.encode(torch.randint(64, 151, (1, PHONES)), lengths)
        seconds = network.resampling.seconds(encoded, lengths)
        hidden = network.resampling(encoded, durations, lengths)
    assert seen["encoder.embedding"] == published["encoder.embedding"]
    assert seen["speaker_embedding"] == published["speaker_embedding"]
    for layer in range(3):
        # The published layers work channels first.
        batch, channels, size = published[f"encoder.cnn.{layer}.0"][0]
        assert seen[f"encoder.cnn.{layer}.0"] in (((batch, channels, size),), ((batch, size, channels),))
    assert network.encoder(torch.zeros(1, PHONES, dtype=torch.long), lengths).shape == published["encoder.lstm"][0]
    assert (*encoded.shape[:2], encoded.shape[2]) == (1, PHONES, 576)
    assert seen["resampling.duration_predictor.fc.0"] == published["resampling.duration_predictor.fc.0"]
    assert seen["resampling.range_parameter_predictor.fc.0"] == published["resampling.range_parameter_predictor.fc.0"]
    assert seconds.shape == (1, PHONES)
    # Ours is channels first, ready for the denoiser.
    batch, frames, channels = published["resampling.gaussian_upsampling"][0]
    assert hidden.shape == (batch, channels, frames)
    assert gaussian_upsampling(encoded, durations, torch.ones(1, PHONES), lengths).shape == hidden.shape
