"""Quality of a voice: its samples beside the recordings of the same test sentences, which it has never seen.

    python benchmarks/voice/evaluate.py --data CORPUS
        [--policy gradtts] [--voice FILE] [--nisqa nisqa.tar] [--steps 2 10 50] [--out DIR]

Text goes through the whole front-end and the learned durations. Writes evaluation.md, evaluation.json and
spectrograms.png into --out, the table after every system, so that an interrupted evaluation leaves what it had. They
hold nothing that is written by hand: what the figures mean is in README.md.
Word error rate is that of the default recogniser of `wer`. Rewards score at the rates they want, resampled from the
voice's own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pictures
import torch

from rlzoo.api import Policy, Prompt, Reward
from rlzoo.audio import resample_samples, to_samples, write_audio
from rlzoo.config.layers import override
from rlzoo.config.registry import discover
from rlzoo.config.resolve import choose
from rlzoo.engine import speak as engine
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.rewards import build_reward
from rlzoo.speech.corpus.speech import SpeechCorpus, SpeechItem

HERE = Path(__file__).parent


def load(name: str, voice: Path | None, sets: Sequence[str] = (), device: str = "cpu") -> Policy:
    """A policy that speaks, with a voice of its own or the one that ships, and options KEY=VALUE."""
    given: dict[str, Any] = {"checkpoint": voice} if voice else {}
    policy: Policy = choose("policy", name, discover(), reduce(override, sets, given)).build()
    return policy.to(device)


def speak(policy: Policy, prompt: Prompt, num_steps: int, seed: int) -> torch.Tensor:
    """(L,) waveform of one prompt, on the CPU."""
    return engine.speak(policy, [prompt], [seed], num_steps).row(0).cpu()


def judged(
    judges: dict[str, Reward[Any]],
    waves: Sequence[torch.Tensor],
    originals: Sequence[torch.Tensor],
    prompts: list[Prompt],
    rate: int,
) -> dict[str, float]:
    """One row of the table: median length ratio, and of every judge the mean and its standard error."""
    ratios = [len(wave) / len(original) for wave, original in zip(waves, originals, strict=True)]
    row = {"length": statistics.median(ratios), "length_worst": max(ratios, key=lambda ratio: abs(ratio - 1))}
    for name, reward in judges.items():
        samples = to_samples(list(waves), rate)
        wanted = resample_samples(samples, reward.sample_rate)
        values = reward.score(wanted, prompts).values.double().cpu()
        row[name] = float(values.mean())
        row[f"{name}_error"] = float(values.std() / len(values) ** 0.5)
    return row


def table(rows: list[dict[str, Any]], judges: Sequence[str]) -> str:
    """Markdown; word error rates are shown as such, in per cent."""
    header = ["", "total length / original's, median (worst)", *judges]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [row["system"], f"{row['length']:.3f} ({row['length_worst']:.2f})"]
        for name in judges:
            mean, error = row[name], row[f"{name}_error"]
            cells.append(f"{-100 * mean:.0f} ± {100 * error:.0f} %" if name == "wer" else f"{mean:.2f} ± {error:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(rows: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """evaluation.md, all of it."""
    judges = [name.removesuffix("_error") for name in rows[0] if name.endswith("_error")]
    head = f"{about['sentences']} test sentences at {about['rate']} Hz; mean ± standard error."
    return f"{head}\n\n{table(rows, judges)}\n\n`{about['command']}`\n"


def test_items(data: Path, rate: int, count: int) -> list[SpeechItem]:
    """The first `count` recordings of the test split."""
    return list(SpeechCorpus.open(data, split="test", sample_rate=rate))[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="corpus, with the voice's own rate")
    parser.add_argument("--policy", default="wavegrad2")
    parser.add_argument("--voice", type=Path, help="default: the voice that ships")
    parser.add_argument("--set", action="append", default=[], help="option=value of the policy; repeatable")
    parser.add_argument("--nisqa", type=Path, help="weights of NISQA v2; left out of the table without them")
    parser.add_argument("--sentences", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 10, 50])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--wavs", type=Path, help="folder for the audio; default: it is not kept")
    args = parser.parse_args()

    keep_freed_memory()  # as every command of rlzoo does
    policy = load(args.policy, args.voice, args.set, args.device)
    rate = policy.media.sample_rate or 0
    items = test_items(args.data, rate, args.sentences)
    prompts = [Prompt(item.id, item.text) for item in items]
    judges: dict[str, Reward[Any]] = {name: build_reward(name, {}) for name in ("wer", "distillmos", "dnsmos")}
    if args.nisqa:
        judges["nisqa"] = build_reward("nisqa", {"checkpoint": str(args.nisqa)})

    args.out.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "benchmarks/voice/evaluate.py", *sys.argv[1:]])
    about = {"sentences": len(items), "rate": rate, "command": command}
    originals = [item.load() for item in items]
    rows, shown = [], {}
    for num_steps in (0, *sorted(args.steps, reverse=True)):
        name = f"{num_steps} steps" if num_steps else "recordings"
        waves = originals
        if num_steps:
            waves = [speak(policy, prompt, num_steps, seed) for seed, prompt in enumerate(prompts)]
        if args.wavs:
            (args.wavs / name.replace(" ", "-")).mkdir(parents=True, exist_ok=True)
            for item, wave in zip(items, waves, strict=True):
                write_audio(args.wavs / name.replace(" ", "-") / f"{item.id}.wav", wave, rate)
        rows.append({"system": name, **judged(judges, waves, originals, prompts, rate)})
        shown[name] = waves[pictures.typical(originals)]
        (args.out / "evaluation.md").write_text(page(rows, about), encoding="utf-8")
        content = json.dumps({"about": about, "rows": rows}, indent=1) + "\n"
        (args.out / "evaluation.json").write_text(content, encoding="utf-8")
        print(table(rows[-1:], list(judges)).splitlines()[-1], flush=True)
    pictures.spectrograms(shown, rate, args.out / "spectrograms.png")


if __name__ == "__main__":
    main()
