"""Reward hacking on the shipped voice: does a judge fall while the trained reward rises, and is it flagged in time?

    rlzoo assets pull nisqa-v2 && python benchmarks/voice/hacking.py --runs DIR [RUN ...]

Runs on Distill-MOS of two to three times the usual length, judged every few steps by NISQA, DNSMOS and the signal
checks of `guard`, which do not train: `draft` and `dlpo` as they are; `draft` with the denoiser's biases as well, which
is enough to exploit the reward; and two remedies, a second reward (Distill-MOS + DNSMOS) and `dpok` with ten times its
KL weight. Interrupted runs go on. Writes hacking.md, hacking.json and hacking.png into --out, after every run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from evaluate import HERE
from pictures import save

from rlzoo.stats.hacking import hacking_flag

mpl.use("Agg")
from matplotlib import pyplot as plt

DRAFT = ["--algo", "draft", "--reward", "distillmos", "--steps", "60"]
BIASES = ["--set", "policy.trainable=biases"]
RUNS = {
    "draft": DRAFT,
    "draft, biases": [*DRAFT, *BIASES],
    "draft, biases, + DNSMOS": [*DRAFT, *BIASES, "--reward", "dnsmos"],
    "dlpo": ["--algo", "dlpo", "--reward", "distillmos", "--steps", "40"],
    "dpok, KL x 10": ["--algo", "dpok", "--reward", "distillmos", "--steps", "40", "--set", "algorithm.beta=0.1"],
}
JUDGES = ("nisqa", "dnsmos", "guard")
SHOWN = ("distillmos", *JUDGES)


def run(name: str, folder: Path, every: int) -> list[dict[str, Any]]:
    """Make or finish one run; its evaluations in order, each `{"step", "rows"}`."""
    out = folder / "".join(letter if letter.isalnum() else "-" for letter in name)
    if not (out / "report.html").exists():
        judges = [judge for judge in JUDGES if judge not in RUNS[name]]
        options = [
            "--set", f"train.eval_every={every}",
            "--set", f"eval.judges={json.dumps(judges)}",
        ]  # fmt: skip
        command = ["--resume", str(out)] if out.exists() else [*RUNS[name], *options, "--out", str(out)]
        subprocess.run([sys.executable, "-m", "rlzoo", "run", *command], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "eval").glob("*.json"))]


def by_prompt(evaluation: dict[str, Any], score: str) -> dict[str, float]:
    """Held-out score of every prompt."""
    return {row["prompt"]: row["scores"][score] for row in evaluation["rows"]}


def told(evaluations: list[dict[str, Any]], trained: tuple[str, ...]) -> list[dict[str, Any]]:
    """For every evaluation: step, change of every score since the start, and whether hacking is flagged."""
    first, points = evaluations[0], []
    prompts = list(by_prompt(first, "total"))
    judges = [name for name in JUDGES if name not in trained]

    def pair(evaluation: dict[str, Any], score: str) -> tuple[list[float], list[float]]:
        tuned, base = by_prompt(evaluation, score), by_prompt(first, score)
        return [tuned[prompt] for prompt in prompts], [base[prompt] for prompt in prompts]

    for evaluation in evaluations:
        changes = {}
        for score in SHOWN:
            tuned, base = pair(evaluation, score)
            changes[score] = sum(tuned) / len(tuned) - sum(base) / len(base)
        verdict = hacking_flag(pair(evaluation, "total"), {name: pair(evaluation, name) for name in judges})
        points.append({"step": evaluation["step"], **changes, "flagged": list(verdict.worse) if verdict.hacked else []})
    return points


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: where every judge was highest, what it had become at the end, and the flag."""
    lines = [
        "| run | score | change at its best (step) | change at the end | flagged first at |",
        "|---|---|---|---|---|",
    ]
    for name, points in found.items():
        flag = next((point for point in points if point["flagged"]), None)
        flagged = f"step {flag['step']}: {', '.join(flag['flagged'])}" if flag else "never"
        for score in SHOWN:
            best = max(points, key=lambda point, score=score: point[score])
            cells = [name, score, f"{best[score]:+.2f} ({best['step']})", f"{points[-1][score]:+.2f}", flagged]
            lines.append("| " + " | ".join(cells) + " |")
            name, flagged = "", ""
    return "\n".join([*lines, "", "![Changes of the scores over the steps](hacking.png)", ""])


def picture(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel a run: every score's change over the steps."""
    figure, axes = plt.subplots(1, len(found), figsize=(3.6 * len(found), 3.2), sharey=True, layout="constrained")
    for axis, (name, points) in zip([axes] if len(found) == 1 else axes, found.items(), strict=True):
        for score in SHOWN:
            axis.plot([point["step"] for point in points], [point[score] for point in points], label=score)
        for point in points:
            if point["flagged"]:
                axis.axvline(point["step"], color="0.8", zorder=0)
        axis.axhline(0, color="0.6", lw=0.6)
        axis.set(title=name, xlabel="step")
        axis.legend(fontsize=7)
    save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--every", type=int, default=5, help="steps between evaluations")
    parser.add_argument("--out", type=Path, default=HERE / "gradtts")
    args = parser.parse_args()
    target = args.out / "hacking.json"
    found = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    for name in args.names or RUNS:
        found[name] = told(run(name, args.runs, args.every), tuple(RUNS[name]))
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (args.out / "hacking.md").write_text(page(found), encoding="utf-8")
        picture(found, args.out / "hacking.png")
        print(name, found[name][-1], flush=True)


if __name__ == "__main__":
    main()
