"""Does an algorithm follow the reward on the shipped voice? Each is trained on a reward and on its negative.

    python benchmarks/voice/follow.py dlpo ddpo grpo ...        (all that look at a reward, where none is named)
    python benchmarks/voice/follow.py --policy gradtts --reward dnsmos --steps 8 --group 6

Two short runs each, from the algorithm's default preset, on the reward `level` (loudness) of `level.py` or another one.
Same prompts, same noise, same number of steps: the only difference is the sign. Held-out gains of both, and of their
difference, go to `follow.json` and `follow.md` beside this file (`follow-REWARD` for other rewards; in a folder of its
own for other policies than wavegrad2).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ALGORITHMS = ("dlpo", "ddpo", "rwr", "dpok", "klinr", "grpo", "nft", "awm", "dpo", "draft", "bon")
HEAD = """\
Gain on held-out prompts (`level`: in dB) after training on the reward and on its negative, with the same prompts and
noise (`follow.py`). `t` is over the held-out samples of one pair of runs: it says that these two
runs parted, not that another seed would part them the same way.

"""
HEAD += "| algorithm | seed | steps | reward | its negative | difference | paired t |\n|---|---|---|---|---|---|---|\n"


def gains(path: Path, reward: str) -> list[float]:
    """Held-out score after the run minus before it, per sample."""
    first, *_, last = (json.loads(file.read_text())["rows"] for file in sorted((path / "eval").glob("*.json")))
    before = {(row["prompt"], row["index"]): row["scores"][reward] for row in first}
    return [row["scores"][reward] - before[row["prompt"], row["index"]] for row in last]


def trained(algorithm: str, weight: int, arguments: argparse.Namespace, folder: Path) -> list[float]:
    """The gains of one run."""
    out = folder / f"{algorithm}{weight:+d}"
    command = [
        "rlzoo", "run", "--algo", algorithm, "--reward", arguments.reward, "--out", str(out),
        "--policy", arguments.policy, "--steps", str(arguments.steps), "--seed", str(arguments.seed),
        "--set", f"rewards.0.weight={weight}",
        "--set", f"rollout.prompts_per_step={arguments.group}",
        "--set", f"rollout.samples_per_prompt={arguments.group}",
        "--set", "eval.prompts=8", "--set", "train.eval_every=0", "--set", "train.kl_every=0",
    ]  # fmt: skip
    if arguments.reward == "level":
        command += ["--plugin", str(HERE / "level.py")]
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    return gains(out, arguments.reward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithms", nargs="*", default=ALGORITHMS)
    parser.add_argument("--policy", default="wavegrad2")
    parser.add_argument("--reward", default="level")
    parser.add_argument("--group", type=int, default=4, help="prompts in a step, and samples of each")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = HERE if arguments.policy == "wavegrad2" else HERE / arguments.policy
    folder.mkdir(exist_ok=True)
    target = folder / ("follow.json" if arguments.reward == "level" else f"follow-{arguments.reward}.json")
    table = json.loads(target.read_text()) if target.exists() else {}
    for algorithm in arguments.algorithms:
        with TemporaryDirectory() as runs:
            up, down = (trained(algorithm, weight, arguments, Path(runs)) for weight in (1, -1))
        difference = [a - b for a, b in zip(up, down, strict=True)]
        error = stdev(difference) / len(difference) ** 0.5
        table[f"{algorithm} {arguments.seed}"] = {
            "algorithm": algorithm,
            "seed": arguments.seed,
            "reward": round(mean(up), 4),
            "negative": round(mean(down), 4),
            "difference": round(mean(difference), 4),
            "t": round(mean(difference) / error, 1) if error else 0.0,
            "steps": arguments.steps,
            "samples": arguments.group**2,
        }
        print(table[f"{algorithm} {arguments.seed}"], flush=True)
        target.write_text(json.dumps(table, indent=1) + "\n")
    rows = [
        f"| {row['algorithm']} | {row['seed']} | {row['steps']} of {row.get('samples', 16)} | {row['reward']:+.3f} "
        f"| {row['negative']:+.3f} | {row['difference']:+.3f} | {row['t']:.1f} |\n"
        for row in sorted(table.values(), key=lambda row: (ALGORITHMS.index(row["algorithm"]), row["seed"]))
    ]
    target.with_suffix(".md").write_text(HEAD + "".join(rows))


if __name__ == "__main__":
    main()
