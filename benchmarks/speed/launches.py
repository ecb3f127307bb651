"""Kernels launched and waits for the device, counted on a device that is none: `python benchmarks/speed/launches.py`.

On a GPU a small network's time is that of its launches, some 5 microseconds each on the host, and of its waits, which
also keep the host from drawing the next noise. Both are counts and need no GPU. `--before COMMIT` counts the same in an
older state of the repository and writes both into `launches.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from rlzoo.testing.fakecuda import FakeCuda

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve()
CLIPS = 36
CALLS = 3
"""Calls of a reward for 36 samples of 6 prompts, where 16 rows are sampled at once and no prompt is parted."""
Counts = dict[str, tuple[float, float]]
"""By what is counted: launches, waits."""


def transition(gpu: FakeCuda, name: str, **options: Any) -> Counts:
    """One denoising step of 4 rows, as the difference of rollouts of 4 and of 2 steps."""
    from rlzoo.api import Prompt
    from rlzoo.engine import rollout

    Plan = getattr(rollout, "SamplingPlan", None) or rollout.Plan  # its older name
    policy = voice(name, **options).to("cuda").eval()
    with torch.no_grad():
        cond = policy.condition([Prompt("a", "Yes."), Prompt("b", "Go on.")]).repeat(2)
    found, inside = [], []
    for steps in (2, 2, 4):
        seeds = (1, 2, 3, 4)
        plan = Plan(
            schedule=policy.schedule(steps), seeds=seeds, prior_seeds=seeds, grad_steps=0, reduction="mean",
            micro_batch=4, probe=(), kept=tuple(range(steps + 1)),
        )  # fmt: skip
        with gpu.counted() as count, network(gpu, policy) as own:
            rollout.sample(policy, cond, plan)
        found.append(count)
        inside.append(own)
    every = (found[2].kernels - found[1].kernels) / 2
    waits = (found[2].waits - found[1].waits) / 2
    denoiser, in_denoiser = ((inside[2][i] - inside[1][i]) / 2 for i in (0, 1))
    return {
        f"`{name}`: a denoising step, the network": (denoiser, in_denoiser),
        f"`{name}`: a denoising step, around it": (every - denoiser, waits - in_denoiser),
    }


def decoding(gpu: FakeCuda) -> Counts:
    """36 rows of `gradtts`, of two lengths."""
    from rlzoo.api import Prompt

    policy = voice("gradtts").to("cuda").eval()
    with torch.no_grad():
        cond = policy.condition([Prompt("a", "Yes."), Prompt("b", "Go on.")])

    def work(rows: int) -> None:
        some = cond.repeat(rows // 2)
        policy.decode(torch.zeros(rows, *policy.state_shape(some), device="cuda"), some)

    return {f"`gradtts`: decoding {CLIPS} rows": scaled(gpu, work, 3)}


def scoring(gpu: FakeCuda) -> Counts:
    """36 clips of two lengths, in three calls."""
    from rlzoo_dnsmos import DNSMOSOptions
    from rlzoo_dnsmos.reward import DNSMOSReward
    from rlzoo_guard import GuardOptions
    from rlzoo_guard.reward import GuardReward

    from rlzoo.api import Media, Prompt, Samples

    rewards = {"guard": GuardReward(GuardOptions()), "dnsmos": DNSMOSReward(DNSMOSOptions())}
    counts: Counts = {}
    for name, reward in rewards.items():
        reward.to("cuda")

        def work(rows: int, reward: Any = reward) -> None:
            data = torch.zeros(rows, 144_160).uniform_(-0.1, 0.1).to("cuda")
            lengths = torch.tensor([144_160, 72_080] * (rows // 2), device="cuda")
            prompts = [Prompt(str(row), "It is late.") for row in range(rows)]
            reward.score(Samples(data, lengths, Media("audio", 16_000)), prompts)

        counts[f"`{name}`: {CLIPS} clips"] = scaled(gpu, work, CALLS)
    return counts


def step(gpu: FakeCuda) -> Counts:
    """A step of `ddpo` on `gradtts` with the reward `guard`: 36 samples, 16 rows at a time."""
    from rlzoo.engine.processes import make_fabric
    from rlzoo.engine.run import build
    from rlzoo.testing.toy_runs import start

    run = resolved(
        {
            "algorithm": {"name": "ddpo"},
            "policy": {"name": "gradtts", "checkpoint": str(narrow())},
            "rewards": [{"name": "guard"}],
            "prompts": {"name": "short"},
            "rollout": {"prompts_per_step": 6, "samples_per_prompt": 6, "num_steps": 4, "micro_batch": 16},
            "train": {"device": "cuda", "micro_batch": 16, "score_cache": False, "kl_every": 0},
            "eval": {"judges": []},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        fabric = make_fabric("cuda", "fp32")
        live = build(run, start(run, Path(folder) / "run"), fabric, lambda event: None)
        with gpu.counted() as count, network(gpu, live.ctx.policy) as inside:
            live.algorithm.step(live.ctx)
    return {
        "a step of `ddpo` on `gradtts`, 36 samples, the network": (inside[0], inside[1]),
        "a step of `ddpo` on `gradtts`, 36 samples, all else": (count.kernels - inside[0], count.waits - inside[1]),
    }


@cache
def narrow() -> Path:
    """A voice of `gradtts` with the layers of the one that ships, and narrow: as many launches, less to compute."""
    from rlzoo_gradtts.network import GradTTSNetwork
    from rlzoo_gradtts.policy import SHIPPED, VOICES

    _, about = VOICES.load(SHIPPED)
    config = VOICES.config.model_validate({**about["network"], "channels": 8})
    torch.manual_seed(0)
    network = GradTTSNetwork(config)
    with torch.no_grad():
        network.durations[2].bias.fill_(1.7)  # five frames a phone
    path = Path(tempfile.mkdtemp()) / "narrow.safetensors"
    VOICES.save(path, network.state_dict(), {**about, "network": config.model_dump()})
    return path


def voice(name: str, **options: Any) -> Any:
    """The policy of this name."""
    if name == "gradtts":
        from rlzoo_gradtts import GradTTSOptions
        from rlzoo_gradtts.policy import GradTTSPolicy

        return GradTTSPolicy(GradTTSOptions(checkpoint=narrow(), **options))
    from rlzoo_wavegrad2 import WaveGrad2Options
    from rlzoo_wavegrad2.policy import WaveGrad2Policy

    return WaveGrad2Policy(WaveGrad2Options(**options))


def resolved(user: dict[str, Any]) -> Any:
    """A resolved run; older states have the function elsewhere."""
    try:
        from rlzoo.config.resolve import resolve
    except ImportError:
        from rlzoo.config import resolve
    return resolve(user)


def scaled(gpu: FakeCuda, work: Callable[[int], None], calls: int) -> tuple[float, float]:
    """36 rows in so many calls, from what 2 and 4 rows take: a part for each call and a part for each row."""
    found = []
    with torch.no_grad():
        work(2)
        for rows in (2, 4):
            with gpu.counted() as count:
                work(rows)
            found.append(torch.tensor([count.kernels, count.waits], dtype=torch.float64))
    each = (found[1] - found[0]) / 2
    launches, waits = (calls * (found[0] - 2 * each) + CLIPS * each).tolist()
    return launches, waits


@contextmanager
def network(gpu: FakeCuda, policy: Any) -> Iterator[list[int]]:
    """Launches and waits of the policy's network inside, its backward passes with it."""
    inside, forward, backward = [0, 0], policy.forward, torch.autograd.graph._engine_run_backward

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with gpu.counted() as count:
                done = work(*args, **kwargs)
            inside[0] += count.kernels
            inside[1] += count.waits
            return done

        return run

    with mock.patch.object(policy, "forward", counted(forward)):
        with mock.patch.object(torch.autograd, "_engine_run_backward", counted(backward)):
            yield inside


def measured() -> Counts:
    """Everything, of the rlzoo that is imported."""
    counts: Counts = {}
    parts: list[Callable[[FakeCuda], Counts]] = [
        lambda gpu: transition(gpu, "gradtts"),
        lambda gpu: transition(gpu, "wavegrad2", compile=False),
        decoding,
        scoring,
        step,
    ]
    for part in parts:
        with FakeCuda() as gpu:
            counts |= part(gpu)
    return counts


def of_commit(commit: str) -> Counts:
    """The same of an older state, with the device of this one."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        device = Path(folder) / "rlzoo/testing/fakecuda.py"
        device.write_bytes((ROOT / "rlzoo/testing/fakecuda.py").read_bytes())
        kinds = ("algorithms", "policies", "prompts", "rewards")
        paths = [folder, *(f"{folder}/plugins/{kind}" for kind in kinds)]
        done = subprocess.run(
            [sys.executable, str(HERE), "--json"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=True,
            capture_output=True,
            text=True,
            cwd=folder,
        )
    found: Counts = json.loads(done.stdout.splitlines()[-1])
    return found


def table(before: Counts | None, after: Counts, commit: str) -> str:
    """Markdown."""
    columns = (
        ["launches", "waits"]
        if before is None
        else [f"launches at {commit[:7]}", "now", f"waits at {commit[:7]}", "now"]
    )
    lines = ["| |" + "".join(f" {name} |" for name in columns), "|---|" + "---:|" * len(columns)]
    for what, now in after.items():
        if before is None:
            cells: list[float] = [*now]
        else:
            cells = [x for pair in zip(before.get(what, (float("nan"),) * 2), now, strict=True) for x in pair]
        lines.append(f"| {what} |" + "".join(f" {cell:,.0f} |" for cell in cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", metavar="COMMIT", help="count an older state, too, and write launches.md")
    parser.add_argument("--json", action="store_true", help="print counts alone")
    arguments = parser.parse_args()
    after = measured()
    if arguments.json:
        print(json.dumps(after))
        return
    before = of_commit(arguments.before) if arguments.before else None
    found = table(before, after, arguments.before or "")
    print(found)
    if before is not None:
        command = f"python benchmarks/speed/launches.py --before {arguments.before}"
        HERE.with_suffix(".md").write_text(
            f"# Launches and waits\n\nMade by `{command}`, on the device that is none (`rlzoo.testing.fakecuda`), in "
            "eager mode: a compiled\nnetwork, or one in a CUDA graph, is one launch. Rewards and decoding are those of "
            f"{CLIPS} samples of 6 prompts.\n\n{found}\n"
        )


if __name__ == "__main__":
    main()
