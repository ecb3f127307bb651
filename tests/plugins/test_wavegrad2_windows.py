"""Windows of an utterance: to the last sample what the whole says there, at its edges too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rlzoo_wavegrad2 import WaveGrad2Options, windows
from rlzoo_wavegrad2.checkpoint import VOICES
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig, WaveGrad2Network
from rlzoo_wavegrad2.policy import WaveGrad2Policy
from torch import Tensor

from rlzoo.api import Batch, Gaussian, Prompt
from rlzoo.functional import masked_mean


def narrow(config: NetworkConfig) -> NetworkConfig:
    """The same network, so the same reaches, in few channels."""
    blocks = len(config.factors)
    sizes = {"encoder_channels": 12, "speaker_channels": 4, "predictor_channels": 8}
    channels = {"down_channels": (4,) * blocks, "up_channels": (6,) * (blocks + 1)}
    return NetworkConfig.model_validate({**config.model_dump(), **sizes, **channels})


ROUNDING = {
    "mini": 5e-5,
    "base": 1e-4,
    "large": 5e-3,
}  # of one sample in float32; untrained, large has large activations
NARROW = {name: narrow(config) for name, config in PRESETS.items()}


def policy_of(config: NetworkConfig, folder: Path) -> WaveGrad2Policy:
    torch.manual_seed(0)
    path = folder / "narrow.safetensors"
    VOICES.save(path, WaveGrad2Network(config).state_dict(), {"network": config.model_dump(), "text": "flite"})
    return WaveGrad2Policy(WaveGrad2Options(checkpoint=path, num_steps=4))


def batch(policy: WaveGrad2Policy, frames: list[int], dtype: torch.dtype) -> Batch:
    hidden = torch.randn(len(frames), policy.config.hidden_channels, max(frames), dtype=dtype)
    return Batch({"frames": torch.tensor(frames), "hidden": hidden})


def log_probs(step: Gaussian, x: Tensor) -> Tensor:
    """Per sample."""
    std = step.std[:, None]
    return -0.5 * ((x - step.mean) / std) ** 2 - std.log()


@pytest.mark.parametrize("name", ["mini", "base", "large"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_sample_of_a_window_has_the_log_probability_it_has_in_the_whole(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    policy = policy_of(NARROW[name], tmp_path).to(dtype)
    # `predict` rounds to float32 where the network computed in float64.
    policy.predict = lambda x, t, cond: policy(x, t, cond)  # type: ignore[method-assign]
    cond, hop, schedule = batch(policy, [40, 33, 5], dtype), policy.config.hop, policy.schedule()
    x = torch.randn(3, 40 * hop, dtype=dtype)
    # The beginning and its neighbour, the middle, the end, all of a short row.
    for first, count in (([0, 1, 0], [4, 3, 5]), ([18, 28, 2], [3, 5, 1]), ([37, 12, 0], [3, 9, 1])):
        part, place = policy.crop(cond, torch.tensor(first), torch.tensor(count))
        for k in range(len(schedule) - 1):
            at = torch.full((3,), k)
            with torch.no_grad():
                whole = policy.transition(x, at, cond, schedule)
                after = whole.rsample(torch.randn_like(x))
                mine = policy.transition(place.cut(x), at, part, schedule)
            mask = policy.mask(part)
            assert mask is not None
            assert mask.sum(1).tolist() == [c * hop for c in count]
            gap = (log_probs(mine, place.cut(after)) - place.cut(log_probs(whole, after)))[mask].abs().max()
            # In float32 convolutions of another length round otherwise, and a small std magnifies that in one sample.
            assert gap < (ROUNDING[name] if dtype == torch.float32 else 1e-11)
            expected = masked_mean(place.cut(log_probs(whole, after)), mask) - 0.9189385
            torch.testing.assert_close(mine.log_prob(place.cut(after)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "frames"), [("base", 6), ("large", 12), ("mini", 7), ("mini-16k", 7)])
def test_the_halo_is_as_wide_as_the_network_sees_and_no_wider(name: str, frames: int) -> None:
    config = NARROW[name]
    assert windows.halo(config) == frames
    torch.manual_seed(0)
    decoder = WaveGrad2Network(config).decoder.double()
    T, middle = 2 * frames + 3, frames + 1
    y = torch.randn(1, T * config.hop, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(1, config.hidden_channels, T, dtype=torch.float64, requires_grad=True)
    out = decoder(y, hidden, torch.tensor([0.5], dtype=torch.float64))
    seen_y, seen_hidden = torch.autograd.grad(
        out[0, middle * config.hop : (middle + 1) * config.hop].sum(), (y, hidden)
    )
    reached = [int(i) // config.hop for i in seen_y[0].nonzero()[:, 0]] + seen_hidden[0].nonzero()[:, 1].tolist()
    assert middle - frames <= min(reached)
    assert max(reached) <= middle + frames
    # The large network's bound counts each rate's worst case by itself and is a frame or two too careful.
    assert max(middle - min(reached), max(reached) - middle) >= frames - (2 if config.large else 0)


def test_gradients_and_losses_of_windows_average_to_those_of_the_whole(tmp_path: Path) -> None:
    policy = policy_of(NARROW["mini"], tmp_path)
    cond, hop = batch(policy, [24], torch.float32), policy.config.hop
    x, noise, t = torch.randn(1, 24 * hop).clamp(-1, 1), torch.randn(1, 24 * hop), torch.tensor([0.6])
    parameters = [p for p in policy.parameters() if p.requires_grad]
    whole = torch.autograd.grad(policy.denoising_loss(x, cond, t, noise).sum(), parameters)
    added = [torch.zeros_like(p) for p in parameters]
    for first in range(0, 24, 6):
        part, place = policy.crop(cond, torch.tensor([first]), torch.tensor([6]))
        loss = policy.denoising_loss(place.cut(x), part, t, place.cut(noise)).sum() / 4
        for total, gradient in zip(added, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
    for total, gradient in zip(added, whole, strict=True):
        torch.testing.assert_close(total, gradient, atol=1e-5, rtol=1e-4)


def test_windows_of_a_voice_whose_text_encoder_is_trained(tmp_path: Path) -> None:
    policy_of(NARROW["mini"], tmp_path)
    path = tmp_path / "narrow.safetensors"
    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=path, num_steps=4, trainable="all"))
    with torch.no_grad():
        policy.network.resampling.duration_predictor.fc[0].weight.fill_(0.02)
        cond = policy.condition([Prompt("a", "Open the door, it is late and raining.")])
    cond.get("durations").fill_(2.0)
    with torch.no_grad():
        encoded = policy.network.encode(cond.get("ids"), cond.get("phones"))
        hidden = policy.network.resampling(encoded, cond.get("durations"), cond.get("phones")).transpose(1, 2)
        hidden = hidden.transpose(1, 2)
    cond = Batch({**cond.tensors, "hidden": hidden, "frames": torch.tensor([hidden.shape[2]])})
    x, at, schedule = torch.randn(1, *policy.state_shape(cond)), torch.tensor([1]), policy.schedule()
    part, place = policy.crop(cond, torch.tensor([10]), torch.tensor([5]))
    step, mask = policy.transition(place.cut(x), at, part, schedule), policy.mask(part)
    gap = (step.mean - place.cut(policy.transition(x, at, cond, schedule).mean))[mask].abs().max()
    assert gap < 1e-5
    encoder = [p for p in policy.network.encoder.parameters() if p.requires_grad]
    assert any(g.any() for g in torch.autograd.grad(step.log_prob(place.cut(x)).sum(), encoder))
