"""Low-rank adapters by peft: the voice itself at first, the published sum after, and a run that stops and goes on."""

from __future__ import annotations

import copy
import math
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from rlzoo_gradtts import GradTTSOptions
from rlzoo_gradtts.network import GradTTSNetwork, NetworkConfig
from rlzoo_gradtts.policy import VOICES, GradTTSPolicy
from speaking import moved
from torch import Tensor, nn
from typer.testing import CliRunner

from rlzoo.api import Batch, Prompt
from rlzoo.cli import app
from rlzoo.config.layers import user_layer
from rlzoo.config.resolve import resolve
from rlzoo.engine.checkpoint import load_policy
from rlzoo.engine.events import StepDone
from rlzoo.engine.loop import train
from rlzoo.errors import ConfigError, Interrupted, PluginError
from rlzoo.functional import frozen_copy
from rlzoo.testing.toy_runs import start

TINY = NetworkConfig(
    sample_rate=8000, fft=256, hop=80, bands=24, channels=16, encoder_layers=2, decoder_dilations=(1, 2),
    denoiser_dilations=(1, 4), style=5, style_hidden=8,
)  # fmt: skip
PROMPTS = [Prompt("a", "Open the door."), Prompt("b", "It is late and the rain has not stopped.")]
ENDS = (".lora_A.default.weight", ".lora_B.default.weight")


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = GradTTSNetwork(TINY)
    with torch.no_grad():
        nn.init.normal_(network.denoiser.output[-1].weight, std=0.1)
        network.durations[-1].bias.fill_(math.log(6.5))
        network.average.fill_(-3.0)
    path = tmp_path_factory.mktemp("voice") / "tiny.safetensors"
    VOICES.save(path, network.state_dict(), {"network": TINY.model_dump(), "text": "flite"})
    return path


def make(voice: Path, **options: object) -> GradTTSPolicy:
    pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    return GradTTSPolicy(GradTTSOptions.model_validate({"checkpoint": voice, "trainable": "lora", **options}))


def bare(voice: Path) -> GradTTSPolicy:
    return GradTTSPolicy(GradTTSOptions(checkpoint=voice))


def inputs(policy: GradTTSPolicy) -> tuple[Tensor, Tensor, Batch]:
    cond = policy.condition(PROMPTS)
    x = torch.randn(2, *policy.state_shape(cond), generator=torch.Generator().manual_seed(1))
    return x * policy.mask(cond), torch.tensor([0.4, 0.9]), cond


def test_adapters_alone_are_trained_and_start_as_the_voice(voice: Path) -> None:
    policy, plain = make(voice, lora_rank=3), bare(voice)
    x = inputs(policy)
    with torch.no_grad():
        assert torch.equal(policy(*x), plain(*x))
    convolutions = [m.weight.shape for m in plain.network.denoiser.modules() if isinstance(m, nn.Conv1d)]
    numbers = {name: p.numel() for name, p in policy.named_parameters() if p.requires_grad}
    assert all(name.startswith("network.denoiser.") and name.endswith(ENDS) for name in numbers)
    assert len(numbers) == 2 * len(convolutions) == 2 * (3 + 3 * len(TINY.denoiser_dilations))
    assert sum(numbers.values()) == sum(3 * (into * taps + out) for out, into, taps in convolutions)
    assert not any(module.training for module in policy.modules())


def test_the_gradients_of_chain_and_waveform_reach_the_adapters_alone(voice: Path) -> None:
    """A moves from the second step on: at first B is zero and hides it."""
    policy = make(voice)
    schedule, k = policy.schedule(4), torch.tensor([1, 2])
    x, _, cond = inputs(policy)
    for ends in (ENDS[1:], ENDS):
        policy.zero_grad()
        step = policy.transition(x, k, cond, schedule)
        (step.log_prob(x)[0] + policy.decode(step.mode, cond).data[1].square().sum()).backward()
        for name, p in policy.named_parameters():
            assert (p.grad is not None) == p.requires_grad == name.endswith(ENDS), name
            if p.grad is not None:
                assert bool(p.grad.any()) == name.endswith(ends), name
        moved(policy)


def test_the_weights_are_those_of_the_paper(voice: Path) -> None:
    """In every convolution, the dilated ones too."""
    policy, plain = moved(make(voice, lora_rank=3, lora_alpha=7.5)), bare(voice)
    merged = {name.replace(".base_layer", ""): value for name, value in policy.state_dict().items()}
    adapters = {name: merged.pop(name) for name in list(merged) if name.endswith(ENDS)}
    assert merged.keys() == plain.state_dict().keys()
    for layer in {name.removesuffix(ENDS[0]) for name in adapters if name.endswith(ENDS[0])}:
        A, B = (adapters[layer + end].flatten(1) for end in ENDS)
        weight = merged[f"{layer}.weight"]
        merged[f"{layer}.weight"] = weight + 7.5 / 3 * (B @ A).view_as(weight)
    x = inputs(policy)
    with torch.no_grad():
        assert not torch.allclose(policy(*x), plain(*x), atol=1e-2)
        plain.load_state_dict(merged)
        torch.testing.assert_close(policy(*x), plain(*x), rtol=1e-4, atol=1e-5)


def test_the_draw_is_the_same_each_time_and_takes_nothing_of_what_others_draw(voice: Path) -> None:
    torch.manual_seed(3)
    bare(voice)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = make(voice)
    assert torch.equal(torch.rand(3), expected)
    for (name, one), other in zip(first.state_dict().items(), make(voice).state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_reference_copy_and_checkpoint_carry_the_adapters(voice: Path) -> None:
    policy = make(voice)
    x, reference = inputs(policy), frozen_copy(policy)
    moved(policy)
    fresh, twin = make(voice), copy.deepcopy(policy)
    fresh.load_state_dict(policy.state_dict())
    with torch.no_grad():
        assert torch.equal(reference(*x), bare(voice)(*x))
        assert not torch.equal(reference(*x), policy(*x))
        assert torch.equal(fresh(*x), policy(*x))
        moved(twin)
        assert not torch.equal(twin(*x), policy(*x))
        assert torch.equal(fresh(*x), policy(*x))


def test_a_row_does_not_depend_on_its_batch_mates(voice: Path) -> None:
    policy = moved(make(voice))
    x, sigma, cond = inputs(policy)
    alone = policy.condition(PROMPTS[:1])
    size = policy.state_shape(alone)[1]
    assert size < x.shape[2]
    with torch.no_grad():
        assert torch.equal(policy(x, sigma, cond)[:1, :, :size], policy(x[:1, :, :size], sigma[:1], alone))


def test_layers_are_chosen_by_name_and_a_wrong_choice_is_named(voice: Path) -> None:
    policy = make(voice, lora_layers=r"^output\.0$")
    names = [n for n, p in policy.network.denoiser.named_parameters() if p.requires_grad]
    assert names == ["output.0" + end for end in ENDS]
    with pytest.raises(ConfigError, match="matches none of the denoiser's 9 convolutions") as error:
        make(voice, lora_layers="level")
    assert error.value.hint == "their names are like 'input' and 'output.2'"
    with pytest.raises(ConfigError, match="not a regular expression"):
        make(voice, lora_layers="(")


def test_without_peft_it_says_what_to_install(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    bare(voice)
    with pytest.raises(PluginError, match="needs the package 'peft'") as error:
        GradTTSPolicy(GradTTSOptions(checkpoint=voice, trainable="lora"))
    assert error.value.hint == "pip install 'rlzoo-speech[lora]'"


def test_a_run_stops_goes_on_speaks_and_is_judged(voice: Path, tmp_path: Path) -> None:
    make(voice)  # skips where there is no peft
    small = ["rollout.prompts_per_step=2", "rollout.samples_per_prompt=2", "rollout.num_steps=2", "eval.prompts=1"]
    chosen = [f"policy.checkpoint={voice}", "policy.trainable=lora", "train.steps=3", "train.eval_every=0"]
    run = resolve(user_layer(algorithm="dlpo", rewards=["dnsmos"], device="cpu"), overrides=[*small, *chosen])
    whole, parts = (start(run, tmp_path / name) for name in ("whole", "parts"))
    train(run, whole)

    def interrupt(event: object) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(run, parts, observer=interrupt)
    train(run, parts, resume=True)
    weights = "checkpoints/000003/policy.safetensors"
    assert (whole / weights).read_bytes() == (parts / weights).read_bytes()

    x = inputs(make(voice))
    with torch.no_grad():
        assert torch.equal(load_policy(parts.path, start=True)(*x), bare(voice)(*x))
        assert not torch.equal(load_policy(parts.path)(*x), bare(voice)(*x))
    wave, folder = str(tmp_path / "x.wav"), str(parts.path)
    for command in (
        ["synth", "--text", "Hello.", "--checkpoint", folder, "--out", wave],
        ["eval", folder, "--count", "1"],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
