"""An RL step against a plain loop in the style people copy: gradient variance times seconds, at equal prompts.

    python benchmarks/speed/rl.py [--voice mini|base] [--algorithm ddpo|dlpo] [--windows 8,16] [--device cpu|cuda]

Both loops estimate the same gradient from the same number of samples of the same prompts. The plain one knows no reuse:
the literal network, conditioning computed anew for every network evaluation, whole utterances, every step, for dlpo the
reference evaluated beside every one. Ours is the engine's own step of the algorithm. Each loop is run `--repeats` times
on fresh noise, interleaved; an estimator's quality is 1 / (trace of the covariance of its gradient x median seconds):
being twice as fast and having half the variance count alike. The reward is the speech level, which costs next to
nothing: a dearer one adds the same seconds to all.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from plain.wavegrad2 import denoise  # noqa: E402
from rlzoo_wavegrad2.checkpoint import VOICES  # noqa: E402
from rlzoo_wavegrad2.network import PRESETS, WaveGrad2Network  # noqa: E402

from rlzoo.api import Prompt, Reward, Samples, Scores  # noqa: E402
from rlzoo.config import resolve  # noqa: E402
from rlzoo.engine.context import Context  # noqa: E402
from rlzoo.engine.processes import make_fabric  # noqa: E402
from rlzoo.engine.run import Live, build  # noqa: E402
from rlzoo.functional import batch_advantages, masked_mean  # noqa: E402
from rlzoo.plugin import Options, RewardSpec, hookimpl  # noqa: E402
from rlzoo.registry import discover  # noqa: E402
from rlzoo.rundir import RunDirectory  # noqa: E402


class LevelOptions(Options):
    """Nothing to set."""


class Level(Reward[LevelOptions]):
    """Root mean square in dB."""

    def score(self, samples: Samples, prompts: Sequence[Prompt]) -> Scores:
        """(N, L) -> (N,)."""
        power = samples.data.square().sum(1) / samples.lengths
        return Scores(10 * power.clamp(min=1e-9).log10())


@hookimpl
def rlzoo_rewards() -> Iterator[RewardSpec]:
    """The reward of this benchmark."""
    spec = {"accepts": frozenset({"audio"}), "offers": frozenset({"reward-grad"})}
    yield RewardSpec(name="level", summary="level", target=f"{__name__}:Level", options=LevelOptions, **spec)


class _Caught(Exception):
    """Ends a step at its first gradient."""


def live(options: argparse.Namespace, voice: Path | None, folder: Path, **train: Any) -> Live:
    """The engine as a run would build it."""
    policy = {"name": "wavegrad2", "trainable": options.trainable} | ({"checkpoint": str(voice)} if voice else {})
    tables = {
        "policy": policy,
        "rewards": [{"name": "level"}],
        "algorithm": {"name": options.algorithm},
        "rollout": {
            "prompts_per_step": options.prompts,
            "samples_per_prompt": options.samples,
            "num_steps": options.steps,
        },
        "train": {"device": options.device, "kl_every": 0, "advantage": "batch", "score_cache": False, **train},
    }
    registry = discover()
    registry.add_module(sys.modules[__name__])
    run = resolve(tables, registry)
    name = f"run-{len(list(folder.iterdir()))}"
    rundir = RunDirectory.create(folder / name, toml="", config=run.to_dict(), env={})
    return build(run, rundir, make_fabric(options.device, "fp32"), lambda event: None)


def ours(made: Live) -> Callable[[int], Tensor]:
    """The algorithm's step up to its gradient, on the noise of step `n`."""
    ctx = made.ctx

    def caught() -> float:
        raise _Caught

    def gradient(n: int) -> Tensor:
        ctx.step, ctx.cursor.position, ctx.metrics = n, 0, {}
        ctx.generator.manual_seed(n)
        ctx.apply_gradients = caught  # type: ignore[method-assign]
        with suppress(_Caught):
            made.algorithm.step(ctx)
        found = ctx.optimisation.gradient(ctx.fabric)
        ctx.optimizer.zero_grad(set_to_none=True)
        return found

    return gradient


def plain(ctx: Context, options: argparse.Namespace) -> Callable[[int], Tensor]:
    """The copied loop: one row at a time on a CPU (there it is quickest so), the whole batch on a GPU."""
    policy, schedule = ctx.policy, ctx.policy.schedule(options.steps)
    weights = dict(policy.network.decoder.named_parameters())
    frozen = {name: w.detach().clone() for name, w in weights.items()}
    size = options.prompts * options.samples if options.device != "cpu" else 1
    at = ctx.cursor.take(options.prompts)
    prompts = [prompt for prompt in at for _ in range(options.samples)]

    def step(of: dict[str, Any], x: Tensor, k: int, rows: Sequence[Prompt]) -> tuple[Any, Tensor, Tensor]:
        with torch.no_grad():
            cond = policy.condition(rows)
        x = x[:, : policy.state_shape(cond)[0]]
        level = (1 - schedule.times[k] ** 2).sqrt().float().to(x.device).expand(len(x))
        eps = denoise(of, policy.config, x, cond.get("hidden"), level)
        at_k = torch.full((len(x),), k, device=x.device)
        return policy.transition(x, at_k, cond, schedule, eps), eps, policy.mask(cond)

    def gradient(n: int) -> Tensor:
        generator = torch.Generator(device=ctx.device).manual_seed(1_000_000 + n)
        steps = schedule.stochastic.nonzero().flatten().tolist()
        stored, values = [], []
        for first in range(0, len(prompts), size):
            rows = prompts[first : first + size]
            with torch.no_grad():
                cond = policy.condition(rows)
                x = torch.randn(len(rows), *policy.state_shape(cond), generator=generator, device=ctx.device)
                states, logps = [x], []
                for k in range(len(schedule)):
                    dist, _, _ = step(weights, x, k, rows)
                    noise = torch.randn(x.shape, generator=generator, device=ctx.device)
                    x = dist.rsample(noise) if k in steps else dist.mode
                    logps.append(dist.log_prob(x) if k in steps else None)
                    states.append(x)
                samples = policy.decode(x, cond)
                values.append(ctx.scorers[0].reward.score(samples, rows).values)
            stored.append((rows, states, logps))
        adv_N, count = batch_advantages(torch.cat(values)).clamp(-5, 5), len(prompts) * len(steps)
        adv = iter(adv_N.split([len(rows) for rows, _, _ in stored]))
        for rows, states, logps in stored:
            adv_M = next(adv)
            for k in steps:
                dist, eps, mask = step(weights, states[k], k, rows)
                ratio = (dist.log_prob(states[k + 1]) - logps[k]).exp()
                loss = -adv_M * ratio
                if options.algorithm == "dlpo":
                    with torch.no_grad():
                        step(frozen, states[k], k, rows)  # as released: the reference beside every evaluation
                    sigma = float(schedule.times[k])
                    implied = (states[k] - math.sqrt(1 - sigma**2) * states[-1]) / sigma
                    loss = loss + masked_mean((eps - implied).abs(), mask)
                (loss.sum() / count).backward()
        found = ctx.optimisation.gradient(ctx.fabric)
        ctx.optimizer.zero_grad(set_to_none=True)
        return found

    return gradient


def measure(
    loops: dict[str, Callable[[int], Tensor]], repeats: int, device: str, clock: str
) -> dict[str, dict[str, Any]]:
    """Every loop `repeats` times, interleaved; the first round warms up and is left out."""
    sync = torch.cuda.synchronize if device != "cpu" else lambda: None
    now = time.perf_counter if clock == "wall" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    gradients: dict[str, list[Tensor]] = {name: [] for name in loops}
    for n in range(repeats + 1):
        for name, loop in loops.items():
            sync()
            started = now()
            gradient = loop(n)
            sync()
            if n:
                seconds[name].append(now() - started)
                gradients[name].append(gradient.double())
    return {name: summary(torch.stack(gradients[name]), torch.tensor(seconds[name])) for name in loops}


def summary(gradients: Tensor, seconds: Tensor) -> dict[str, Any]:
    """(R, P) gradients, (R,) seconds -> what is reported; the variance's standard error by leaving one out."""
    R = len(gradients)
    squares = (gradients - gradients.mean(0)).square().sum(1)
    variance = float(squares.sum()) / (R - 1)
    # The k-th left out: sum of squares falls by R / (R - 1) times its own.
    jack = (squares.sum() - squares * R / (R - 1)) / (R - 2)
    error = math.sqrt((R - 1) / R * float((jack - jack.mean()).square().sum()))
    return {
        "seconds": float(seconds.median()),
        "variance": variance,
        "variance_error": error,
        "quality": 1 / (variance * float(seconds.median())),
        "mean_norm": float(gradients.mean(0).norm()),
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown, ratios against `plain`."""
    base = results["plain"]
    lines = [
        "| loop | seconds | faster | gradient variance / plain's | quality per second / plain's |",
        "|---|---|---|---|---|",
    ]
    for name, r in results.items():
        share, error = r["variance"] / base["variance"], r["variance_error"] / base["variance"]
        lines.append(
            f"| {name} | {r['seconds']:.3f} | {base['seconds'] / r['seconds']:.2f} | {share:.2f} ± {error:.2f} | "
            f"{r['quality'] / base['quality']:.2f} |"
        )
    return "\n".join(lines)


def base_voice(folder: Path, preset: str) -> Path:
    """A voice of the published size with random weights: speed and variance of an untrained network, no speech."""
    torch.manual_seed(0)
    network = WaveGrad2Network(PRESETS[preset], init=False)
    with torch.no_grad():  # 60 ms a phone
        for suffix in ("l1", "l1_reverse"):
            getattr(network.resampling.duration_predictor.lstm, f"bias_ih_{suffix}").fill_(3.0)
        network.resampling.duration_predictor.fc[0].weight.fill_(0.03 / PRESETS[preset].predictor_channels)
    path = folder / "base.safetensors"
    VOICES.save(path, network.state_dict(), {"network": PRESETS[preset].model_dump(), "text": "flite"})
    return path


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", default="mini", choices=("mini", *PRESETS))
    parser.add_argument("--algorithm", default="ddpo", choices=("ddpo", "dlpo"))
    parser.add_argument("--trainable", default="denoiser", choices=("biases", "denoiser"))
    parser.add_argument("--windows", default="12,24", help="window lengths in frames, comma between; empty: none")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "cpu"), help="cpu: this process's, on a busy machine"
    )
    parser.add_argument("--out", type=Path, default=None, help="stem of the .json and .md to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        voice = None if options.voice == "mini" else base_voice(folder, options.voice)
        whole = live(options, voice, folder)
        loops = {"plain": plain(whole.ctx, options), "ours": ours(whole)}
        for frames in (int(w) for w in options.windows.split(",") if w):
            loops[f"ours, windows of {frames} frames"] = ours(live(options, voice, folder, window_frames=frames))
        results = measure(loops, options.repeats, options.device, options.clock)
    print(table(results))
    if options.out is not None:
        about = {key: str(value) for key, value in vars(options).items()} | {
            "torch": torch.__version__,
            "threads": str(torch.get_num_threads()),
            "command": " ".join(["python", *sys.argv]),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.with_suffix(".json").write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")
        options.out.with_suffix(".md").write_text(f"`{about['command']}`\n\n{table(results)}\n")


if __name__ == "__main__":
    main()
