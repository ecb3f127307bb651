"""`rlzoo noise-scale`: how many samples a reward's gradient takes, before a run is started."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlzoo.cli._shared import Device, OfPrompts, OfSets, PluginFiles, PolicyName, Seed, Trust, overridden
from rlzoo.cli.synth import DenoisingSteps
from rlzoo.config import DEFAULT_POLICY
from rlzoo.engine.console import columns, out
from rlzoo.errors import ConfigError

if TYPE_CHECKING:
    from rlzoo.engine.noise_scale import NoiseScale

CHANCE = 0.05


def noise_scale(
    target: Annotated[Path | None, typer.Argument(help="A run, or a policy's weight file; unset: --policy.")] = None,
    rewards: Annotated[list[str], typer.Option("--reward", help="Reward to test; repeatable.")] = [],  # noqa: B006
    prompts: OfPrompts = "train",
    count: Annotated[int, typer.Option(min=1, help="Prompts to use, from the first.")] = 24,
    samples_per_prompt: Annotated[int, typer.Option(min=2, max=10_000, help="Samples of each prompt.")] = 8,
    num_steps: DenoisingSteps = None,
    policy: PolicyName = "",
    seed: Seed = None,
    device: Device = "auto",
    sets: OfSets = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    plugin: PluginFiles = [],  # noqa: B006
    trust: Trust = False,
) -> None:
    """Estimate before a run whether a policy can learn a reward, and with how many samples.

    A policy gradient is the mean of one noisy gradient per sample. If these gradients have a common direction, the
    noise scale is the number of samples whose mean is half signal. A step needs about as many
    (rollout.prompts_per_step times rollout.samples_per_prompt). If chance alone explains the common direction, a run
    with this many samples drifts and does not learn, with any algorithm.

    All rewards score the same samples. The gradients are those of the parameters that the policy trains.
    """
    from rlzoo.config.registry import discover
    from rlzoo.evaluation.targets import Request, find_subjects, plan_evaluation
    from rlzoo.listen.sources import Source

    if not rewards:
        raise ConfigError("no reward is named", "add --reward NAME; rlzoo plugins list --kind reward shows them")
    asked = Request(
        judges=rewards,
        prompts=prompts,
        policy=policy or ("" if target else DEFAULT_POLICY),
        tables=overridden(sets),
        registry=discover(files=plugin),
        count=count,
        samples_per_prompt=samples_per_prompt,
        num_steps=num_steps,
        seed=seed,
        device=device,
        trust=trust,
    )
    (subject,) = find_subjects([target] if target else [], asked)
    if isinstance(subject.source, Source):
        raise ConfigError(f"'{target}' is a recording, which no gradient reaches", "name a run or a policy")
    plan = plan_evaluation(subject, None, asked)
    assert plan.prompts is not None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rlzoo.engine import noise_scale as engine
    from rlzoo.engine import speak
    from rlzoo.engine.processes import make_fabric
    from rlzoo.engine.scoring import make_scorers

    chosen = speak.split_of(plan.prompts.build(), plan.split)[:count]
    judges = [choice for choice in plan.judges if choice.spec.name in rewards]
    scorers = make_scorers(judges, make_fabric(device, "fp32").device, None)
    shown = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*shown, console=Console(stderr=True)) as bar:
        task = bar.add_task("samples", total=len(chosen) * samples_per_prompt)
        found = engine.measure(
            speak.load(subject.source, device, seed=seed or 0, trust=trust),
            chosen,
            scorers,
            seed=seed or 0,
            samples_per_prompt=samples_per_prompt,
            num_steps=num_steps or (subject.run.rollout.num_steps if subject.run is not None else None),
            failures=Path("failures"),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    total = len(chosen) * samples_per_prompt
    if as_json:
        asdicts = [vars(one) | {"samples": one.samples if math.isfinite(one.samples) else None} for one in found]
        out.print(json.dumps({"samples": total, "rewards": asdicts}, indent=2))
        return
    rows = [(o.reward, f"{o.mean:.3f}", f"{o.spread:.3f}", f"{o.p:.4f}", _samples(o)) for o in found]
    out.print(columns([("reward", "mean", "spread within a prompt", "p", "noise scale"), *rows]))
    for one in found:
        out.print(_verdict(one, total))


def _samples(one: NoiseScale) -> str:
    return f"{one.samples:.0f} samples" if one.p <= CHANCE and math.isfinite(one.samples) else "-"


def _verdict(one: NoiseScale, total: int) -> str:
    if one.p > CHANCE or not math.isfinite(one.samples):
        return f"{one.reward}: no gradient above chance in {total} samples; a run of so few follows noise"
    return f"{one.reward}: a gradient; steps of about {math.ceil(one.samples)} samples are half signal"
