"""Does an algorithm follow the reward on the shipped voice? Each is trained on a reward and on its negative.

    python benchmarks/voice/follow.py grpo grpo:paper nft awm --steps 8
    python benchmarks/voice/follow.py --policy wavegrad2 --reward level --judges= --group 4 --steps 3

`name:preset` takes that preset; without names: every algorithm that looks at a reward. Both runs of an algorithm have
the same prompts, noise and steps: the only difference is the sign. Held-out gains of both, their difference, and the
gains of judges that did not train go to `POLICY/follow-REWARD.json` and `.md` beside this file (for wavegrad2 without
the folder; for the reward `level` the name is `follow`).

A row that is there already, with the same settings, is not made again: remove the JSON file when the voice has changed.
Runs are kept in `--runs`: the same command continues what was stopped. `level` is loudness, of `level.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rlzoo.config.registry import discover

HERE = Path(__file__).parent
CONTROLS = {"sft", "onlydl"}  # they look at no reward
HEAD = """\
Gain on held-out prompts (`level`: in dB) after training on the reward and on its negative, with the same prompts and
noise (`follow.py`). `t` is over the held-out samples of one pair of runs: it says that these two
runs parted, not that another seed would part them the same way. A judge did not train; its two gains are those of the
run on the reward and of the run on its negative.

"""


def evaluations(run: Path) -> list[list[dict[str, Any]]]:
    """The held-out rows before the run and after it."""
    files = sorted((run / "eval").glob("*.json"))
    return [json.loads(file.read_text())["rows"] for file in (files[0], files[-1])]


def gains(run: Path, judge: str) -> list[float]:
    """By how much each held-out sample scores higher after the run than before."""
    first, last = evaluations(run)
    before = {(row["prompt"], row["index"]): row["scores"][judge] for row in first}
    return [row["scores"][judge] - before[row["prompt"], row["index"]] for row in last]


def trained(name: str, weight: int, arguments: argparse.Namespace) -> Path:
    """The finished run of an algorithm on the reward times `weight`: made, continued, or found."""
    algorithm, _, preset = name.partition(":")
    settings = [
        f"rewards.0.weight={weight}",
        f"rollout.prompts_per_step={arguments.group}",
        f"rollout.samples_per_prompt={arguments.group}",
        f"eval.prompts={arguments.prompts}",
        f"eval.judges={json.dumps(arguments.judges)}",
        "train.eval_every=0",
        "train.kl_every=0",
        "train.save_every=1",
        "train.keep_checkpoints=1",
        *arguments.set,
    ]
    command = ["run", "--algo", algorithm, "--policy", arguments.policy, "--reward", arguments.reward, "--strict"]
    command += ["--steps", str(arguments.steps), "--seed", str(arguments.seed)]
    command += ["--preset", preset] if preset else []
    command += ["--plugin", str(HERE / "level.py")] if arguments.reward == "level" else []
    for setting in settings:
        command += ["--set", setting]
    return finished(command, arguments.runs / f"{name.replace(':', '-')}-{arguments.seed}{weight:+d}")


def finished(command: list[str], out: Path) -> Path:
    """Run the command in `out`, or continue what it began there; a run of another command is refused."""
    written = out.with_suffix(".json")
    if out.exists() and (not written.exists() or json.loads(written.read_text()) != command):
        raise SystemExit(f"{out} is a run of other settings: remove it or give another --runs")
    state = json.loads((out / "status.json").read_text())["state"] if (out / "status.json").exists() else ""
    if state != "done":
        out.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(command))
        again = ["run", "--resume", str(out)] if (out / "config.json").exists() else [*command, "--out", str(out)]
        subprocess.run([sys.executable, "-m", "rlzoo", *again], check=True, stdout=subprocess.DEVNULL)
    return out


def row_of(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both runs of an algorithm, compared."""
    up, down = (trained(name, weight, arguments) for weight in (1, -1))
    rise, fall = gains(up, arguments.reward), gains(down, arguments.reward)
    difference = [a - b for a, b in zip(rise, fall, strict=True)]
    error = stdev(difference) / len(difference) ** 0.5
    return {
        "algorithm": name,
        "reward": round(mean(rise), 4),
        "negative": round(mean(fall), 4),
        "difference": round(mean(difference), 4),
        "t": round(mean(difference) / error, 1) if error else 0.0,
        "judges": {judge: [round(mean(gains(run, judge)), 4) for run in (up, down)] for judge in arguments.judges},
    }


def table(rows: list[dict[str, Any]], judges: list[str]) -> str:
    """Markdown; the rows of one algorithm one below the other."""
    titles = ["algorithm", "seed", "steps", "reward", "its negative", "difference", "paired t", *judges]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in sorted(rows, key=lambda row: (row["algorithm"], row["seed"])):
        name = " ".join([row["algorithm"], *row.get("set", [])])
        cells = [name, row["seed"], f"{row['steps']} of {row.get('samples', 16)}"]
        cells += [f"{row[part]:+.3f}" for part in ("reward", "negative", "difference")] + [f"{row['t']:.1f}"]
        found = (row.get("judges", {}).get(judge) for judge in judges)
        cells += [", ".join(f"{gain:+.3f}" for gain in pair) if pair else "" for pair in found]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """One row after the other; the table is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithms", nargs="*", help="name or name:preset")
    parser.add_argument("--policy", default="gradtts")
    parser.add_argument("--reward", default="distillmos")
    parser.add_argument("--judges", default="nisqa", help="rewards that only judge, with commas; empty: none")
    parser.add_argument("--group", type=int, default=6, help="prompts in a step, and samples of each")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=16, help="held-out prompts")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="as of rlzoo run, for all runs; repeatable")
    parser.add_argument("--runs", type=Path, default=Path("runs/follow"))
    arguments = parser.parse_args()
    arguments.judges = [judge for judge in arguments.judges.split(",") if judge]
    names = arguments.algorithms or [name for name in discover().names("algorithm") if name not in CONTROLS]
    folder = HERE if arguments.policy == "wavegrad2" else HERE / arguments.policy
    folder.mkdir(exist_ok=True)
    target = folder / ("follow.json" if arguments.reward == "level" else f"follow-{arguments.reward}.json")
    known = json.loads(target.read_text()) if target.exists() else {}
    facts = {
        "seed": arguments.seed,
        "steps": arguments.steps,
        "samples": arguments.group**2,
        "prompts": arguments.prompts,
        "set": arguments.set,
    }
    for name in names:
        key = " ".join([name, str(arguments.seed), *arguments.set])
        same = key in known and all(known[key].get(fact) == value for fact, value in facts.items())
        if same and {*known[key].get("judges", {})} >= {*arguments.judges}:
            print(f"{key}: known", flush=True)
            continue
        known[key] = row_of(name, arguments) | facts
        print(known[key], flush=True)
        target.write_text(json.dumps(known, indent=1) + "\n")
    judges = sorted({judge for row in known.values() for judge in row.get("judges", {})})
    target.with_suffix(".md").write_text(HEAD + table(list(known.values()), judges))


if __name__ == "__main__":
    main()
