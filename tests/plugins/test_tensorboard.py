"""`rlzoo_tensorboard`: what TensorBoard's own reader finds in the event file."""

from __future__ import annotations

import warnings

import pytest
import torch

pytest.importorskip("tensorboard", reason="needs tensorboard (the extra of that name)")

from rlzoo_tensorboard import TensorBoardOptions

from rlzoo.api import AudioSample, RunInfo


def observer(**options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies, at import
        from rlzoo_tensorboard.observer import TensorBoardObserver
    return TensorBoardObserver(TensorBoardOptions(**options))


def told(logger, folder, first_step=0, last=3, kind="a"):
    logger.start(RunInfo(folder, {"seed": 0, "train": {"steps": last}}, first_step, last))
    for step in range(first_step, last + 1):
        if step > first_step:
            logger.step(step, {"step": step, "reward/total": step / 2, "optim/grad_norm": 1.0})
        logger.evaluation(step, {"total": {"mean": float(step), "std": 1.0, **({"gain": step - 1.0} if step else {})}})
        for index in range(3):
            wave = torch.sin(torch.arange(800) * 0.1 * (index + 1))
            logger.audio(step, AudioSample(f"p-{index}", "A text.", wave, 8000, {"total": 1.0}))
    logger.end("done")


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "audio": 0})
    events.Reload()
    return events


def test_the_event_file_holds_the_run(tmp_path):
    told(observer(audio=2), tmp_path)
    events = read(tmp_path / "tensorboard")
    tags = events.Tags()
    assert {"reward/total", "optim/grad_norm", "heldout/total", "heldout_gain/total"} == set(tags["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("reward/total")] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert [(e.step, e.value) for e in events.Scalars("heldout_gain/total")] == [(1, 0.0), (2, 1.0), (3, 2.0)]
    assert set(tags["audio"]) == {"heldout/p-0", "heldout/p-1"}  # the third is above the limit
    clip = events.Audio("heldout/p-1")[-1]
    assert (clip.step, clip.sample_rate, clip.encoded_audio_string[:4]) == (3, 8000.0, b"RIFF")
    assert any("config" in tag for tag in tags["tensors"])


def test_a_resumed_run_goes_on_and_hides_what_it_repeats(tmp_path):
    told(observer(audio=0), tmp_path, last=3)
    told(observer(audio=0), tmp_path, first_step=1, last=4)
    events = read(tmp_path / "tensorboard")
    steps = [e.step for e in events.Scalars("reward/total")]
    assert sorted(set(steps)) == [1, 2, 3, 4]
    assert steps == [1, 2, 3, 4]


def test_another_folder_may_be_named(tmp_path):
    told(observer(folder=tmp_path / "elsewhere", audio=0), tmp_path / "run")
    assert read(tmp_path / "elsewhere").Tags()["audio"] == []
    assert not (tmp_path / "run").exists()
