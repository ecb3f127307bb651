"""Commands on the device, from end to end: speaking, judging, pretraining with judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import rlzoo_gradtts.pretrain
import rlzoo_wavegrad2.pretrain
import torch
from rlzoo_gradtts import PretrainOptions as GradTTSPretrain
from rlzoo_wavegrad2 import PretrainOptions as WaveGrad2Pretrain
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig
from torch import Tensor
from typer.testing import CliRunner

from rlzoo.api import Batch
from rlzoo.cli import app
from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine.gpu_check import Line, check
from rlzoo.engine.loop import train
from rlzoo.plugin import PolicySpec
from rlzoo.testing import toys
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.specs import TOY_GAUSSIAN, ToyPolicyOptions
from rlzoo.testing.toy_runs import start
from rlzoo.testing.toys import GaussianToy

SPEAKING = [
    pytest.param(name, marks=() if name == "gradtts" else pytest.mark.slow)
    for name, spec in discover().specs["policy"].items()
    if spec.emits == "audio"
]


def rlzoo(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("policy", SPEAKING)
def test_a_voice_is_trained_resumed_heard_and_evaluated(
    policy: str, gpu: FakeCuda, speech: Callable[..., ResolvedRun], tmp_path: Path
) -> None:
    """Self-checks, scores in a thread, evaluation, checkpoint, resume; then what comes out of a run."""
    tables = {"train": {"kl_every": 1}, "rollout": {"score_ahead": True}}
    folder = start(run := speech(policy, "ddpo", **tables), tmp_path / "run")
    train(run, folder)
    tables["train"]["steps"] = 2
    assert train(speech(policy, "ddpo", **tables), folder, resume=True).steps == 2
    out = tmp_path / "yes.wav"
    rlzoo("synth", "--text", "Yes.", "--checkpoint", folder.path, "--num-steps", 2, "--device", "cuda", "--out", out)
    assert out.stat().st_size > 1000
    assert "guard" in rlzoo("eval", folder.path, "--count", 1, "--device", "cuda", "--judges", "guard")


class Quick(ToyPolicyOptions):
    pretrain_steps: int = 30


class AnotherStep(GaussianToy):
    """Predicts something else on a GPU."""

    def forward(self, x_t: Tensor, t: Tensor, cond: Batch) -> Tensor:
        return super().forward(x_t, t, cond) + (0.1 if x_t.is_cuda else 0.0)


def pages(policy: PolicySpec) -> dict[str, Line]:
    """What `rlzoo doctor --gpu` finds where this is the only policy of one's own."""
    registry = discover()
    registry.specs["policy"] = {policy.name: policy, "f5tts": registry.policy("f5tts")}
    registry.specs["reward"] = {name: registry.reward(name) for name in ("guard", "utmos", "process")}
    return {line.what: line for line in check(registry, torch.device("cuda"), timed=False)}


def test_doctor_tries_what_is_at_hand(gpu: FakeCuda) -> None:
    found = pages(replace(TOY_GAUSSIAN, options=Quick))
    assert {what for what, line in found.items() if line.ok} == {
        "toy-gaussian: first ratio", "toy-gaussian: a step as on the CPU", "guard: scores as on the CPU",
    }  # fmt: skip
    assert not any(line.ok is False for line in found.values())
    for name, reason in {"f5tts": "weights", "utmos": "weights", "process": "needs the options command"}.items():
        assert reason in found[name].found


def test_doctor_names_what_differs(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "GaussianToy", AnotherStep)
    found = pages(replace(TOY_GAUSSIAN, options=Quick))
    assert [what for what, line in found.items() if line.ok is False] == ["toy-gaussian: a step as on the CPU"]


FAST = {
    "device": "cuda",
    "text_style": "cmu",
    "utterances_per_step": 2,
    "window_frames": 12,
    "warmup_steps": 1,
    "log_every": 1,
    "validation_utterances": 1,
    "validation_steps": (2,),
    "judges": {"guard": {}},
}
TINY = NetworkConfig(
    sample_rate=8000, encoder_channels=16, speaker_channels=4, predictor_channels=8, down_channels=(8, 16),
    up_channels=(24, 16, 8), factors=(10, 8), dilations=((1, 2, 4, 8),) * 2,
)  # fmt: skip


@pytest.mark.slow
def test_gradtts_is_pretrained_and_judged(gpu: FakeCuda, corpus_of: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("pyworld", reason="pyworld (extra `corpus`) is not installed")
    options = GradTTSPretrain(**FAST, channels=16, style_numbers=4, mean_steps=1, steps=2, validate_every=2)
    rlzoo_gradtts.pretrain.pretrain(corpus_of("gradtts"), tmp_path / "run", options)
    more = options.model_copy(update={"steps": 3})
    assert rlzoo_gradtts.pretrain.pretrain(corpus_of("gradtts"), tmp_path / "run", more, resume=True).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed"])
def test_wavegrad2_is_pretrained_and_judged(
    precision: str,
    gpu: FakeCuda,
    corpus_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    options = WaveGrad2Pretrain(
        **FAST, preset="tiny", windows_per_utterance=2, precision=precision, compile=False, steps=2, validate_every=2
    )
    rlzoo_wavegrad2.pretrain.pretrain(corpus_of("wavegrad2"), tmp_path / "run", options)
    more = options.model_copy(update={"steps": 3})
    assert rlzoo_wavegrad2.pretrain.pretrain(corpus_of("wavegrad2"), tmp_path / "run", more, resume=True).is_file()
