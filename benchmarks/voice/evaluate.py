"""How good is a voice? Its samples beside the recordings of the same test sentences, which it has never seen.

    python benchmarks/voice/evaluate.py --data CORPUS [--nisqa nisqa.tar] [--sentences 12] [--steps 2 6 10 50]

Text goes through the whole front-end and the learned durations. Prints a Markdown table; writes it and a JSON beside
this file. Word error rate is pocketsphinx's; rewards score at the rates they want, resampled from the voice's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from rlzoo_wavegrad2 import WaveGrad2Options
from rlzoo_wavegrad2.policy import WaveGrad2Policy

from rlzoo.api import Prompt, Reward, Samples
from rlzoo.audio import resample_samples, to_samples
from rlzoo.corpus.speech import SpeechCorpus
from rlzoo.rewards import build_reward

HERE = Path(__file__).parent


def speak(policy: WaveGrad2Policy, prompt: Prompt, num_steps: int, seed: int) -> torch.Tensor:
    """(L,) waveform of one prompt."""
    cond, schedule = policy.condition([prompt]), policy.schedule(num_steps)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *policy.state_shape(cond), generator=generator)
    with torch.no_grad():
        for k in range(num_steps):
            step = policy.transition(x, torch.tensor([k]), cond, schedule)
            x = step.rsample(torch.randn(x.shape, generator=generator)) if schedule.stochastic[k] else step.mode
    return policy.decode(x, cond).data[0]


def score(reward: Reward[Any], samples: Samples, prompts: list[Prompt]) -> float:
    """Mean score."""
    wanted = samples if reward.sample_rate is None else resample_samples(samples, reward.sample_rate)
    return float(reward.score(wanted, prompts).values.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--voice", type=Path)
    parser.add_argument("--nisqa", type=Path)
    parser.add_argument("--sentences", type=int, default=12)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 6, 10, 50])
    args = parser.parse_args()

    policy = WaveGrad2Policy(WaveGrad2Options(checkpoint=args.voice))
    rate = policy.config.sample_rate
    items = list(SpeechCorpus.open(args.data, split="test", sample_rate=rate))[: args.sentences]
    prompts = [Prompt(item.id, item.text) for item in items]
    judges: dict[str, Reward[Any]] = {"dnsmos": build_reward("dnsmos", {}), "wer": build_reward("wer", {})}
    if args.nisqa:
        judges["nisqa"] = build_reward("nisqa", {"checkpoint": str(args.nisqa)})

    original = [item.load() for item in items]
    systems = {"recordings": (original, 0.0)}
    for num_steps in args.steps:
        started = time.process_time()
        waves = [speak(policy, prompt, num_steps, seed) for seed, prompt in enumerate(prompts)]
        factor = (time.process_time() - started) * rate / sum(len(wave) for wave in waves)
        systems[f"{num_steps} steps"] = (waves, factor)
    rows = []
    for name, (waves, factor) in systems.items():
        lengths = statistics.median(len(w) / len(o) for w, o in zip(waves, original, strict=True))
        scores = {judge: score(reward, to_samples(waves, rate), prompts) for judge, reward in judges.items()}
        rows.append({"system": name, "length ratio": lengths, "CPU s per audio s": factor, **scores})
    header = list(rows[0])
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(v if isinstance(v, str) else f"{v:.2f}" for v in row.values()) + " |" for row in rows]
    table = "\n".join(lines)
    print(table)
    (HERE / "evaluation.md").write_text(
        f"{len(items)} test sentences; `wer` is pocketsphinx's word error rate, negated, at most 1.\n\n{table}\n",
        encoding="utf-8",
    )
    (HERE / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
