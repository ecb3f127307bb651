"""What each reward says of recordings with more and more noise, and how fast it says it.

    python benchmarks/rewards.py CLIPS_DIR [--set nisqa.checkpoint=nisqa.tar ...] [--rewards dnsmos,nisqa] [--reference]

Prints a Markdown table. `--reference` times the published DNSMOS package on the same clips too (needs librosa,
onnxruntime and requests). Threads: OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlzoo.api import Prompt
from rlzoo.audio import read_audio, resample_samples, to_samples
from rlzoo.rewards import build_reward

REWARDS: dict[str, tuple[str, dict[str, Any]]] = {
    "dnsmos": ("dnsmos", {}),
    "dnsmos-p835": ("dnsmos", {"model": "p835"}),
    "dnsmos-pro": ("dnsmos-pro", {}),
    "nisqa": ("nisqa", {}),
    "nisqa-tts": ("nisqa-tts", {}),
    "guard": ("guard", {}),
}
NOISE_DB = (None, 20, 10, 5, 0)


def noisy(wave: torch.Tensor, snr_db: float | None, generator: torch.Generator) -> torch.Tensor:
    """White noise so many dB below the clip's mean power."""
    if snr_db is None:
        return wave
    noise = torch.randn(wave.shape, generator=generator)
    return (wave + noise * wave.square().mean().sqrt() * 10 ** (-snr_db / 20)).clamp(-1, 1)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds."""
    start = time.perf_counter()
    with torch.no_grad():
        result = call()
    return result, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path)
    parser.add_argument("--rewards", default=",".join(REWARDS))
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
    print(f"{len(waves)} clips, {seconds:.0f} s, {rate} Hz, {torch.get_num_threads()} threads")
    print("| reward | natural | 20 dB | 10 dB | 5 dB | 0 dB | ordered pairs | audio-seconds per second |")
    print("|---|---|---|---|---|---|---|---|")
    for label in arguments.rewards.split(","):
        name, fixed = REWARDS[label]
        reward = build_reward(name, {**fixed, **options.get(label, {})})
        heard = [row if reward.sample_rate is None else resample_samples(row, reward.sample_rate) for row in rows]
        timed(lambda r=reward, h=heard: r.score(h[0][:1], prompts[:1]))
        found = [timed(lambda r=reward, h=row: r.score(h, prompts).values) for row in heard]
        scores = torch.stack([values for values, _ in found])
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
