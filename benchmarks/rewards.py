"""Scores of each reward under more and more noise and for inputs that are not speech, and its speed.

    python benchmarks/rewards.py CLIPS_DIR [--set nisqa.checkpoint=nisqa.tar ...] [--rewards dnsmos,nisqa] [--reference]
    python benchmarks/rewards.py CLIPS_DIR --extremes ...      # silence, 10 ms, a minute, 8 and 48 kHz
    python benchmarks/rewards.py CLIPS_DIR --rewards utmos,similarity --random-weights --speed

Prints Markdown tables. `--speed` compares calls clip by clip, at once, and with the gradient. `--random-weights` is for
the speed of rewards whose weights are not here. `--reference` times the published DNSMOS package on the same clips too
(needs librosa, onnxruntime and requests). Seconds are CPU-seconds, which other processes change little, on a CPU, and
those of the clock with `--device cuda`. Threads: OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rlzoo.api import Prompt, Reward, Samples
from rlzoo.audio import read_audio, resample, resample_samples, to_samples
from rlzoo.rewards import build_reward

REWARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "distillmos": ("distillmos", {}),
    "dnsmos": ("dnsmos", {}),
    "dnsmos-bfloat16": ("dnsmos", {"precision": "bfloat16"}),
    "dnsmos-p835": ("dnsmos", {"model": "p835"}),
    "dnsmos-p835-bfloat16": ("dnsmos", {"model": "p835", "precision": "bfloat16"}),
    "dnsmos-pro": ("dnsmos-pro", {}),
    "nisqa": ("nisqa", {}),
    "nisqa-tts": ("nisqa-tts", {}),
    "guard": ("guard", {}),
    "utmos": ("utmos", {}),
    "utmos-bfloat16": ("utmos", {"precision": "bfloat16"}),
    "similarity": ("similarity", {}),
}
NEEDING = {"utmos", "utmos-bfloat16", "similarity"}
"""Weights that no package brings along; these rewards are measured where they are asked for."""
FASTER = {name for name in REWARDS if name.endswith("-bfloat16")}
"""Measured where they are asked for, too: their scores are nearly those of the same in float32."""
NOISE_DB = (None, 20, 10, 5, 0)


def noisy(wave: torch.Tensor, snr_db: float | None, generator: torch.Generator) -> torch.Tensor:
    """White noise so many dB below the clip's mean power."""
    if snr_db is None:
        return wave
    noise = torch.randn(wave.shape, generator=generator)
    return (wave + noise * wave.square().mean().sqrt() * 10 ** (-snr_db / 20)).clamp(-1, 1)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds, of this process on a CPU, of the clock on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start, start_cpu = time.perf_counter(), time.process_time()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return result, time.perf_counter() - start
    return result, time.process_time() - start_cpu


def random_checkpoint(name: str, folder: Path) -> Path:
    """A file in the published layout, of random weights."""
    from rlzoo_similarity.network import ECAPA
    from rlzoo_utmos.network import StrongLearner

    torch.manual_seed(0)
    network = StrongLearner() if name == "utmos" else ECAPA()
    path = folder / f"{name}.pt"
    if not path.exists():
        torch.save(network.state_dict(), path)
    return path


def extremes(wave: torch.Tensor, rate: int) -> dict[str, Samples]:
    """Inputs that are not ordinary speech."""
    minute = wave.repeat(-(-60 * rate // len(wave)))[: 60 * rate]
    inputs = {"as it is": wave, "silence, 3 s": torch.zeros(3 * rate), "10 ms": wave[rate : rate + rate // 100]}
    found = {name: to_samples([clip], rate) for name, clip in (inputs | {"60 s": minute}).items()}
    for other in (8_000, 48_000):
        found[f"{other // 1000} kHz"] = to_samples([resample(wave, rate, other)], other)
    return found


def show_extremes(rewards: dict[str, Reward[Any]], wave: torch.Tensor, rate: int, text: str) -> None:
    """One row per reward."""
    inputs = extremes(wave, rate)
    print(f"| reward | {' | '.join(inputs)} |\n|---|{'---|' * len(inputs)}")
    for label, reward in rewards.items():
        cells = []
        for samples in inputs.values():
            heard = resample_samples(samples, reward.sample_rate)
            with torch.no_grad():
                cells.append(f"{reward.score(heard, [Prompt('clip', text)]).values.item():.2f}")
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def one_by_one(reward: Reward[Any], samples: Samples, prompts: list[Prompt]) -> None:
    """Each clip in a call of its own."""
    for row, prompt in enumerate(prompts):
        reward.score(samples[row : row + 1], [prompt])


def climb(reward: Reward[Any], samples: Samples, prompts: list[Prompt]) -> None:
    """The gradient of all scores."""
    torch.autograd.grad(reward.score(samples, prompts).values.sum(), samples.data)


def show_speed(rewards: dict[str, Reward[Any]], samples: Samples) -> None:
    """Audio-seconds per second: each clip alone, all at once, all at once with the gradient."""
    print("| reward | one by one | at once | with gradient |\n|---|---|---|---|")
    for label, reward in rewards.items():
        heard = resample_samples(samples, reward.sample_rate)
        seconds = heard.lengths.sum().item() / (heard.media.sample_rate or 1)
        prompts = [Prompt(str(row)) for row in range(len(heard))]
        with torch.no_grad():
            reward.score(heard[:1], prompts[:1])
            _, alone = timed(partial(one_by_one, reward, heard, prompts))
            _, together = timed(partial(reward.score, heard, prompts))
        cells = [f"{seconds / alone:.1f}", f"{seconds / together:.1f}"]
        wave = heard.data.clone().requires_grad_()
        values = reward.score(Samples(wave[:1], heard.lengths[:1], heard.media), prompts[:1]).values
        if values.requires_grad:
            _, climbing = timed(partial(climb, reward, Samples(wave, heard.lengths, heard.media), prompts))
            cells.append(f"{seconds / climbing:.1f}")
        else:
            cells.append("-")
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path)
    parser.add_argument("--rewards", default=",".join(name for name in REWARDS if name not in NEEDING | FASTER))
    parser.add_argument("--extremes", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--count", type=int, default=None)
    parser.add_argument("--reference", action="store_true")
    arguments = parser.parse_args()
    options: dict[str, dict[str, Any]] = {}
    for assignment in arguments.set:
        key, value = assignment.split("=", 1)
        name, option = key.rsplit(".", 1)
        options.setdefault(name, {})[option] = value
    read = [read_audio(path) for path in sorted(arguments.clips.glob("*.wav"))[: arguments.count]]
    waves, rate = [wave for wave, _ in read], read[0][1]
    seconds = sum(wave.shape[0] for wave in waves) / rate
    generator = torch.Generator().manual_seed(0)
    rows = [to_samples([noisy(wave, snr, generator) for wave in waves], rate) for snr in NOISE_DB]
    prompts = [Prompt(str(index)) for index in range(len(waves))]
    print(f"{len(waves)} clips, {seconds:.0f} s, {rate} Hz, {torch.get_num_threads()} threads, {arguments.device}")
    with tempfile.TemporaryDirectory() as folder:
        rewards = {}
        for label in arguments.rewards.split(","):
            name, fixed = REWARDS[label]
            chosen = {**fixed, **options.get(label, {})}
            if arguments.random_weights and label in NEEDING:
                chosen["checkpoint"] = random_checkpoint(name, Path(folder))
            if name == "similarity":
                chosen.setdefault("reference", sorted(arguments.clips.glob("*.wav"))[0])
            rewards[label] = build_reward(name, chosen).to(arguments.device)
    if arguments.extremes:
        show_extremes(rewards, waves[0], rate, "")
        return
    if arguments.speed:
        show_speed(rewards, to_samples(waves, rate).to(arguments.device))
        return
    print("| reward | natural | 20 dB | 10 dB | 5 dB | 0 dB | ordered pairs | audio-seconds per second |")
    print("|---|---|---|---|---|---|---|---|")
    for label, reward in rewards.items():
        heard = [resample_samples(row, reward.sample_rate) for row in rows]
        heard = [row.to(arguments.device) for row in heard]
        with torch.no_grad():
            reward.score(heard[0][:1], prompts[:1])
            found = [timed(partial(reward.score, row, prompts)) for row in heard]
        scores = torch.stack([result.values for result, _ in found]).cpu()
        ordered = (scores[:-1] > scores[1:]).float().mean().item()
        speed = len(rows) * seconds / sum(spent for _, spent in found)
        means = " | ".join(f"{mean:.2f}" for mean in scores.mean(1).tolist())
        print(f"| {label} | {means} | {ordered:.2f} | {speed:.1f} |", flush=True)
    if arguments.reference:
        from speechmos import dnsmos

        clips = resample_samples(rows[0], 16_000)
        alone = [clips.row(index).clamp(-1, 1).numpy() for index in range(len(clips))]
        dnsmos.run(alone[0], 16_000)
        _, spent = timed(lambda: [dnsmos.run(clip, 16_000) for clip in alone])
        print(f"speechmos, P.808 and P.835 in one call: {seconds / spent:.1f} audio-seconds per second")


if __name__ == "__main__":
    main()
