"""Commands on the device, from end to end: speaking, judging, pretraining with judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import rlzoo_gradtts.pretrain
import rlzoo_wavegrad2.pretrain
from rlzoo_gradtts import PretrainOptions as GradTTSPretrain
from rlzoo_wavegrad2 import PretrainOptions as WaveGrad2Pretrain
from rlzoo_wavegrad2.network import PRESETS, NetworkConfig
from typer.testing import CliRunner

from rlzoo.cli import app
from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine.loop import train
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.toy_runs import start

pytestmark = pytest.mark.slow
SPEAKING = sorted(name for name, spec in discover().specs["policy"].items() if spec.emits == "audio")


def rlzoo(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


@pytest.mark.parametrize("policy", SPEAKING)
def test_synth(policy: str, gpu: FakeCuda, tmp_path: Path) -> None:
    out = tmp_path / "yes.wav"
    rlzoo("synth", "--text", "Yes.", "--policy", policy, "--device", "cuda", "--out", out)
    assert out.stat().st_size > 1000
    assert gpu.kernels


def test_a_run_is_evaluated(gpu: FakeCuda, speech: Callable[..., ResolvedRun], tmp_path: Path) -> None:
    """Made on the other device, with its base beside it."""
    run = speech("gradtts", "ddpo", device="cuda")
    folder = start(run, tmp_path / "run")
    train(run, folder)
    said = rlzoo("eval", folder.path, "--count", 1, "--device", "cuda", "--judges", "guard")
    assert "guard" in said


FAST = {
    "device": "cuda",
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


def test_gradtts_is_pretrained_and_judged(gpu: FakeCuda, corpus_of: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("pyworld", reason="pyworld (extra `corpus`) is not installed")
    options = GradTTSPretrain(**FAST, channels=16, text_style="cmu", steps=2, validate_every=2)
    rlzoo_gradtts.pretrain.pretrain(corpus_of("gradtts"), tmp_path / "run", options)
    more = options.model_copy(update={"steps": 3})
    assert rlzoo_gradtts.pretrain.pretrain(corpus_of("gradtts"), tmp_path / "run", more, resume=True).is_file()


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
