"""README's two demonstrations, several seeds each, judged by what did not train: a table and the runs.

    python benchmarks/voice/demonstrations.py [RUN ...] --runs DIR [--seeds 0 1 2] [--nisqa nisqa.tar]
    python benchmarks/voice/demonstrations.py dlpo --runs DIR --policy wavegrad2 --steps STEPS --nisqa nisqa.tar

RUN is one of `dlpo`, `draft` and `negative` (dlpo, paid for low scores); all of them where none is named. Every run is
`rlzoo run --algo ALGO --reward distillmos --seed SEED`, as a user types it. Then `rlzoo eval` judges it with new noise.
Finished runs are kept, and interrupted ones go on: give every policy and number of steps a DIR of its own. Writes
demonstrations.md and demonstrations.json into the folder of the policy (for wavegrad2 without the folder), the table
after every run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNS = {
    "dlpo": ["--algo", "dlpo"],
    "draft": ["--algo", "draft"],
    "negative": ["--algo", "dlpo", "--set", "rewards.0.weight=-1"],
}


def rlzoo(*arguments: str | Path) -> float:
    """Run one command; the seconds that it took."""
    begin = time.monotonic()
    words = [str(word) for word in arguments]
    subprocess.run([sys.executable, "-m", "rlzoo", *words], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - begin


def measured(name: str, seed: int, folder: Path, nisqa: Path | None, extra: list[str]) -> dict[str, Any]:
    """One run, with arguments besides its own, and its judgement: a row of the table."""
    run, timed, judged = folder / f"{name}-{seed}", folder / f"{name}-{seed}.seconds", folder / f"{name}-{seed}.json"
    if not timed.exists():
        begun = run.exists()
        fresh = [*RUNS[name], "--reward", "distillmos", "--seed", str(seed), *extra, "--out", run]
        command = ["--resume", run] if begun else fresh
        seconds = rlzoo("run", *command)
        timed.write_text("" if begun else f"{seconds:.0f}", encoding="utf-8")
    if not judged.exists():
        judges, weights = ["wer", "dnsmos"], []
        if nisqa:
            judges.append("nisqa")
            weights = ["--set", f"judges.nisqa.checkpoint={nisqa}"]
        rlzoo("eval", run, "--judges", ",".join(judges), *weights, "--out", judged)
    last = max((run / "eval").glob("*.json"))
    held_out = json.loads(last.read_text(encoding="utf-8"))["scores"]["distillmos"]
    target = json.loads(judged.read_text(encoding="utf-8"))["targets"][0]
    return {
        "run": name,
        "seed": seed,
        "seconds": float(timed.read_text(encoding="utf-8") or 0) or None,  # None: it was interrupted
        "held_out": {key: held_out[key] for key in ("base", "mean", "gain", "gain_error")},
        "paired": {key: value for key, value in target["paired"].items() if "/" not in key and key != "total"},
        "diversity": target.get("diversity"),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    judges = [name for name in ("nisqa", "dnsmos", "wer") if all(name in row["paired"] for row in rows)]
    header = ["run", "seed", "seconds", "Distill-MOS, held out", "gain", *judges]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        held_out = row["held_out"]
        cells = [
            row["run"],
            str(row["seed"]),
            f"{row['seconds']:.0f}" if row["seconds"] else "–",
            f"{held_out['base']:.2f} → {held_out['mean']:.2f}",
            f"{held_out['gain']:+.2f} ± {held_out['gain_error']:.2f}",
        ]
        for name in judges:
            pair = row["paired"][name]
            base, tuned, p = pair["base"], pair["tuned"], pair["p"]
            if name == "wer":
                cells.append(f"{-100 * base:.0f} → {-100 * tuned:.0f} % (p = {p:.2f})")
            else:
                cells.append(f"{base:.2f} → {tuned:.2f} ({pair['low']:+.2f} to {pair['high']:+.2f}, p = {p:.3f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="RUN", choices=[*RUNS, []], default=[])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--nisqa", type=Path, help="weights of NISQA v2; left out of the table without them")
    parser.add_argument("--policy", default="gradtts")
    parser.add_argument("--steps", type=int, help="of training; default: the algorithm's")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    extra = ["--policy", args.policy, *(["--steps", str(args.steps)] if args.steps else [])]
    out = HERE if args.policy == "wavegrad2" else HERE / args.policy
    target = out / "demonstrations.json"
    known = json.loads(target.read_text(encoding="utf-8"))["rows"] if target.exists() else []
    rows = {(row["run"], row["seed"]): row for row in known}
    for name in args.names or RUNS:
        for seed in args.seeds if name != "negative" else args.seeds[:1]:
            rows[name, seed] = measured(name, seed, args.runs, args.nisqa, extra)
            ordered = [rows[key] for key in sorted(rows, key=lambda key: (list(RUNS).index(key[0]), key[1]))]
            target.write_text(json.dumps({"rows": ordered}, indent=1) + "\n", encoding="utf-8")
            head = (
                "Held out: 16 prompts, the run's own evaluation. Judges: new noise, each prompt twice; WER by Whisper."
            )
            command = shlex.join(["python", "benchmarks/voice/demonstrations.py", *sys.argv[1:]])
            page = f"{head}\n\n{table(ordered)}\n\n`{command}`\n"
            (out / "demonstrations.md").write_text(page, encoding="utf-8")
            print(table(ordered).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
