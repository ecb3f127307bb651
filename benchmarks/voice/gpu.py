"""A voice from nothing, on one GPU, in under 25 minutes: sentences, corpus, training, schedules, evaluation, pictures.

    python benchmarks/voice/gpu.py --out voice-16k [--minutes 15] [--nisqa nisqa.tar] [--device cuda]

Everything it runs is a command that can be run by hand; each is printed, and its time goes to OUT/times.json. A stage
that is finished is not repeated and an interrupted training goes on, so call it again after an interruption. Text
comes from the grammar in rlzoo/speech/corpus/sentences.py, speech from flite's `rms` at its own 16 kHz.

flite is installed with apt-get where it is missing and this is root. On a machine without network, bring its packages
(`apt-get download flite libflite1 libasound2t64 libasound2-data`) and name their folder with --debs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RLZOO = [sys.executable, "-m", "rlzoo"]


def run(*command: str | Path) -> None:
    """One command, shown first; exits with its message where it fails."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    if code := subprocess.run(words, check=False).returncode:
        sys.exit(code)


def install_flite(debs: Path | None) -> None:
    """Make sure that the program flite is there."""
    if shutil.which("flite"):
        return
    if debs is not None:
        run("dpkg", "--install", *sorted(debs.glob("*.deb")))
    elif hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        run("apt-get", "install", "--yes", "--quiet", "flite")
    if not shutil.which("flite"):
        sys.exit("flite is not installed: apt-get install flite, or bring its packages and name them with --debs DIR")


def count(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=15.0, help="of training")
    parser.add_argument("--sentences", type=int, default=6000)
    parser.add_argument("--preset", default="mini-16k")
    parser.add_argument("--voice", default="rms", help="flite's")
    parser.add_argument("--rate", type=int, default=16000)
    parser.add_argument("--tune", type=int, nargs="*", default=[4, 6, 10, 25])
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 6, 10, 50])
    parser.add_argument("--nisqa", type=Path, help="weights of NISQA v2")
    parser.add_argument("--debs", type=Path, help="folder with flite's Debian packages")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[], help="option=value of the training; repeatable")
    args = parser.parse_args()

    out: Path = args.out
    text, corpus, training = out / "sentences.txt", out / "corpus", out / "training"
    voice, tuned = training / "voice.safetensors", out / "voice.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    done: dict[str, float] = {}
    times = out / "times.json"
    if times.exists():
        done = json.loads(times.read_text())
    began = time.monotonic()

    def finished(stage: str) -> None:
        nonlocal began
        done[stage] = round(time.monotonic() - began, 1)
        began = time.monotonic()
        times.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(f"== {stage}: {done[stage]} s", flush=True)

    if "corpus" not in done:
        install_flite(args.debs)
        if not text.exists():
            run(*RLZOO, "corpus", "sentences", "--count", str(args.sentences), "--out", text)
        run(*RLZOO, "corpus", "flite", "--voice", args.voice, "--text", text, "--out", corpus, "--rate", str(args.rate))
        finished("corpus")
    if "training" not in done:
        options = [f"minutes={args.minutes}", "half=true", "validation_utterances=8", "validation_steps=[6,10,50]"]
        options += ["judges.dnsmos={}", "judges.wer={}", "rollout_levels=[0.835,0.35]"]
        options += [f'judges.nisqa.checkpoint="{args.nisqa.resolve()}"'] if args.nisqa else []
        if args.device.startswith("cuda") and not shutil.which("cc"):
            options.append("compile=false")  # said here, because compiling without a compiler would stop the training
        flags = [word for option in [*options, *args.set] for word in ("--set", option)]
        resume = ["--resume"] if (training / "train.pt").exists() else []
        where = ["--data", corpus, "--out", training, "--device", args.device]
        run(*RLZOO, "pretrain", "--policy", "wavegrad2", "--preset", args.preset, *where, *flags, *resume)
        finished("training")
    if args.tune and "schedules" not in done:
        listened = str(min(6, count(corpus / "validation.txt")))
        steps = [word for k in args.tune for word in ("--steps", str(k))]
        where = ["--checkpoint", voice, "--data", corpus, "--out", tuned, "--device", args.device]
        run(*RLZOO, "tune-schedule", *where, *steps, "--utterances", listened)
        finished("schedules")
    best = tuned if args.tune else voice
    nisqa = ["--nisqa", args.nisqa] if args.nisqa else []
    where = ["--data", corpus, "--voice", best, "--out", out, "--wavs", out / "wavs", "--device", args.device]
    run(sys.executable, HERE / "evaluate.py", *where, *nisqa, "--steps", *map(str, args.steps))
    run(sys.executable, HERE / "pictures.py", training / "train.jsonl", out / "losses.png")
    finished("evaluation")
    print(f"voice: {best}\ntable: {out / 'evaluation.md'}\npictures: {out}/losses.png, {out}/spectrograms.png")


if __name__ == "__main__":
    main()
