"""Complete runs on the toys, in seconds: for tests of the engine, and for trying an algorithm without a voice.

`toy_run` gives a resolved run, `start` makes its directory. This file is also a one-file plugin that announces the toys
and a plain policy gradient, which lets a run directory of theirs be resumed and read by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rlzoo.config.resolve import ResolvedRun, resolve
from rlzoo.core.algorithm import Algorithm, TrainContext
from rlzoo.core.specs import AlgorithmSpec, Options, hookimpl
from rlzoo.files.rundir import RunDirectory
from rlzoo.functional import clipped_surrogate
from rlzoo.testing.specs import rlzoo_policies, rlzoo_prompts, rlzoo_rewards  # announced again, see above


class PolicyGradientOptions(Options):
    """Options of the plain policy gradient."""

    clip: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Half-width of the ratio's trust region."""


class PolicyGradient(Algorithm[PolicyGradientOptions]):
    """Clipped policy gradient on the denoising chain, without anything else."""

    def step(self, ctx: TrainContext) -> Mapping[str, float]:
        """Sample, score, follow the clipped surrogate."""
        trajectory = ctx.rollout()
        advantages_N = ctx.advantages(ctx.score(trajectory).values, trajectory)
        for minibatch in ctx.minibatches(trajectory):
            for m in minibatch:
                step = ctx.policy.transition(m.before, m.k, m.cond, trajectory.schedule)
                logp_M = step.log_prob(m.after, ctx.logprob_reduction)
                loss_M = clipped_surrogate(logp_M, m.log_prob, advantages_N[m.row], self.options.clip)
                minibatch.mean(loss_M).backward()
            ctx.apply_gradients()
        return {}


@hookimpl
def rlzoo_algorithms() -> Iterable[AlgorithmSpec]:
    """The plain policy gradient."""
    yield AlgorithmSpec(
        name="toy-gradient",
        summary="clipped policy gradient, for tests",
        target="rlzoo.testing.toy_runs:PolicyGradient",
        options=PolicyGradientOptions,
        needs=frozenset({"log-prob"}),
    )


def toy_run(**tables: Any) -> ResolvedRun:
    """A run of four steps on the Gaussian toy; `tables` replace keys, as in `toy_run(train={"steps": 9}, seed=1)`."""
    defaults: dict[str, Any] = {
        "seed": 0,
        "policy": {"name": "toy-gaussian"},
        "rewards": [{"name": "toy"}],
        "algorithm": {"name": "toy-gradient"},
        "prompts": {"name": "toy"},
        "rollout": {"prompts_per_step": 3, "samples_per_prompt": 4},
        "train": {"steps": 4, "learning_rate": 0.02, "device": "cpu", "eval_every": 0, "save_every": 1},
        "eval": {"prompts": 3, "samples_per_prompt": 2},
    }
    for name, value in tables.items():
        merge = isinstance(value, dict) and "name" not in value
        defaults[name] = {**defaults[name], **value} if merge else value
    return resolve(defaults, plugin_files=[Path(__file__)])


def start(run: ResolvedRun, path: Path) -> RunDirectory:
    """A new run directory for `run`."""
    return RunDirectory.create(path, toml="", config=run.to_dict(), env={})


__all__ = [
    "PolicyGradient",
    "PolicyGradientOptions",
    "rlzoo_algorithms",
    "rlzoo_policies",
    "rlzoo_prompts",
    "rlzoo_rewards",
    "start",
    "toy_run",
]
