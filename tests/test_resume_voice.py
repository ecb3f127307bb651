"""Every algorithm on the voice that ships, stopped after its first step and resumed, equals one never stopped."""

import os
import signal
from pathlib import Path

import pytest

from rlzoo.config.layers import user_layer
from rlzoo.config.registry import discover
from rlzoo.config.resolve import resolve
from rlzoo.engine.events import StepDone
from rlzoo.engine.loop import train
from rlzoo.errors import Interrupted
from rlzoo.files.rundir import RunDirectory
from rlzoo.testing.toy_runs import start

ALGORITHMS = discover().names("algorithm")
SMALL = (
    "rollout.prompts_per_step=2",
    "rollout.samples_per_prompt=2",
    "rollout.num_steps=2",
    "eval.prompts=1",
    "train.steps=3",
    "train.eval_every=0",
)
NOT_KEPT = ("seconds", "hit_rate")  # clocks, and scores that are remembered the second time


def started(algorithm: str, path: Path):
    run = resolve(user_layer(algorithm=algorithm, rewards=["dnsmos"], device="cpu"), overrides=SMALL)
    return run, start(run, path)


def kept(rundir: RunDirectory):
    return [{k: v for k, v in row.items() if not k.endswith(NOT_KEPT)} for row in rundir.metrics()]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stopped_and_resumed_equals_never_stopped(algorithm, tmp_path):
    run, whole = started(algorithm, tmp_path / "whole")
    train(run, whole)

    def interrupt(event):
        if isinstance(event, StepDone) and event.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    run, parts = started(algorithm, tmp_path / "parts")
    with pytest.raises(Interrupted):
        train(run, parts, observer=interrupt)
    train(run, parts, resume=True)
    assert kept(whole) == kept(parts)
    weights = "checkpoints/000003/policy.safetensors"
    assert (whole / weights).read_bytes() == (parts / weights).read_bytes()
