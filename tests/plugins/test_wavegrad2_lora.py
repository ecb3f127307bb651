"""Low-rank adapters: the voice itself at first, the published sum after, in both of the denoiser's paths."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from plain.wavegrad2 import denoise
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from speaking import moved

from rlzoo.api import Batch
from rlzoo.errors import ConfigError

SMALL = NetworkConfig.model_validate(
    {
        **PRESETS["mini"].model_dump(),
        **{"encoder_channels": 12, "speaker_channels": 4, "predictor_channels": 8},
        **{"down_channels": (4, 8, 8, 8), "up_channels": (8, 8, 8, 6, 6)},
    }
)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("voice") / "small.safetensors"
    VOICES.save(path, WaveGrad2Network(SMALL).state_dict(), {"network": SMALL.model_dump(), "text": "flite"})
    return path


def make(voice: Path, **options: object) -> WaveGrad2Policy:
    return WaveGrad2Policy(WaveGrad2Options.model_validate({"checkpoint": voice, "trainable": "lora", **options}))


def inputs() -> tuple[torch.Tensor, torch.Tensor, Batch]:
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(2, 16, 6, generator=generator)
    cond = Batch({"frames": torch.tensor([6, 4]), "hidden": hidden})
    return torch.randn(2, 6 * SMALL.hop, generator=generator), torch.tensor([0.4, 0.9]), cond


def test_adapters_alone_are_trained_and_start_as_the_voice(voice: Path) -> None:
    policy, bare = make(voice), make(voice, trainable="biases")
    x = inputs()
    with torch.no_grad():
        assert torch.equal(policy(*x), bare(*x))
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    assert names
    assert all(name.endswith((".A", ".B")) for name in names)
    convolutions = sum(isinstance(m, torch.nn.Conv1d) for m in bare.network.decoder.modules())
    assert len(names) == 2 * convolutions
    policy(*x).square().sum().backward()
    assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)
    assert any(bool(p.grad.any()) for n, p in policy.named_parameters() if n.endswith(".B") and p.grad is not None)


def test_the_weights_are_those_of_the_paper(voice: Path) -> None:
    policy = moved(make(voice, lora_rank=3, lora_alpha=6.0))
    state = policy.network.decoder.state_dict()
    merged = {name: value for name, value in state.items() if "parametrizations" not in name}
    stem = ".parametrizations.weight.original"
    for name in [name for name in state if name.endswith(stem)]:
        layer = name.removesuffix(stem)
        A, B = (state[f"{layer}.parametrizations.weight.0.{part}"] for part in "AB")
        merged[f"{layer}.weight"] = state[name] + 6.0 / 3 * (B @ A).view_as(state[name])
    x, t, cond = inputs()
    with torch.no_grad():
        ours = policy(x, t, cond)
        level = (1 - t.double() ** 2).sqrt().float()
        plain = denoise(merged, SMALL, x[:1], cond.get("hidden")[:1], level[:1])
    torch.testing.assert_close(ours[:1], plain, atol=1e-4, rtol=1e-4)


def test_a_copy_and_a_checkpoint_carry_the_adapters(voice: Path) -> None:
    policy = moved(make(voice))
    x = inputs()
    fresh = make(voice)
    fresh.load_state_dict(policy.state_dict())
    twin = copy.deepcopy(policy)
    with torch.no_grad():
        assert torch.equal(fresh(*x), policy(*x))
        assert torch.equal(twin(*x), policy(*x))
        moved(twin)
        assert not torch.equal(twin(*x), policy(*x))
        assert torch.equal(fresh(*x), policy(*x))


def test_layers_are_chosen_by_name_and_a_wrong_choice_is_named(voice: Path) -> None:
    policy = make(voice, lora_layers=r"^ublocks\.0\.")
    names = {n for n, p in policy.network.decoder.named_parameters() if p.requires_grad}
    assert names
    assert all(name.startswith("ublocks.0.") for name in names)
    with pytest.raises(ConfigError, match="matches none of the denoiser's"):
        make(voice, lora_layers="transformer")
    with pytest.raises(ConfigError, match="not a regular expression"):
        make(voice, lora_layers="(")
