"""WaveGrad 2 from nothing on one GPU: corpus, phone times, training, schedules, evaluation, pictures.

    python benchmarks/voice/gpu.py --out voice --data LJSpeech-1.1 [--preset base] [--minutes 600] [--nisqa nisqa.tar]
    python benchmarks/voice/gpu.py --out voice --preset mini-16k --minutes 15

With --data it learns from recordings in LJSpeech's layout, aligned first where they have no phones.jsonl. Without, the
program hibari speaks a corpus in its natural voice: sentences of the grammar in rlzoo/speech/corpus/sentences.py.

Everything it runs is a command that can be run by hand; each is printed, and its time goes to OUT/times.json. A stage
that is finished is not repeated and an interrupted training goes on, so call it again after an interruption. Needs the
extras `corpus`, `whisper` and, without --data, `hibari`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlzoo_wavegrad2.network import PRESETS

HERE = Path(__file__).parent
RLZOO = [sys.executable, "-m", "rlzoo"]


def run(*command: str | Path) -> None:
    """One command, shown first; exits with its message where it fails."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    if code := subprocess.run(words, check=False).returncode:
        sys.exit(code)


class Stages:
    """Stages that were finished, with their seconds, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Times a stage that ends without an error."""
        begin = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - begin, 1)
        self.path.write_text(json.dumps(self.seconds, indent=1) + "\n", encoding="utf-8")
        print(f"== {name}: {self.seconds[name]} s", flush=True)


def make_corpus(args: argparse.Namespace) -> None:
    """Phone times for the recordings that are given, or a corpus that is spoken."""
    if args.data:
        if not (args.data / "phones.jsonl").exists():
            run(*RLZOO, "corpus", "align", args.data)
        return
    text = args.out / "sentences.txt"
    rate = str(PRESETS[args.preset].sample_rate)
    run(*RLZOO, "corpus", "sentences", "--count", str(args.sentences), "--out", text)
    run(*RLZOO, "corpus", "speak", "--text", text, "--out", args.out / "corpus", "--rate", rate)


def train(args: argparse.Namespace, corpus: Path, out: Path) -> None:
    """Train, or go on where a training was interrupted."""
    options = [f"minutes={args.minutes}", f"trim_silence={str(bool(args.data)).lower()}"]
    options += ["half=true", "validation_utterances=8", "validation_steps=[6,10,50]", "rollout_levels=[0.835,0.35]"]
    options += ["judges.distillmos={}", "judges.wer={}"]
    options += [f'judges.nisqa.checkpoint="{args.nisqa.resolve()}"'] if args.nisqa else []
    if args.device.startswith("cuda") and not shutil.which("cc"):
        options.append("compile=false")  # said here, because compiling without a compiler would stop the training
    flags = [word for option in [*options, *args.set] for word in ("--set", option)]
    resume = ["--resume"] if (out / "train.pt").exists() else []
    where = ["--data", corpus, "--out", out, "--device", args.device]
    run(*RLZOO, "pretrain", "--policy", "wavegrad2", "--preset", args.preset, *where, *flags, *resume)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="recordings in LJSpeech's layout; default: a corpus is spoken")
    parser.add_argument("--preset", default="base", choices=list(PRESETS))
    parser.add_argument("--minutes", type=float, default=600.0, help="of training")
    parser.add_argument("--sentences", type=int, default=6000, help="of the corpus that is spoken")
    parser.add_argument("--test-sentences", type=int, default=24)
    parser.add_argument("--steps", type=int, nargs="+", default=[6, 50], help="denoising steps of the evaluation")
    parser.add_argument("--tune", type=int, nargs="+", default=[4, 6, 10, 25], help="steps that get a schedule")
    parser.add_argument(
        "--tune-utterances", type=int, default=6, help="validation recordings that schedules are tuned on"
    )
    parser.add_argument("--nisqa", type=Path, help="weights of NISQA v2")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], help="option=value of the training; repeatable")
    args = parser.parse_args()

    out: Path = args.out
    corpus, training, voice = args.data or out / "corpus", out / "training", out / "voice.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    stages = Stages(out / "times.json")
    if "corpus" not in stages.seconds:
        with stages.timed("corpus"):
            make_corpus(args)
    if "training" not in stages.seconds:
        with stages.timed("training"):
            train(args, corpus, training)
    if "schedules" not in stages.seconds:
        with stages.timed("schedules"):
            steps = [word for k in args.tune for word in ("--steps", str(k))]
            where = ["--checkpoint", training / "voice.safetensors", "--data", corpus, "--out", voice]
            count = ["--utterances", str(args.tune_utterances)]
            run(*RLZOO, "tune-schedule", *where, *steps, "--device", args.device, *count)
    with stages.timed("evaluation"):
        nisqa = ["--nisqa", args.nisqa] if args.nisqa else []
        where = ["--data", corpus, "--voice", voice, "--out", out, "--wavs", out / "wavs", "--device", args.device]
        count = ["--sentences", str(args.test_sentences), "--steps", *map(str, args.steps)]
        run(sys.executable, HERE / "evaluate.py", *where, *nisqa, *count)
        run(sys.executable, HERE / "pictures.py", training / "train.jsonl", out / "losses.png")
    print(f"voice: {voice}\ntable: {out / 'evaluation.md'}\npictures: {out}/losses.png, {out}/spectrograms.png")


if __name__ == "__main__":
    main()
