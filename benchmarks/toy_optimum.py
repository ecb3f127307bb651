"""Does every algorithm reach the optimum that theory says, on toys where it is known in closed form?

    python benchmarks/toy_optimum.py [--seeds 5] [--steps 300] [--only klinr] [--out benchmarks/results]

Expected reward and KL are exact (`rlzoo.testing.closed_form`), so the figures have no sampling error. For each
algorithm, toy and seed: the share of the way from the pretrained toy to the optimum, 1 being the optimum. Writes
`toy_optimum.json`, `toy_optimum.md` and `toy_optimum.png`.

Optima:
  kl          max E[r] - beta KL(trajectory), linear reward: the tilted density; `klinr` also with the quadratic one
  reward      max E[r], quadratic reward, the deterministic last step as it is: it has no density to train
  reward-all  max E[r] where the last step is trained too (DRaFT)
  fixed-point RWR's: a weight exp(b r) on a density moves it until r cannot rise, here the target itself with r = 0
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlzoo._tables import RolloutTable, TrainTable
from rlzoo.testing import closed_form
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward

TOYS = {"gaussian": GaussianToy, "flow": FlowToy}
LINEAR = ToyRewardOptions(slope=1.0, curvature=0.0)
QUADRATIC = ToyRewardOptions()
BETA = 0.05
PROMPTS = 4


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    package: str
    optimum: str
    reward: ToyRewardOptions
    options: dict[str, Any] = field(default_factory=dict)
    advantage: str = "none"
    rate: float = 0.08
    samples: int = 64  # per prompt and step


CASES = [
    Case("dpok", "dpok", "kl", LINEAR, {"beta": BETA, "scale": False}),
    # Raw scores without a baseline: more samples where the others subtract one.
    Case("grpo, KL in the loss", "grpo", "kl", LINEAR, {"beta": BETA}, samples=512),
    Case("klinr, k1", "klinr", "kl", LINEAR, {"beta": BETA, "estimator": "k1"}, samples=512),
    Case("klinr, exact", "klinr", "kl", LINEAR, {"beta": BETA, "estimator": "exact"}, samples=512),
    Case("klinr, quadratic", "klinr", "kl", QUADRATIC, {"beta": BETA, "estimator": "exact"}),
    Case("ddpo, sf", "ddpo", "reward", QUADRATIC, {"estimator": "sf"}, "group"),
    Case("ddpo, is", "ddpo", "reward", QUADRATIC, {"estimator": "is"}, "group"),
    Case("grpo", "grpo", "reward", QUADRATIC, {"beta": 0.0}, "group"),
    Case("draft, 1 step", "draft", "reward-all", QUADRATIC, {"steps": 1}),
    Case("draft, all steps", "draft", "reward-all", QUADRATIC, {"steps": 5}),
    Case("rwr", "rwr", "fixed-point", QUADRATIC, {"inverse_temperature": 0.3}, "group"),
]


def best(case: Case, reference: Any, prompts: Any) -> float:
    """The objective at the optimum of this case."""
    if case.optimum == "fixed-point":
        return 0.0
    beta = BETA if case.optimum == "kl" else 0.0
    last = case.optimum == "reward-all"
    return closed_form.best_objective(reference, prompts, case.reward, beta, last_step=last)


def run(case: Case, toy: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one toy; returns the share of the way to the optimum over the steps."""
    prompts = ToyPrompts(ToyPromptOptions(train=PROMPTS)).train()
    train = TrainTable(
        learning_rate=case.rate,
        advantage=case.advantage,
        advantage_clip=1e9,
        grad_clip=1e9,
        logprob_reduction="sum",
        micro_batch=4096,
    )
    ctx = LocalContext(
        TOYS[toy](ToyPolicyOptions()),
        ToyReward(case.reward),
        prompts,
        rollout=RolloutTable(prompts_per_step=PROMPTS, samples_per_prompt=case.samples),
        train=train,
        seed=seed,
    )
    spec = next(iter(importlib.import_module(f"rlzoo_{case.package}").rlzoo_algorithms()))
    module, name = spec.target.split(":")
    algorithm = getattr(importlib.import_module(module), name)(spec.options(**case.options))
    algorithm.setup(ctx)
    beta = BETA if case.optimum == "kl" else 0.0

    def objective() -> float:
        return closed_form.objective(ctx.policy, ctx.reference, prompts, case.reward, beta)

    start, top = objective(), best(case, ctx.reference, prompts)
    curve = [0.0]
    for step in range(steps):
        for group in ctx.optimizer.param_groups:  # to rest at the end: a constant rate circles around the optimum
            group["lr"] = case.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        algorithm.step(ctx)
        ctx.step += 1
        if (step + 1) % 10 == 0:
            curve.append((objective() - start) / (top - start))
    return {"case": case.name, "optimum": case.optimum, "toy": toy, "seed": seed, "start": start, "best": top,
            "end": objective(), "share": curve[-1], "curve": curve}  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: mean, spread and worst share of the way over seeds."""
    lines = [
        "| algorithm | optimum | toy | start | best | reached (mean) | share of the way | worst seed | within 2 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        for toy in TOYS:
            rows = [r for r in results if r["case"] == case.name and r["toy"] == toy]
            if not rows:
                continue
            shares = [r["share"] for r in rows]
            spread = statistics.pstdev(shares)
            mean = statistics.fmean(shares)
            end = statistics.fmean(r["end"] for r in rows)
            lines.append(
                f"| {case.name} | {case.optimum} | {toy} | {rows[0]['start']:.4f} | {rows[0]['best']:.4f} | {end:.4f} "
                f"| {mean:.4f} ± {spread:.4f} | {min(shares):.4f} | {'yes' if min(shares) >= 0.98 else 'no'} |"
            )
    return "\n".join(lines)


def figure(results: list[dict[str, Any]], path: Path, steps: int) -> None:
    """One panel per algorithm: the share of the way over steps, every seed of both toys."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [case.name for case in CASES if any(r["case"] == case.name for r in results)]
    columns = 4
    rows = math.ceil(len(names) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(12, 2.6 * rows), sharex=True, sharey=True, squeeze=False)
    colours = dict(zip(TOYS, ("#1f6f8b", "#c8553d"), strict=True))
    for name, axis in zip(names, axes.flat, strict=False):
        for result in (r for r in results if r["case"] == name):
            x = [10 * i for i in range(len(result["curve"]))]
            axis.plot(x, result["curve"], color=colours[result["toy"]], linewidth=0.9, alpha=0.8)
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(name, fontsize=9)
        axis.set_ylim(-0.2, 1.1)
        axis.set_xlim(0, steps)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.legend(
        [plt.Line2D([], [], color=c) for c in colours.values()], list(colours), loc="lower right", frameon=False
    )
    figure.supxlabel("optimisation step", fontsize=9)
    figure.supylabel("share of the way from the start to the optimum", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def main() -> None:
    """Run everything that is asked for, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--only", default="", help="cases whose name begins so; the others stay in the results")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for case in (case for case in CASES if case.name.startswith(wanted.only)):
        for toy in TOYS:
            started = time.monotonic()
            rows = [run(case, toy, seed, wanted.steps) for seed in range(wanted.seeds)]
            results += rows
            shares = ", ".join(f"{r['share']:.4f}" for r in rows)
            print(f"{case.name:26s} {toy:9s} {time.monotonic() - started:6.1f} s  {shares}", flush=True)
    wanted.out.mkdir(parents=True, exist_ok=True)
    done = {row["case"] for row in results}
    facts = {"steps": wanted.steps, "seeds": wanted.seeds, "beta": BETA, "prompts": PROMPTS, "torch": torch.__version__}
    path = wanted.out / "toy_optimum.json"
    if path.exists() and (known := json.loads(path.read_text()))["facts"] == facts:
        results = [row for row in known["results"] if row["case"] not in done] + results
    cases = [{**asdict(case), "reward": case.reward.model_dump()} for case in CASES]
    content = json.dumps({"facts": facts, "cases": cases, "results": results}, indent=1)
    path.write_text(content + "\n")
    (wanted.out / "toy_optimum.md").write_text(table(results) + "\n")
    figure(results, wanted.out / "toy_optimum.png", wanted.steps)
    print(table(results))


if __name__ == "__main__":
    main()
