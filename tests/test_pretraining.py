"""The training loop on a regression of three numbers: it learns, averages, resumes exactly and spoils nothing."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from rlzoo.api import Prompt
from rlzoo.audio import read_audio
from rlzoo.errors import ConfigError, DataError, Diverged, Interrupted
from rlzoo.pretraining.loop import OnStep, Task, learning_rate, train
from rlzoo.pretraining.options import PretrainingOptions
from rlzoo.pretraining.panel import Panel
from rlzoo.voices import VoiceFormat


class Size(BaseModel):
    width: int = 8


def network_of(size: Size) -> nn.Module:
    """Batch statistics count in whole numbers, and dropout draws from torch's own generator."""
    return nn.Sequential(
        nn.Linear(3, size.width), nn.BatchNorm1d(size.width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(size.width, 1)
    )


class Regression(Task):
    """The sum of three numbers; an offset outside the network helps in training."""

    voices = VoiceFormat("toy", Size, network_of)

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = network_of(Size())
        self.offset = nn.Linear(1, 1)
        self.trained = nn.ModuleList([self.network, self.offset])
        self.validated: list[Path] = []
        self.states: list[dict[str, Tensor]] = []
        self.broken_from = math.inf
        self.calls = 0

    def losses(self, generator: torch.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.states.append({name: value.clone() for name, value in self.network.state_dict().items()})
        self.calls += 1
        x = torch.randn(16, 3, generator=generator)
        noisy = x.sum(1, keepdim=True) + 0.1 * torch.randn(16, 1, generator=noise)
        error = (self.network(x) + self.offset(torch.ones(1, 1)) - noisy).square().mean()
        if self.calls > self.broken_from:
            error = error * math.nan
        return error, {"error": error}

    def describe(self) -> dict[str, Any]:
        return {"network": Size().model_dump(), "text": "flite", "card": {"sentences": 3}}

    def validate(self, voice: Path, out: Path) -> dict[str, float]:
        state, description = self.voices.load(voice)
        self.validated.append(out)
        return {"validation/size": float(len(state)), "validation/step": description["card"]["step"]}


def options(**changes: Any) -> PretrainingOptions:
    return PretrainingOptions(**{"steps": 6, "warmup_steps": 2, "log_every": 1, "device": "cpu", **changes})


def run(
    make_task: Callable[[], Task],
    out: Path,
    o: PretrainingOptions,
    resume: bool = False,
    on_step: OnStep = lambda row: None,
) -> Path:
    return train(make_task, out, o, resume=resume, on_step=on_step)


def rows(folder: Path) -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def test_the_loss_falls_and_the_voice_is_the_running_average(tmp_path: Path) -> None:
    task = Regression()
    voice = run(lambda: task, tmp_path / "run", options(steps=200, learning_rate=0.02, ema_decay=0.9))
    logged = [row["error"] for row in rows(tmp_path / "run") if "error" in row]
    assert sum(logged[-20:]) < 0.5 * sum(logged[:20])
    states = [*task.states, task.network.state_dict()]
    average = states[0]["0.weight"].clone()
    for step, state in enumerate(states[1:], 1):
        average = average.lerp(state["0.weight"], 1 - min(0.9, step / (step + 9)))
    saved, description = Regression.voices.load(voice)
    torch.testing.assert_close(saved["0.weight"], average)
    assert int(saved["1.num_batches_tracked"]) == 200
    card = description["card"]
    assert (card["step"], card["sentences"], card["options"]["ema_decay"]) == (200, 3, 0.9)
    assert description["text"] == "flite"


def test_learning_rate_warms_up_and_decays() -> None:
    o = options(steps=100, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-5)
    assert learning_rate(0, 0.0, o) == pytest.approx(1e-4)
    assert learning_rate(50, 0.0, o) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(100, 0.0, o) == pytest.approx(1e-5)
    timed = o.model_copy(update={"minutes": 2.0})
    assert learning_rate(50, 120.0, timed) == pytest.approx(1e-5)


def test_validation_comes_every_so_often_and_once_at_the_end(tmp_path: Path) -> None:
    task = Regression()
    run(lambda: task, tmp_path / "run", options(steps=7, validate_every=3))
    assert [path.relative_to(tmp_path).as_posix() for path in task.validated] == [
        f"run/validation/{step:07d}" for step in (3, 6, 7)
    ]
    assert [row["validation/step"] for row in rows(tmp_path / "run") if "validation/step" in row] == [3, 6, 7]
    task = Regression()
    run(lambda: task, tmp_path / "even", options(steps=6, validate_every=3))
    assert len(task.validated) == 2


def test_rows_are_means_over_the_steps_between(tmp_path: Path) -> None:
    for every in (1, 3):
        run(Regression, tmp_path / str(every), options(log_every=every))
    single, means = ([row["error"] for row in rows(tmp_path / str(n)) if "error" in row] for n in (1, 3))
    assert means == pytest.approx([sum(single[:3]) / 3, sum(single[3:]) / 3], abs=2e-5)


def test_killed_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(row: dict[str, float]) -> None:
        if row["step"] == 5:
            raise Killed

    o = options(save_every=4)
    run(Regression, tmp_path / "whole", o)
    with pytest.raises(Killed):
        run(Regression, tmp_path / "cut", o, on_step=kill)
    run(lambda: Regression(seed=1), tmp_path / "cut", o, resume=True)
    whole, cut = (torch.load(tmp_path / name / "train.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("losses", "average"):
        for name, value in whole[part].items():
            assert torch.equal(value, cut[part][name]), name
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")


class Judged(Regression):
    """Its validation draws, as one that builds a network does, and is cut off once."""

    def __init__(self, cut_off_at: int = 0) -> None:
        super().__init__()
        self.cut_off_at = cut_off_at

    def validate(self, voice: Path, out: Path) -> dict[str, float]:
        if int(out.name) == self.cut_off_at:
            raise KeyboardInterrupt
        return {"validation/drawn": float(torch.rand(1))}


@pytest.mark.parametrize("log_every", [1, 3])
def test_a_validation_that_was_cut_off_is_made_up_for(tmp_path: Path, log_every: int) -> None:
    """And what it draws is none of the training, which goes on alike; one that is in the log is not repeated."""
    o = options(validate_every=4, save_every=1, log_every=log_every)
    run(Judged, tmp_path / "whole", o)
    for cut_off_at in (4, 6):
        out = tmp_path / str(cut_off_at)
        with pytest.raises(KeyboardInterrupt):
            run(lambda at=cut_off_at: Judged(at), out, o)
        run(Judged, out, o, resume=True)
        run(Judged, out, o, resume=True)
        assert rows(out) == rows(tmp_path / "whole")
        weights = (Judged.voices.load(folder / "voice.safetensors")[0] for folder in (out, tmp_path / "whole"))
        assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_finishes_the_step_and_goes_on_as_if_it_had_not(
    tmp_path: Path, number: signal.Signals
) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["step"] == 2:
            os.kill(os.getpid(), number)

    run(Regression, tmp_path / "whole", options())
    with pytest.raises(Interrupted, match=f"{number.name} after step 2"):
        run(Regression, tmp_path / "run", options(), on_step=stop)
    run(Regression, tmp_path / "run", options(), resume=True)
    assert rows(tmp_path / "whole") == rows(tmp_path / "run")
    whole, resumed = (Regression.voices.load(tmp_path / name / "voice.safetensors")[0] for name in ("whole", "run"))
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_time_is_a_budget_and_more_of_it_continues_a_finished_run(tmp_path: Path) -> None:
    run(Regression, tmp_path / "run", options(minutes=1e-9))
    assert [row["step"] for row in rows(tmp_path / "run") if "error" in row] == [1]
    run(Regression, tmp_path / "run", options(steps=3), resume=True)
    assert [row["step"] for row in rows(tmp_path / "run") if "error" in row] == [1, 2, 3]


def test_a_run_is_not_overwritten_and_nothing_is_not_resumed(tmp_path: Path) -> None:
    def expensive() -> Task:
        raise AssertionError("a corpus is not read for nothing")

    run(Regression, tmp_path / "run", options(steps=1))
    with pytest.raises(ConfigError, match="already holds"):
        run(expensive, tmp_path / "run", options(steps=1))
    with pytest.raises(DataError, match="nothing to resume"):
        run(Regression, tmp_path / "other", options(steps=1), resume=True)
    path = tmp_path / "run/train.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot read"):
        run(Regression, tmp_path / "run", options(steps=2), resume=True)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot make"):
        run(Regression, tmp_path / "file/run", options(steps=1))


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path,
) -> None:
    run(Regression, tmp_path / "run", options(steps=2))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may become as large as the checkpoint: like a full disk, the system itself refuses to write.
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "run/train.pt").stat().st_size // 2, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*train.pt': File too large") as caught:
            run(Regression, tmp_path / "run", options(steps=4), resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "free some space" in caught.value.hint
    assert torch.load(tmp_path / "run/train.pt", weights_only=True)["step"] == 2
    assert list((tmp_path / "run").glob(".*.tmp")) == []


def test_a_loss_that_is_not_finite_stops_and_spoils_no_checkpoint(tmp_path: Path) -> None:
    task = Regression()
    task.broken_from = 3
    with pytest.raises(Diverged, match="error is nan"):
        run(lambda: task, tmp_path / "run", options(steps=8, log_every=10, save_every=2))
    assert torch.load(tmp_path / "run/train.pt", weights_only=True)["step"] == 2
    Regression.voices.load(tmp_path / "run/voice.safetensors")


def test_a_panel_scores_every_system_and_leaves_it_to_listen_to(tmp_path: Path) -> None:
    prompts = [Prompt("a", "One."), Prompt("b", "Two.")]
    tone = 0.1 * torch.sin(2 * math.pi * 200 * torch.arange(16000) / 16000)
    systems = {"loud": [tone, tone], "clipped": [(20 * tone).clamp(-1, 1), tone]}
    found = Panel({"guard": {}}, torch.device("cpu")).compare(systems, 16000, prompts, tmp_path / "out")
    assert sorted(found) == ["guard_clipped", "guard_loud"]
    assert found["guard_clipped"] < found["guard_loud"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{name}-{system}.wav" for name in "ab" for system in ("clipped", "loud")
    ]
    wave, rate = read_audio(tmp_path / "out/a-loud.wav")
    assert rate == 16000
    torch.testing.assert_close(wave, tone, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match=r"judges\.guard"):
        Panel({"guard": {"nonsense": 1}}, torch.device("cpu"))


def test_options_are_light() -> None:
    code = "import sys, rlzoo.pretraining.options; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
