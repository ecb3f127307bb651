"""Two processes give what one gives: same prompts, same noise, same weights."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlzoo.config.layers import user_layer
from rlzoo.config.registry import discover
from rlzoo.config.resolve import resolve
from rlzoo.engine.loop import train
from rlzoo.testing.toy_runs import start, toy_run

ROOT = Path(__file__).resolve().parent.parent

WORKER = """
import sys
from pathlib import Path
from rlzoo.config.opening import open_run
from rlzoo.engine.loop import train
from rlzoo.files.rundir import RunDirectory
for path in sys.argv[1:]:
    rundir = RunDirectory.open(Path(path))
    train(open_run(rundir), rundir)
"""


def launch(rundirs, processes, tmp_path, worker=WORKER, expected=0):
    """As a user does it: torchrun on one machine, gloo between processes."""
    script = tmp_path / "worker.py"
    script.write_text(worker)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        environment.pop(name, None)
    done = subprocess.run(
        [*command, str(script), *(str(rundir.path) for rundir in rundirs)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    if expected == 0:
        assert done.returncode == 0, done.stderr[-3000:]
    else:
        assert done.returncode != 0


@pytest.mark.parametrize("advantage", ["prompt", pytest.param("group", marks=pytest.mark.slow)])
def test_two_processes_equal_one(tmp_path, advantage):
    tables = {
        # Three prompts over two processes: shares of different sizes, of different padding.
        "rollout": {"prompts_per_step": 3, "samples_per_prompt": 4},
        "train": {
            "steps": 3,
            "learning_rate": 1e-3,
            "advantage": advantage,
            "minibatch": 10,
            "inner_epochs": 2,
            "step_selection": "fraction",
            "step_fraction": 0.5,
            "eval_every": 0,
        },
    }
    run = toy_run(**tables)
    one, two = start(run, tmp_path / "one"), start(run, tmp_path / "two")
    train(run, one)
    launch([two], 2, tmp_path)

    weights = [load_file(rundir / "checkpoints/000003/policy.safetensors") for rundir in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-6)
    assert [row["step"] for row in two.metrics()] == [1, 2, 3]
    for ours, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "budget/seconds"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-5, abs=1e-6), name
    evaluations = [rundir.path.joinpath("eval/000003.json").read_text() for rundir in (one, two)]
    assert evaluations[0].count('"prompt"') == evaluations[1].count('"prompt"') == 6


TABLES = (
    {"advantage": "group", "ema_decay": 0.5},
    {"advantage": "batch", "weight_decay": 0.1},
    {"advantage": "group", "advantage_std": "batch", "grad_clip": 1e-3},
    {"advantage": "prompt", "advantage_min_count": 6, "advantage_per_reward": True},
)
"""In turns, so that every kind of advantage meets the engine's own exchange between processes."""


def test_two_processes_equal_one_for_every_algorithm(tmp_path):
    """One launch for all, on the toy, with several updates per rollout: means, counts and copies are everybody's."""
    names, pairs = discover().names("algorithm"), {}
    for number, name in enumerate(names):
        run = toy_run(
            algorithm={"name": name},
            rollout={"prompts_per_step": 3, "samples_per_prompt": 4},
            train={
                "steps": 2,
                "learning_rate": 1e-3,
                "num_minibatches": 2,
                "eval_every": 0,
                **TABLES[number % len(TABLES)],
            },
            eval={"prompts": 2, "samples_per_prompt": 1},
        )
        pairs[name] = start(run, tmp_path / f"{name}-one"), start(run, tmp_path / f"{name}-two")
        train(run, pairs[name][0])
    launch([two for _, two in pairs.values()], 2, tmp_path)
    for name, (one, two) in pairs.items():
        ours, theirs = (load_file(rundir / "checkpoints/000002/policy.safetensors") for rundir in (one, two))
        for key, value in ours.items():
            torch.testing.assert_close(
                theirs[key], value, rtol=0, atol=1e-5, msg=lambda said, name=name: f"{name}: {said}"
            )
        for mine, other in zip(one.metrics(), two.metrics(), strict=True):
            assert mine.keys() == other.keys(), name
            for metric in mine.keys() - {"seconds", "budget/seconds"}:
                assert other[metric] == pytest.approx(mine[metric], rel=1e-4, abs=1e-5), (name, metric)


VOICE = (
    "rollout.prompts_per_step=3",
    "rollout.samples_per_prompt=2",
    "rollout.num_steps=2",
    "eval.prompts=2",
    "train.steps=3",
    "train.eval_every=0",
    "train.score_cache=false",
)


@pytest.fixture
def one_thread():
    """As the launched processes have it: DNSMOS rounds otherwise on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "algorithm",
    [name if name == "dlpo" else pytest.param(name, marks=pytest.mark.slow) for name in discover().names("algorithm")],
)
def test_two_processes_equal_one_on_the_voice_that_ships(algorithm, one_thread, tmp_path):
    """To the last bit: a waveform magnifies whatever there is."""
    run = resolve(user_layer(algorithm=algorithm, rewards=["dnsmos"], device="cpu"), overrides=VOICE)
    one, two = start(run, tmp_path / "one"), start(run, tmp_path / "two")
    train(run, one)
    launch([two], 2, tmp_path)

    weights = [rundir / "checkpoints/000003/policy.safetensors" for rundir in (one, two)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    for ours, theirs in zip(one.metrics(), two.metrics(), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"seconds", "budget/seconds"}:
            exact = name.startswith("reward/") and name != "reward/chosen"
            assert theirs[name] == (ours[name] if exact else pytest.approx(ours[name], rel=1e-5, abs=1e-6)), name
    scores = [rundir.path.joinpath("eval/000003.json").read_text() for rundir in (one, two)]
    assert scores[0] == scores[1]


def test_more_processes_than_prompts_are_refused(tmp_path):
    from rlzoo.engine.context import Context
    from rlzoo.errors import ConfigError

    class Alone:
        world_size, global_rank = 4, 0

    ctx = object.__new__(Context)
    ctx.fabric = Alone()
    with pytest.raises(ConfigError, match="3 prompts cannot be shared by 4 processes"):
        ctx._share(["a", "b", "c"])


FAILING = WORKER.replace(
    "train(",
    """
import os
from rlzoo.engine import context
from rlzoo.errors import DataError
def fail(self, *arguments, **options):
    if os.environ["RANK"] == "RANKS":
        raise ERROR
    return score(self, *arguments, **options)
score, context.Context.score = context.Context.score, fail
train(""",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "error", "said"),
    [
        ("1", "DataError('a bad file', 'mend it')", "process 1 of 2: a bad file"),
        ("1", "TypeError('oops')", "process 1 of 2: TypeError: oops"),
        ("0", "DataError('a bad file', 'mend it')", "a bad file"),
        ("1", "os._exit(9)", "another process ended without a word"),
    ],
)
def test_whichever_process_failed_its_error_is_the_runs(tmp_path, rank, error, said):
    run = toy_run(rollout={"prompts_per_step": 2, "samples_per_prompt": 4}, train={"steps": 2, "self_checks": False})
    rundir = start(run, tmp_path / "run")
    launch([rundir], 2, tmp_path, FAILING.replace("RANKS", rank).replace("raise ERROR", f"raise {error}"), expected=1)
    status = rundir.status()
    assert status["state"] == "failed"
    assert status["error"].startswith(said), status
    assert status["hint"] == ("mend it" if "mend" in error else status["hint"])
