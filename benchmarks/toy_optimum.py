"""Does every algorithm end where theory says, on toys where that is known?

    python benchmarks/toy_optimum.py [--seeds 5] [--steps 120] [--only klinr] [--toy flow] [--out benchmarks/results]

Expected rewards, KLs and losses are exact (`rlzoo.testing.closed_form`, `toy_theory.py`): the figures have no sampling
error. For each algorithm, toy and seed: the share of the way from the start to where it should rest, 1 being there.
Writes `toy_optimum.json`, `toy_optimum.md`, `toy_optimum.png`. With `--only` (names that begin so) or `--toy` the rows
that were measured take the place of the same rows there, and each row says at which commit it was measured.

Where they should rest:
  kl           max E[r] - beta KL(trajectory): for a linear reward the tilted density
  kl, group    the same with r in units of its group's spread, as `train.advantage = "group"` gives it; under a linear
               reward the optimum leaves that spread as it was, so it is the reference's
  reward       max E[r], quadratic reward; the deterministic last step has no density and stays as it is
  reward, all  max E[r] where the last step is trained too
  reward, ode  max E[r] of the sampler without noise on the way: every state can be led to the reward's maximum
  loss         max E[r] - beta E[sum_k L_k], the diffusion loss of the policy's own trajectories (DLPO)
  own samples  where the gradient of the expected loss on the policy's own samples vanishes, measured by E[r]; on the
               flow it leads `bon` nowhere: what learns its own samples need not come to rest
  samples      the least denoising loss on samples of the reference, from weights that have been moved away (SFT)
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import toy_theory as theory
from torch import Tensor

from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.core.policy import Policy
from rlzoo.testing import closed_form
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward

TOYS = {"gaussian": GaussianToy, "flow": FlowToy}
LINEAR = ToyRewardOptions(slope=1.0, curvature=0.0)
STEEP = ToyRewardOptions(slope=4.0, curvature=0.0)  # so that preferences between samples are more than chance
QUADRATIC = ToyRewardOptions()
# Three prompts, because a fourth would share its mode, and with it the toy's biases, with a prompt of another length:
# the toy could not express the optimum of both, and every algorithm would stop short of it by the same 0.9 %.
PROMPTS = ToyPrompts(ToyPromptOptions(train=3)).train()
EVERY = 20  # steps between two points of a curve


@dataclass(frozen=True)
class Case:
    """One row of the table. `beta` and `kl` of the options enter the goal."""

    name: str
    package: str
    goal: str
    reward: ToyRewardOptions = QUADRATIC
    options: dict[str, Any] = field(default_factory=dict)
    advantage: str = "none"
    rate: float = 0.2
    samples: int = 64  # per group
    groups: int = 1  # of each prompt in a step
    noise_form: str = ""  # of the flow, which alone has one
    noise_level: float = 0.7


CASES = [
    Case("dpok", "dpok", "kl", LINEAR, {"beta": 0.05, "scale": False}),
    Case("grpo, KL in the loss", "grpo", "kl, group", LINEAR, {"beta": 0.2}, "group", samples=128),
    Case("klinr, k1", "klinr", "kl, group", LINEAR, {"beta": 0.2, "estimator": "k1"}, "group", samples=128),
    Case("klinr, exact", "klinr", "kl, group", LINEAR, {"beta": 0.2, "estimator": "exact"}, "group", samples=128),
    Case("klinr, quadratic", "klinr", "kl", QUADRATIC, {"beta": 0.05, "estimator": "exact"}),
    Case("dlpo, full", "dlpo", "loss", QUADRATIC, {"estimator": "full", "beta": 0.5}, samples=256),
    Case("ddpo, sf", "ddpo", "reward", options={"estimator": "sf"}, advantage="group"),
    Case("ddpo, is", "ddpo", "reward", options={"estimator": "is"}, advantage="group"),
    Case("grpo", "grpo", "reward", options={"beta": 0.0}, advantage="group"),
    Case("draft, 1 step", "draft", "reward, all", options={"steps": 1}),
    Case("draft, all steps", "draft", "reward, all", options={"steps": 5}),
    Case("rwr", "rwr", "own samples", options={"inverse_temperature": 1.0}, advantage="group", samples=512),
    Case("bon", "bon", "own samples", samples=4, groups=32),
    Case("awm, kl 1", "awm", "own samples", options={"kl": 1.0}, advantage="group", samples=128),
    Case("sft", "sft", "samples"),
    Case("grpo, cps", "grpo", "reward", options={"beta": 0.0}, advantage="group", noise_form="cps", noise_level=0.5),
    Case("grpo-guard", "grpo_guard", "reward", advantage="group"),
    Case("tempflow", "tempflow", "reward, ode", options={"branches": 4}, advantage="group"),
    Case("dgpo, kl 0.5", "dgpo", "own samples", options={"beta": 1e-3, "kl": 0.5}, advantage="group", samples=128),
    Case("d3po", "d3po", "kl", STEEP, {"beta": 0.2, "credit": "trajectory", "preference": "bradley-terry", "eps": None},
         samples=256),
    Case("adjoint-matching", "adjoint_matching", "kl", QUADRATIC, {"beta": 0.05}),
]  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """What is measured, and its value where the algorithm should rest."""

    value: Callable[[Policy], float]
    best: float


def goal(case: Case, reference: Policy) -> Goal | None:
    """See the module's docstring; None if theory leads nowhere. `reference` is in float64."""
    reward, beta = case.reward, float(case.options.get("beta", 0.0))
    own = theory.law(reference, PROMPTS)
    if case.goal == "kl, group":
        # Per prompt: E[r] / spread - beta KL = (E[r] - beta spread KL) / spread.
        spreads = [float(s) for s in own.linear_spread(reward)]
        parts = list(zip(PROMPTS, spreads, strict=True))

        def value(policy: Policy) -> float:
            return sum(closed_form.objective(policy, reference, [p], reward, beta * s) / s for p, s in parts) / 3

        best = sum(closed_form.best_objective(reference, [p], reward, beta * s) / s for p, s in parts) / 3
        return Goal(value, best)
    if case.goal in ("kl", "reward", "reward, all"):
        last = case.goal == "reward, all"
        return Goal(
            lambda policy: closed_form.objective(policy, reference, PROMPTS, reward, beta),
            closed_form.best_objective(reference, PROMPTS, reward, beta, last_step=last),
        )
    if case.goal == "reward, ode":
        return Goal(lambda policy: closed_form.expected_reward(policy, PROMPTS, reward, deterministic=True), 0.0)
    loss, last_step = LOSSES[case.package](case, reference), case.goal != "loss"
    rest = theory.rest(reference, loss, last_step=last_step)
    if rest is None:
        return None
    if case.goal == "own samples":
        return Goal(
            lambda policy: closed_form.expected_reward(policy, PROMPTS, reward),
            closed_form.expected_reward(rest, PROMPTS, reward),
        )

    def minus_loss(policy: Policy) -> float:
        with torch.no_grad():
            return -float(loss(policy.double()))

    return Goal(minus_loss, minus_loss(rest))


def _dlpo(case: Case, reference: Policy) -> Callable[[Policy], Tensor]:
    def loss(policy: Policy) -> Tensor:
        paid = case.options["beta"] * theory.trajectory_diffusion_loss(policy, PROMPTS)
        return (paid - theory.expected_reward(theory.law(policy, PROMPTS), case.reward)).mean()

    return loss


def _rwr(case: Case, reference: Policy) -> Callable[[Policy], Tensor]:
    b = case.options["inverse_temperature"]
    return theory.on_own_samples(PROMPTS, lambda law: theory.exponential_moments(law, case.reward, b))


def _bon(case: Case, reference: Policy) -> Callable[[Policy], Tensor]:
    return theory.on_own_samples(PROMPTS, lambda law: theory.best_of_moments(law, case.reward, case.samples))


def _awm(case: Case, reference: Policy) -> Callable[[Policy], Tensor]:
    matching = theory.on_own_samples(PROMPTS, lambda law: theory.advantage_moments(law, case.reward))

    def loss(policy: Policy) -> Tensor:
        samples = theory.detached(theory.law(policy, PROMPTS).moments())
        distance = theory.prediction_distance(policy, reference, PROMPTS, samples)
        return matching(policy) + case.options["kl"] * distance

    return loss


def _dgpo(case: Case, reference: Policy) -> Callable[[Policy], Tensor]:
    """As beta goes to 0 every group weighs one half: half of `_awm` with twice the `kl`."""
    return _awm(replace(case, options={"kl": 2 * case.options["kl"]}), reference)


def _sft(case: Case, reference: Policy) -> Callable[[Policy], Tensor]:
    samples = theory.law(reference, PROMPTS).moments()
    return lambda policy: theory.denoising_loss(policy, PROMPTS, samples)


LOSSES = {"dlpo": _dlpo, "rwr": _rwr, "bon": _bon, "awm": _awm, "dgpo": _dgpo, "sft": _sft}


def build(case: Case, toy: str) -> Policy:
    """The toy in float64, with the case's noise."""
    policy = TOYS[toy](ToyPolicyOptions()).double()
    if case.noise_form:
        policy.noise_form, policy.noise_level = case.noise_form, case.noise_level
    return policy


def run(case: Case, toy: str, target: Goal, seed: int, steps: int) -> dict[str, Any]:
    """Train one toy; returns the share of the way over the steps."""
    train = TrainTable(
        learning_rate=case.rate,
        advantage=case.advantage,
        advantage_clip=1e9,
        grad_clip=1e9,
        logprob_reduction="sum",
        micro_batch=4096,
    )
    rollout = RolloutTable(prompts_per_step=len(PROMPTS) * case.groups, samples_per_prompt=case.samples)
    policy = build(case, toy)
    ctx = LocalContext(policy, ToyReward(case.reward), PROMPTS, rollout=rollout, train=train, seed=seed)
    spec = next(iter(importlib.import_module(f"rlzoo_{case.package}").rlzoo_algorithms()))
    module, name = spec.target.split(":")
    algorithm = getattr(importlib.import_module(module), name)(spec.options(**case.options))
    algorithm.setup(ctx)
    if case.goal == "samples":
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.3
    start = target.value(policy)
    curve = [0.0]
    for step in range(steps):
        for group in ctx.optimizer.param_groups:  # to rest at the end: a constant rate circles around the optimum
            group["lr"] = case.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        algorithm.step(ctx)
        ctx.step += 1
        if (step + 1) % EVERY == 0:
            curve.append((target.value(policy) - start) / (target.best - start))
    return {"case": case.name, "toy": toy, "seed": seed, "start": start, "best": target.best,
            "end": target.value(policy), "share": curve[-1], "curve": curve, "commit": commit()}  # fmt: skip


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: mean, spread and worst share of the way over seeds."""
    lines = [
        "| algorithm | rests at | toy | runs | start | there | reached (mean) | share of way | farthest | within 2 % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in (case for case in CASES if any(r["case"] == case.name for r in results)):
        for toy in TOYS:
            rows = [r for r in results if r["case"] == case.name and r["toy"] == toy]
            if not rows and case.noise_form and toy != "flow":
                continue
            if not rows:
                lines.append(f"| {case.name} | {case.goal} | {toy} | | | no rest | | | | |")
                continue
            shares = [r["share"] for r in rows]
            farthest = max(shares, key=lambda share: abs(share - 1))
            end = statistics.fmean(r["end"] for r in rows)
            lines.append(
                f"| {case.name} | {case.goal} | {toy} | {len(rows)} "
                f"| {rows[0]['start']:.4f} | {rows[0]['best']:.4f} | {end:.4f} "
                f"| {statistics.fmean(shares):.4f} ± {statistics.pstdev(shares):.4f} | {farthest:.4f} "
                f"| {'yes' if abs(farthest - 1) <= 0.02 else 'no'} |"
            )
    return "\n".join(lines)


def figure(results: list[dict[str, Any]], path: Path, steps: int) -> None:
    """One panel per algorithm: the share of the way over steps, every seed of both toys."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 5
    rows = math.ceil(len(CASES) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(13, 2.6 * rows), sharex=True, sharey=True, squeeze=False)
    colours = dict(zip(TOYS, ("#1f6f8b", "#c8553d"), strict=True))
    for case, axis in zip(CASES, axes.flat, strict=False):
        for result in (r for r in results if r["case"] == case.name):
            x = [EVERY * i for i in range(len(result["curve"]))]
            axis.plot(x, result["curve"], color=colours[result["toy"]], linewidth=0.9, alpha=0.8)
        axis.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
        axis.set_title(f"{case.name} ({case.goal})", fontsize=8)
        axis.set_ylim(-0.2, 1.2)
        axis.set_xlim(0, steps)
    for axis in list(axes.flat)[len(CASES) :]:
        axis.axis("off")
    figure.legend(
        [plt.Line2D([], [], color=c) for c in colours.values()], list(colours), loc="lower right", frameon=False
    )
    figure.supxlabel("optimisation step", fontsize=9)
    figure.supylabel("share of the way from the start to where theory says", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def commit() -> str:
    """The commit of this tree; "+" where it holds changes."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    state = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True).stdout
    return head.strip() + ("+" if state.strip() else "")


def main() -> None:
    """Run everything that is asked for, write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--toy", choices=TOYS, help="this toy alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    facts = {"commit": commit(), "steps": wanted.steps, "seeds": wanted.seeds, "prompts": len(PROMPTS),
             "torch": torch.__version__}  # fmt: skip
    measured, results, begun = set(), [], time.process_time()
    for case in (case for case in CASES if case.name.startswith(wanted.only)):
        for toy in [wanted.toy] if wanted.toy else TOYS:
            if case.noise_form and toy != "flow":
                continue
            measured.add((case.name, toy))
            started = time.process_time()
            target = goal(case, build(case, toy).requires_grad_(False))
            if target is None:
                print(f"{case.name:22s} {toy:9s} {time.process_time() - started:6.1f} s CPU  no rest", flush=True)
                continue
            rows = [run(case, toy, target, seed, wanted.steps) for seed in range(wanted.seeds)]
            results += rows
            shares = ", ".join(f"{r['share']:.4f}" for r in rows)
            print(f"{case.name:22s} {toy:9s} {time.process_time() - started:6.1f} s CPU  {shares}", flush=True)
    facts["cpu_seconds"] = round(time.process_time() - begun)
    before = wanted.out / "toy_optimum.json"
    if (wanted.only or wanted.toy) and before.is_file():
        known = json.loads(before.read_text())
        kept = [row for row in known["results"] if (row["case"], row["toy"]) not in measured]
        results = [{"commit": known["facts"]["commit"], **row} for row in kept] + results
    wanted.out.mkdir(parents=True, exist_ok=True)
    cases = [{**asdict(case), "reward": case.reward.model_dump()} for case in CASES]
    content = json.dumps({"facts": facts, "cases": cases, "results": results}, indent=1)
    before.write_text(content + "\n")
    commits = ", ".join(sorted({row.get("commit", facts["commit"]) for row in results}))
    caption = (
        f"`python benchmarks/toy_optimum.py`, commits {commits}; the last run took {facts['cpu_seconds']} CPU seconds."
    )
    (wanted.out / "toy_optimum.md").write_text(f"{caption}\n\n{table(results)}\n")
    figure(results, wanted.out / "toy_optimum.png", wanted.steps)
    print(table(results))


if __name__ == "__main__":
    main()
