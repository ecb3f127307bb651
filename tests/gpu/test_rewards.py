"""Every reward on the device: it scores as on the CPU, says so there, and its gradient comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_plugins import small
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from rlzoo.api import Media, Prompt, Reward, Samples, Scores
from rlzoo.audio import resample_samples, valid_mask, write_audio
from rlzoo.config.registry import discover, import_target
from rlzoo.plugin import Options
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.rewards import voice_like

REGISTRY = discover()
REWARDS = sorted(REGISTRY.names("reward"))
RATE = 16_000
WAVES = [voice_like(seconds, RATE, seed) for seed, seconds in enumerate((0.7, 1.2))]
VARIANTS: dict[str, list[dict[str, Any]]] = {"dnsmos": [{"precision": "bfloat16"}]}
SLOW = ("process", "wer")
"""A second interpreter, and the recogniser that `cer` has too."""
ELSEWHERE = {"http": "it sends the same bytes as `process`, to a service that is not ours"}


CASES = [
    pytest.param(name, more, marks=pytest.mark.slow if more or name in SLOW else ())
    for name in REWARDS
    for more in ({}, *VARIANTS.get(name, []))
]


@pytest.mark.parametrize(("name", "more"), CASES, ids=lambda value: value if isinstance(value, str) else str(value))
def test_every_reward_scores_there_as_here(
    name: str, more: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    spec = REGISTRY.reward(name)
    options = small(spec, tmp_path, monkeypatch, **more)
    audio = str(write_audio(tmp_path / "a.wav", WAVES[0], RATE))
    prompts = [Prompt("a", "hello there", {"audio": audio}), Prompt("b", "it is late", {"audio": audio})]
    needs_gradient = "reward-grad" in spec.offers

    def scored(device: str) -> tuple[dict[str, Tensor], Tensor | None]:
        reward: Reward[Any] = import_target(spec.target, name, spec.extra)(options).to(device)
        data = pad_sequence(WAVES, batch_first=True).to(device).requires_grad_(needs_gradient)
        lengths = torch.tensor([len(wave) for wave in WAVES], device=device)
        samples = resample_samples(Samples(data, lengths, Media("audio", RATE)), reward.sample_rate)
        with torch.set_grad_enabled(needs_gradient):
            scores = reward.score(samples, prompts)
        if needs_gradient:
            scores.values.sum().backward()
            assert data.grad is not None
        found = {"values": scores.values, **scores.parts}
        return {name: values.detach().cpu() for name, values in found.items()}, data.grad

    here, gradient_here = scored("cpu")
    with FakeCuda():
        there, gradient_there = scored("cuda")
        gradient = None if gradient_there is None else gradient_there.cpu()
    tolerance = 0.05 if more.get("precision") == "bfloat16" else 1e-3
    for part, values in here.items():
        torch.testing.assert_close(there[part], values, rtol=tolerance, atol=tolerance, msg=part)
    if gradient_here is not None and gradient is not None and tolerance < 0.01:
        assert (gradient - gradient_here).norm() < 0.01 * gradient_here.norm()


class Planted(Reward[Options]):
    """The mean of a waveform, with a mistake in `score` or `to`."""

    def __init__(self, mistake: str) -> None:
        super().__init__(Options())
        self.mistake = mistake
        self.weight = torch.ones(())[None]
        torch.manual_seed(0)
        self.lstm = nn.LSTM(10, 4, batch_first=True).eval().requires_grad_(False)

    def to(self, device: torch.device | str) -> Planted:
        self.lstm.to(device)
        if self.mistake != "a tensor that does not move":
            self.weight = self.weight.to(device)
        return self

    def score(self, samples: Samples, prompts: object) -> Scores:
        data, lengths, mistake = samples.data, samples.lengths, self.mistake
        if mistake == "lengths of the CPU":
            lengths = torch.tensor(lengths.tolist())
        frames = data[:, : data.shape[1] // 10 * 10].unflatten(1, (-1, 10))
        if mistake == "packed lengths":
            packed = pack_padded_sequence(frames, lengths // 10, batch_first=True, enforce_sorted=False)
            return Scores(self.lstm(packed)[1][0][0].sum(1))
        if mistake == "a recurrent layer in eval mode":
            return Scores(self.lstm(frames)[0].sum((1, 2)))
        if mistake == "an array":
            return Scores(torch.from_numpy(data.detach().numpy().mean(1)))
        if mistake == "a window of the CPU":
            data = data * torch.hann_window(data.shape[1])
        return Scores((data * valid_mask(lengths, data.shape[1])).mean(1) * self.weight)


@pytest.mark.parametrize(
    "mistake",
    [
        "lengths of the CPU",
        "a tensor that does not move",
        "packed lengths",
        "a recurrent layer in eval mode",
        "an array",
        "a window of the CPU",
    ],
)
def test_planted_bugs_of_rewards_are_caught(mistake: str, gpu: FakeCuda) -> None:
    def work(mistake: str, device: str) -> None:
        data = pad_sequence(WAVES, batch_first=True).to(device).requires_grad_()
        lengths = torch.tensor([len(wave) for wave in WAVES], device=device)
        scores = Planted(mistake).to(device).score(Samples(data, lengths, Media("audio", RATE)), [])
        if scores.values.requires_grad:
            scores.values.sum().backward()

    work(mistake, "cpu")
    work("", "cuda")
    with pytest.raises((RuntimeError, TypeError), match=r"device|numpy|lengths|training mode"):
        work(mistake, "cuda")
