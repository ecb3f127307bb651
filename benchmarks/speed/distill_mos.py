"""The reward `distillmos` next to the published package: audio-seconds per second on one thread, in one run.

    python benchmarks/speed/distill_mos.py CLIPS_DIR [--out benchmarks/speed/results/cpu-distillmos]
    python benchmarks/speed/distill_mos.py CLIPS_DIR --device cuda

Batches of eight clips: cut to 3, 5 and 7.68 s (the package takes each batch in one call), and as they are (ragged; the
package takes clip by clip, for padding a clip beyond 7.68 s would change its score). The sides take turns; the best of
`--repeats` counts, in CPU-seconds on a CPU, which other processes change little. Both have the allocator as rlzoo sets
it. Prints the largest difference between the scores, and fails beyond 1e-4.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import peak_memory, seconds, store
from torch import Tensor

from rlzoo.api import Reward, Samples
from rlzoo.audio import full_precision, read_audio, to_samples
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.rewards import build_reward

RATE = 16_000
AGREEMENT = 1e-4


@torch.no_grad()
def package_scores(network: Any, waves: list[Tensor]) -> Tensor:
    """(N,): one call for clips of one length, one call a clip otherwise."""
    with full_precision(waves[0].device):
        if len({len(wave) for wave in waves}) == 1:
            found: Tensor = network(torch.stack(waves))[:, 0]
            return found
        return torch.cat([network(wave[None])[:, 0] for wave in waves])


@torch.no_grad()
def our_scores(reward: Reward[Any], samples: Samples) -> Tensor:
    """(N,)."""
    return reward.score(samples, []).values


def gradient(reward: Reward[Any], samples: Samples) -> Tensor:
    """(N, L)."""
    data = samples.data.clone().requires_grad_()
    score = reward.score(Samples(data, samples.lengths, samples.media), []).values.sum()
    (found,) = torch.autograd.grad(score, data)
    return found


def spent(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return seconds(call, device)
    start = time.process_time()
    call()
    return time.process_time() - start


def best_of_turns(calls: dict[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """Least seconds of each call, one after the other in each turn."""
    turns = [{name: spent(call, device) for name, call in calls.items()} for _ in range(repeats)]
    return {name: min(turn[name] for turn in turns) for name in calls}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="a folder of WAV files, at least eight")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--count", type=int, default=8, help="clips in a batch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=None, help="stem of the .json and .md to write")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        network = ConvTransformerSQAModel().eval().to(device)
    reward = build_reward("distillmos", {}).to(device)
    paths = sorted(options.clips.glob("*.wav"))
    clips = [read_audio(path, RATE, on_rate="resample")[0] for path in paths]
    speech = torch.cat(clips)
    batches = {
        f"{options.count} x {length} s": list(speech.split(int(length * RATE))[: options.count])
        for length in (3, 5, 7.68)
    }
    batches[f"{options.count} clips, ragged"] = clips[: options.count]
    results: dict[str, dict[str, float]] = {}
    for name, waves in batches.items():
        waves = [wave.to(device) for wave in waves]
        samples = to_samples(waves, RATE).to(device)
        calls = {
            "package": partial(package_scores, network, waves),
            "ours": partial(our_scores, reward, samples),
            "ours, gradient": partial(gradient, reward, samples),
        }
        taken = best_of_turns(calls, options.repeats, device)
        off = float((calls["package"]() - calls["ours"]()).abs().max())
        if off > AGREEMENT:
            raise SystemExit(f"{name}: the scores are {off:.1e} apart")
        length = sum(len(wave) for wave in waves) / RATE
        results[name] = {side: length / least for side, least in taken.items()}
        results[name] |= {"times as fast": taken["package"] / taken["ours"], "difference": off}
        print(name, json.dumps(results[name]), flush=True)
    head = "| batch | package | ours | times as fast | ours with gradient | largest difference |"
    rows = [
        f"| {name} | {r['package']:.1f} | {r['ours']:.1f} | {r['times as fast']:.2f} "
        f"| {r['ours, gradient']:.1f} | {r['difference']:.1e} |"
        for name, r in results.items()
    ]
    table = "\n".join([head, "|---" * 6 + "|", *rows])
    print(f"Seconds of speech per second, {torch.get_num_threads()} thread, {options.device}\n\n{table}")
    if options.out is not None:
        about = {"peak_gb": round(peak_memory(device), 2)}
        store(options.out, "distillmos: seconds of speech per second", table, device, results=results, about=about)


if __name__ == "__main__":
    main()
