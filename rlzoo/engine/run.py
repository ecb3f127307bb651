"""From a resolved run to live objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from rlzoo.config.registry import discover
from rlzoo.config.resolve import ResolvedRun, choose
from rlzoo.core.algorithm import Algorithm
from rlzoo.core.noise import generator_of, seed_of
from rlzoo.core.policy import Policy
from rlzoo.core.types import Prompt
from rlzoo.engine import checkpoint, estimate
from rlzoo.engine.budget import Counters, instrument
from rlzoo.engine.context import Context
from rlzoo.engine.events import Note, Observer
from rlzoo.engine.optimisation import Optimisation
from rlzoo.engine.prompts import Cursor
from rlzoo.engine.scorecache import ScoreCache, open_cache
from rlzoo.engine.scoring import Scorer, make_scorers
from rlzoo.errors import ConfigError, DataError
from rlzoo.files.rundir import RunDirectory


@dataclass(frozen=True)
class RunState:
    """Everything of a run that holds tensors."""

    ctx: Context
    algorithm: Algorithm[Any]
    heldout: Sequence[Prompt]
    judges: Sequence[Scorer]
    estimate: str
    """Estimate of a step for the user; empty if there is none."""


def build(run: ResolvedRun, rundir: RunDirectory, fabric: Fabric, observer: Observer) -> RunState:
    """Construct policy, rewards, algorithm and context, with the policy at its starting weights."""
    torch.manual_seed(run.seed)
    policy: Policy = run.policy.build()
    # In eval mode for good: dropout or batch statistics would make training see another network than sampling did.
    policy = policy.to(fabric.device).eval()
    counters = Counters()
    starting = checkpoint.portable(policy)
    instrument(policy, counters, fabric)
    prompts = run.prompts.build()
    cache = _cache(run, policy, observer)
    ctx = Context(
        fabric=fabric,
        policy=policy,
        starting=starting,
        optimisation=Optimisation(policy, run.train),
        prompts=prompts,
        scorers=make_scorers(run.rewards, fabric.device, cache),
        seed=run.seed,
        rollout_table=run.rollout,
        train=run.train,
        counters=counters,
        cursor=Cursor(prompts.train(), run.seed),
        failures=rundir / "failures",
        observer=observer,
        generator=generator_of(seed_of("engine", run.seed)),
    )
    algorithm: Algorithm[Any] = run.algorithm.build()
    ctx.rewarded = algorithm.uses_reward
    judges = _judges(run, fabric, cache)  # before the estimate, which counts what is in use by then
    expected = _estimate(run, ctx)
    algorithm.setup(ctx)
    return RunState(ctx, algorithm, _heldout(prompts.heldout(), run), judges, expected)


def _estimate(run: ResolvedRun, ctx: Context) -> str:
    """Estimate a step, and set the number of rows at once if the user has not."""
    prompts = ctx.prompts.train()[: run.rollout.prompts_per_step]
    used = estimate.in_use(ctx.device)
    with ctx.counters.paused():
        rows = 1 if ctx.device.type == "cpu" else 2
        row = estimate.measure(ctx.policy, prompts, run.rollout, run.train, rows)
    bounded = (
        estimate.MOST if run.train.micro_batch_frames else estimate.automatic(row, ctx.device, ctx.policy.rows_on_cores)
    )
    size = run.train.micro_batch or bounded
    ctx.train = run.train.model_copy(update={"micro_batch": size})
    frames = run.rollout.micro_batch_frames or (0 if run.rollout.micro_batch else run.train.micro_batch_frames)
    together = {"micro_batch": run.rollout.micro_batch or size, "micro_batch_frames": frames}
    ctx.rollout_table = run.rollout.model_copy(update=together)
    needs = run.algorithm.spec.needs
    if "sampling-grad" in needs:
        return ""  # its graph is that of several steps and of the reward
    options = run.algorithm.options
    passes = None if "log-prob" in needs else int(getattr(options, "updates", 1)) * int(getattr(options, "draws", 1))
    return estimate.text(row, ctx.policy, ctx.rollout_table, ctx.train, ctx.fabric.world_size, passes, used)


def _heldout(prompts: Sequence[Prompt], run: ResolvedRun) -> Sequence[Prompt]:
    if not prompts:
        raise ConfigError(
            f"prompt set '{run.prompts.spec.name}' has no held-out prompts", "evaluation needs at least one"
        )
    return prompts[: run.eval.prompts or len(prompts)]


def _cache(run: ResolvedRun, policy: Policy, observer: Observer) -> ScoreCache | None:
    """For audio only: what scores vectors takes less time than a look-up."""
    if not run.train.score_cache or policy.media.kind != "audio":
        return None
    try:
        return open_cache()
    except DataError as error:
        observer(Note(f"no score cache: {error.message}"))
        return None


def _judges(run: ResolvedRun, fabric: Fabric, cache: ScoreCache | None) -> list[Scorer]:
    """Rewards that only judge, with their default options; those that also reward are in the table already."""
    used = {choice.used for choice in run.rewards}
    names = [name for name in dict.fromkeys(run.eval.judges or ()) if name not in used]
    if not names:
        return []
    registry = discover(files=run.plugin_files)
    return make_scorers([choose("reward", name, registry) for name in names], fabric.device, cache)
