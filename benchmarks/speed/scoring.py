"""Our rewards next to the packages that a user would call instead: seconds, and whether they say the same.

    python benchmarks/speed/scoring.py CLIPS_DIR --nisqa nisqa.tar [--out benchmarks/speed/results/cpu-scoring]

CLIPS_DIR has WAV files and a metadata.csv in LJSpeech's layout. A package takes clip after clip, ours the batch. They
take turns on one thread. The least CPU-seconds of `--repeats` turns count, which other processes change little. Needs
the extras `whisper` and `references`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from distill_mos import best_of_turns
from measure import store
from torch import Tensor

from rlzoo.api import Prompt
from rlzoo.audio import read_audio, resample_samples, to_samples
from rlzoo.engine.allocator import keep_freed_memory
from rlzoo.rewards import build_reward
from rlzoo.speech.corpus.metadata import read_metadata

RATE = 16_000
Scorer = Callable[[Tensor, str], float]
"""Waveform (L,) at 16 kHz and its text -> score."""


def distillmos() -> Scorer:
    """The package `distillmos`."""
    from distillmos import ConvTransformerSQAModel

    with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights are
        network = ConvTransformerSQAModel().eval()
    return lambda wave, _: float(network(wave[None]))


def dnsmos() -> Scorer:
    """The package `speechmos`, which computes P.835 as well."""
    from speechmos import dnsmos

    return lambda wave, _: float(dnsmos.run(wave.clamp(-1, 1).numpy(), RATE)["p808_mos"])


def nisqa(weights: Path) -> Scorer:
    """The package `torchmetrics`, which keeps its network from call to call."""
    from torchmetrics.functional.audio import nisqa

    nisqa.NISQA_DIR = str(weights.parent)
    return lambda wave, _: float(nisqa.non_intrusive_speech_quality_assessment(wave, RATE)[0])


def wer() -> Scorer:
    """The packages `faster-whisper`, `whisper-normalizer` and `jiwer`, as their READMEs say."""
    import jiwer
    from faster_whisper import WhisperModel
    from rlzoo_wer.whisper import tiny_en
    from whisper_normalizer.english import EnglishTextNormalizer

    model, spoken = WhisperModel(str(tiny_en()), device="cpu", cpu_threads=1), EnglishTextNormalizer()

    def score(wave: Tensor, text: str) -> float:
        segments, _ = model.transcribe(wave.numpy(), language="en", beam_size=1, temperature=0.0)
        heard = " ".join(segment.text for segment in segments)
        return -float(jiwer.wer(spoken(text), spoken(heard)))

    return score


@torch.no_grad()
def one_by_one(scorer: Scorer, waves: Sequence[Tensor], prompts: Sequence[Prompt]) -> Tensor:
    """(N,): clip after clip."""
    return torch.tensor([scorer(wave, prompt.text) for wave, prompt in zip(waves, prompts, strict=True)])


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--nisqa", type=Path, help="weights of NISQA v2, named nisqa.tar; left out without them")
    parser.add_argument("--count", type=int, default=12, help="clips in the batch")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, help="stem of the .json and .md to write")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    sides: dict[str, tuple[str, Callable[[], Scorer], dict[str, Any]]] = {
        "distillmos": ("distillmos", distillmos, {}),
        "dnsmos": ("speechmos (P.808 and P.835)", dnsmos, {}),
        "wer": ("faster-whisper, whisper-normalizer, jiwer", wer, {}),
    }
    if options.nisqa:
        sides["nisqa"] = ("torchmetrics", partial(nisqa, options.nisqa), {"checkpoint": str(options.nisqa)})
    texts = read_metadata(options.clips / "metadata.csv").texts
    prompts = [Prompt(name, text) for name, text in texts.items()][: options.count]
    paths = [options.clips / "wavs" / f"{prompt.id}.wav" for prompt in prompts]
    waves = [read_audio(path, RATE, on_rate="resample")[0] for path in paths]
    audio = sum(len(wave) for wave in waves) / RATE
    rows: dict[str, dict[str, float | str]] = {}
    for name, (package, make, settings) in sides.items():
        reward = build_reward(name, settings)
        samples = resample_samples(to_samples(waves, RATE), reward.sample_rate)
        calls = {
            "package": partial(one_by_one, make(), waves, prompts),
            "ours": lambda reward=reward, samples=samples: reward.score(samples, prompts).values.detach(),
        }
        off = (calls["package"]() - calls["ours"]()).abs()
        taken = best_of_turns(calls, options.repeats, torch.device("cpu"))
        rows[name] = {
            "package": package,
            "package_speed": audio / taken["package"],
            "our_speed": audio / taken["ours"],
            "ratio": taken["package"] / taken["ours"],
            "mean_difference": float(off.mean()),
            "largest_difference": float(off.max()),
        }
        print(name, json.dumps(rows[name]), flush=True)
    head = "| reward | instead of | package | ours | times as fast | mean difference of a score | largest |"
    lines = [
        f"| {name} | {row['package']} | {row['package_speed']:.1f} | {row['our_speed']:.1f} | {row['ratio']:.2f} "
        f"| {row['mean_difference']:.1e} | {row['largest_difference']:.1e} |"
        for name, row in rows.items()
    ]
    table = "\n".join([head, "|---" * 7 + "|", *lines])
    print(f"Seconds of speech per second\n\n{table}")
    if options.out is not None:
        title = "Rewards next to packages: seconds of speech per second"
        store(options.out, title, table, torch.device("cpu"), results=rows, about={"clips": len(waves)})


if __name__ == "__main__":
    main()
