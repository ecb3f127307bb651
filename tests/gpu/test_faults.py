"""What the first run on a GPU would have hit, one test each; most show in the other files too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lightning_fabric.accelerators import cuda
from rlzoo_nisqa.network import LastSteps
from rlzoo_utmos.network import StrongLearner
from rlzoo_wavegrad2.network.encoder import run_lstm
from torch import Tensor, nn
from typer.testing import CliRunner

from rlzoo.api import Prompt
from rlzoo.audio import full_precision, to_samples, write_audio
from rlzoo.cli import app
from rlzoo.engine.processes import make_fabric
from rlzoo.functional import with_backward
from rlzoo.pretraining.panel import Panel
from rlzoo.testing.fakecuda import FakeCuda
from rlzoo.testing.rewards import voice_like

RATE = 16_000


def waves() -> list[Tensor]:
    return [voice_like(seconds, RATE, seed) for seed, seconds in enumerate((0.6, 0.4))]


def test_a_batch_is_on_its_waves_device(gpu: FakeCuda) -> None:
    samples = to_samples([wave.to("cuda") for wave in waves()], RATE)
    assert samples.data.is_cuda
    assert samples.lengths.is_cuda


def test_pretraining_is_judged_there(gpu: FakeCuda) -> None:
    panel = Panel({"guard": {}, "dnsmos": {}}, torch.device("cuda"))
    found = panel.scores(waves(), RATE, [Prompt("a", "hello there"), Prompt("b", "it is late")])
    assert found.keys() == {"guard", "dnsmos"}


def test_recordings_are_judged_there(gpu: FakeCuda, tmp_path: Path) -> None:
    """On the device that the judges are on, which `auto` chooses."""
    for number, wave in enumerate(waves()):
        write_audio(tmp_path / f"{number}.wav", wave, RATE)
    (tmp_path / "metadata.csv").write_text("0|hello there|hello there\n1|it is late|it is late\n")
    done = CliRunner().invoke(app, ["eval", str(tmp_path), "--judges", "guard,dnsmos", "--device", "auto"])
    assert done.exit_code == 0, done.output


def leaf(*shape: int) -> Tensor:
    return torch.ones(shape, device="cuda", requires_grad=True)


def test_the_encoder_of_wavegrad2_has_a_gradient(gpu: FakeCuda) -> None:
    lstm, x = nn.LSTM(5, 4, 2, batch_first=True, bidirectional=True).to("cuda").eval(), leaf(2, 6, 5)
    run_lstm(lstm, x, torch.tensor([6, 4], device="cuda")).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("reward", ["utmos", "nisqa-tts"])
def test_recurrent_rewards_have_a_gradient(reward: str, gpu: FakeCuda) -> None:
    if reward == "nisqa-tts":
        x = leaf(2, 6, 20)
        LastSteps(20, 8).to("cuda").eval()(x, torch.tensor([6, 4], device="cuda")).sum().backward()
    else:
        x = leaf(1, 4_000)
        StrongLearner().to("cuda").eval()(x, torch.tensor([4_000], device="cuda")).sum().backward()
    assert x.grad is not None


def test_an_lstm_that_drops_something_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout"):
        with_backward(nn.LSTM(2, 2, 2, dropout=0.5))


def parts() -> list[str]:
    backends = torch.backends
    return [part.fp32_precision for part in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]


@pytest.fixture
def tf32() -> Iterator[None]:
    """As a user may have set it, by the newer switches, which make reading the older ones an error."""
    backends = torch.backends
    switches = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    before = parts()
    for switch in switches:
        switch.fp32_precision = "tf32"
    yield
    for switch, value in zip(switches, before, strict=True):
        switch.fp32_precision = value


@pytest.mark.usefixtures("tf32")
def test_float32_of_a_run_is_float32(gpu: FakeCuda) -> None:
    make_fabric("cuda", "fp32")
    assert parts() == ["ieee"] * 3
    assert not torch.backends.cudnn.allow_tf32  # what reads the older switches goes on working
    assert not torch.backends.cuda.matmul.allow_tf32


def test_no_hint_asks_to_turn_tf32_on(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    hints: list[str] = []
    cuda._check_cuda_matmul_precision.cache_clear()
    monkeypatch.setattr(cuda, "rank_zero_info", hints.append)
    make_fabric("cuda", "fp32")
    assert not hints


@pytest.mark.usefixtures("tf32")
def test_rewards_work_where_the_newer_switches_were_set(gpu: FakeCuda) -> None:
    with full_precision("cuda"):
        assert parts() == ["ieee"] * 3


@pytest.mark.usefixtures("tf32")
def test_a_thread_that_scores_switches_nothing(gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switches belong to the process: another thread samples with them."""
    make_fabric("cuda", "fp32")
    switched: list[str] = []

    def seen(*asked: object) -> None:
        switched.append(str(asked))

    for name in ("_set_cublas_allow_tf32", "_set_fp32_precision_setter"):
        monkeypatch.setattr(torch._C, name, seen)
    monkeypatch.setattr(vars(type(torch.backends.cudnn))["allow_tf32"], "setter", seen)

    def score() -> None:
        with full_precision("cuda"):
            during.extend(parts())

    during: list[str] = []
    thread = threading.Thread(target=score)
    thread.start()
    thread.join()
    assert during == parts() == ["ieee"] * 3
    assert not switched
