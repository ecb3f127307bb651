"""Contract of every algorithm, on both toys. Each check takes an `AlgorithmSubject` and raises `Broken`."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from rlzoo.config.resolve import Choice, ResolvedRun, RewardChoice
from rlzoo.config.schema import EvalTable, RolloutTable, TrainTable
from rlzoo.core.algorithm import Algorithm
from rlzoo.core.specs import AlgorithmSpec, Capability, Options, PolicySpec
from rlzoo.engine import checkpoint
from rlzoo.engine.processes import make_fabric
from rlzoo.engine.run import RunState, build
from rlzoo.engine.selfcheck import SelfCheck, check_updates
from rlzoo.errors import ContractError
from rlzoo.files.rundir import RunDirectory
from rlzoo.functional import frozen_copy
from rlzoo.testing import closed_form
from rlzoo.testing.context import LocalContext
from rlzoo.testing.ranks import RankContext, step_on_ranks
from rlzoo.testing.results import Broken, Skipped
from rlzoo.testing.specs import (
    TOY_FLOW,
    TOY_GAUSSIAN,
    TOY_PROMPTS,
    TOY_REWARD,
    ToyPolicyOptions,
    ToyPromptOptions,
    ToyRewardOptions,
)
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward

TOYS = (TOY_GAUSSIAN, TOY_FLOW)
CLASSES = (GaussianToy, FlowToy)
ROLLOUT = RolloutTable(prompts_per_step=4, samples_per_prompt=4)
TRAIN = TrainTable(learning_rate=0.02, device="cpu", minibatch=24)
RISE_STEPS = 16


@dataclass(frozen=True)
class AlgorithmSubject:
    """An algorithm to check: how to make it from options, its options' class, and what it says it needs."""

    make: Callable[[Options], Algorithm[Any]]
    options: type[Options]
    needs: frozenset[Capability] = frozenset({"log-prob"})

    def default(self) -> Algorithm[Any]:
        """The algorithm with its default options."""
        return self.make(self.options())


@dataclass(frozen=True)
class _Made(Choice[AlgorithmSpec]):
    """A choice whose algorithm comes from a function instead of an import."""

    make: Callable[[], Algorithm[Any]]

    def build(self) -> Algorithm[Any]:
        return self.make()


@lru_cache(maxsize=1)
def _fabric() -> Fabric:
    return make_fabric("cpu", "fp32")


def _nobody(event: object) -> None:
    """Nobody watches a check."""


@contextmanager
def _live(
    subject: AlgorithmSubject, toy: PolicySpec, *, weight: float = 1.0
) -> Iterator[tuple[RunState, RunDirectory]]:
    spec = AlgorithmSpec(name="checked", summary="", target="checked:Checked", options=subject.options)
    run = ResolvedRun(
        seed=0,
        policy=Choice(toy, ToyPolicyOptions()),
        rewards=(RewardChoice(TOY_REWARD, ToyRewardOptions(), requested="toy", weight=weight),),
        algorithm=_Made(spec, subject.options(), subject.default),
        prompts=Choice(TOY_PROMPTS, ToyPromptOptions()),
        rollout=ROLLOUT,
        train=TRAIN,
        eval=EvalTable(),
    )
    with tempfile.TemporaryDirectory() as folder:
        rundir = RunDirectory.create(Path(folder) / "run", toml="", config={}, env={})
        yield build(run, rundir, _fabric(), _nobody), rundir


def _advance(live: RunState, steps: int) -> list[dict[str, float]]:
    """Optimisation steps as the engine's loop makes them; returns their metrics."""
    rows = []
    for _ in range(steps):
        live.ctx.metrics = {}
        own = live.algorithm.step(live.ctx)
        live.ctx.counters.collect(live.ctx.fabric)
        live.ctx.step += 1
        rows.append({**own, **live.ctx.metrics})
    return rows


def _weights(live: RunState) -> Tensor:
    return torch.cat([p.detach().flatten() for p in live.ctx.policy.parameters()])


def _local(
    kind: type[LocalContext], toy: int, table: TrainTable = TRAIN, reward: ToyRewardOptions | None = None
) -> Any:
    prompts = ToyPrompts(ToyPromptOptions())
    return kind(
        CLASSES[toy](ToyPolicyOptions()),
        ToyReward(reward or ToyRewardOptions()),
        prompts.train(),
        rollout=ROLLOUT,
        train=table,
        recordings=prompts.recordings(prompts.train()),
    )


def same_seed_same_run(subject: AlgorithmSubject) -> None:
    """One seed gives the same metrics and weights twice, and every metric is a finite number with a group."""
    for toy in TOYS:
        with _live(subject, toy) as (first, _), _live(subject, toy) as (second, _):
            here, there = _advance(first, 2), _advance(second, 2)
            if here != there or not torch.equal(_weights(first), _weights(second)):
                raise Broken(
                    f"{toy.name}: the same seed gives another run; likely cause: a global or unseeded generator"
                )
            for name, value in here[-1].items():
                if "/" not in name or not isinstance(value, float | int) or value != value:
                    raise Broken(f"metric '{name}' = {value!r}; metrics are finite numbers named group/name")


def updates_the_policy_only(subject: AlgorithmSubject) -> None:
    """A step moves the policy's weights, and leaves the reference and the mode of the network alone."""
    for toy in TOYS:
        with _live(subject, toy) as (live, _):
            before, frozen = _weights(live), [p.clone() for p in live.ctx.reference.parameters()]
            _advance(live, 2)
            if torch.equal(before, _weights(live)):
                raise Broken(
                    f"{toy.name}: two steps moved no weight; is apply_gradients called, and the loss attached?"
                )
            if not all(torch.equal(a, b) for a, b in zip(frozen, live.ctx.reference.parameters(), strict=True)):
                raise Broken(f"{toy.name}: the reference's weights were moved")
            if live.ctx.policy.training:
                raise Broken(f"{toy.name}: the policy is left in training mode: sampling would see another network")


def resumes_exactly(subject: AlgorithmSubject) -> None:
    """Two steps, a checkpoint, a new process and two more steps are four steps, to the last bit."""
    for toy in TOYS:
        with _live(subject, toy) as (whole, _), _live(subject, toy) as (part, rundir), _live(subject, toy) as (rest, _):
            _advance(whole, 2)
            wanted = _advance(whole, 2)
            _advance(part, 2)
            folder = checkpoint.save(rundir, part.ctx, part.algorithm, keep=1)
            checkpoint.restore(folder, rest.ctx, rest.algorithm)
            found = _advance(rest, 2)
            if not torch.equal(_weights(whole), _weights(rest)):
                raise Broken(
                    f"{toy.name}: a resumed run has other weights; likely cause: running statistics, a value network "
                    "or an old policy that state_dict leaves out"
                )
            if found != wanted:
                raise Broken(f"{toy.name}: a resumed run reports other metrics than one that was never stopped")


def first_step_passes_the_self_checks(subject: AlgorithmSubject) -> None:
    """The engine's checks before the first update: the ratio is 1, and the reward's gradient reaches the policy."""
    for toy in TOYS:
        with _live(subject, toy) as (live, _):
            try:
                with SelfCheck(live.algorithm, live.ctx, enabled=True).around_step():
                    _advance(live, 1)
                live.ctx.step = live.ctx.train.steps - 1
                check_updates(live.algorithm, live.ctx)
            except ContractError as error:
                raise Broken(f"{toy.name}: {error}") from error


def follows_the_reward(subject: AlgorithmSubject) -> None:
    """Trained on the reward it ends higher than trained on the reward's negative, by exact expectation."""
    heldout = ToyPrompts(ToyPromptOptions()).heldout()
    for toy in TOYS:
        ends = []
        for weight in (1.0, -1.0):
            with _live(subject, toy, weight=weight) as (live, _):
                start = closed_form.expected_reward(live.ctx.policy, heldout, ToyRewardOptions())
                _advance(live, RISE_STEPS)
                ends.append(closed_form.expected_reward(live.ctx.policy, heldout, ToyRewardOptions()))
        up, down = ends
        if not up > down + 0.02:
            raise Broken(
                f"{toy.name}: expected reward {start:.3f} at the start, {up:.3f} trained on the reward, {down:.3f} "
                "on its negative; likely cause: a sign, a detached loss, or a clamp whose argument is out of bounds"
            )
        if up < start - 0.02:
            raise Broken(f"{toy.name}: trained on the reward, it falls from {start:.3f} to {up:.3f}")


def needs_are_sufficient(subject: AlgorithmSubject) -> None:
    """The algorithm works with a policy and a reward that offer what `needs` names and nothing else."""
    for toy in range(len(CLASSES)):
        ctx = _local(LocalContext, toy)
        _withhold(ctx, subject.needs)
        algorithm = subject.default()
        try:
            algorithm.setup(ctx)
            algorithm.step(ctx)
        except _Withheld as withheld:
            raise Broken(f"it uses '{withheld}', which its `needs` do not name") from withheld


class _Withheld(Exception):
    """Something was used that a policy or reward need not offer."""


def _withhold(ctx: LocalContext, needs: frozenset[Capability]) -> None:
    def refuse(what: Capability) -> Callable[..., Any]:
        def refused(*args: Any, **options: Any) -> Any:
            raise _Withheld(what)

        return refused

    for policy in (ctx.policy, ctx.reference):
        if "denoising-loss" not in needs:
            for name in ("denoising_loss", "noisy", "target", "sample_times"):
                setattr(policy, name, refuse("denoising-loss"))
    if "log-prob" not in needs:
        setattr(ctx, "minibatches", refuse("log-prob"))  # noqa: B010  # a method of this object only
    rollout, score = ctx.rollout, ctx.score

    def guarded_rollout(*args: Any, **options: Any) -> Any:
        if options.get("grad_steps") and "sampling-grad" not in needs:
            raise _Withheld("sampling-grad")
        return rollout(*args, **options)

    def guarded_score(*args: Any, **options: Any) -> Any:
        if options.get("grad") and "reward-grad" not in needs:
            raise _Withheld("reward-grad")
        return score(*args, **options)

    vars(ctx).update(rollout=guarded_rollout, score=guarded_score)


def ranks_agree(subject: AlgorithmSubject) -> None:
    """Two processes that share the rows end with the weights of one that has them all."""
    table = TRAIN.model_copy(update={"minibatch": 0})
    for toy in range(len(CLASSES)):
        ends = [
            step_on_ranks(subject.default, lambda toy=toy: _local(RankContext, toy, table), ranks, 2)  # type: ignore[misc]
            for ranks in (1, 2)
        ]
        one, two = ([[p.detach() for p in ctx.policy.parameters()] for ctx in contexts] for contexts in ends)
        if any(not torch.equal(a, b) for a, b in zip(*two, strict=True)):
            raise Broken(f"{TOYS[toy].name}: the copies of two processes part; something is not exchanged")
        gap = max(float((a - b).abs().max()) for a, b in zip(one[0], two[0], strict=True))
        # Adam forgives a gradient of another size, so the gradients are compared as well.
        whole, shared = (torch.cat([g.flatten() for g in contexts[0].gradients.values()]) for contexts in ends)
        change = float((whole - shared).norm() / whole.norm().clamp(min=1e-12))
        if gap > 2e-4 or change > 0.01:  # Adam's first steps magnify rounding where a gradient is nearly zero
            raise Broken(
                f"{TOYS[toy].name}: two processes end {gap:.2g} away from one, their gradient differs by {change:.1%}; "
                "likely cause: statistics over own rows only (use ctx.gather, ctx.advantages), or a mean over own rows "
                "(use trajectory.mean, minibatch.mean)"
            )


def penalty_pulls_back(subject: AlgorithmSubject) -> None:
    """If an option weights a distance to the starting weights, a policy that left them must return without reward."""
    fields = subject.options.model_fields.items()
    names = [
        n
        for n, f in fields
        if "starting weights" in (f.description or "") and (f.description or "").startswith("Weight of")
    ]
    if not names:
        raise Skipped("no option weighs a distance to the starting weights")
    flat = ToyRewardOptions(curvature=0.0)
    table = TRAIN.model_copy(update={"minibatch": 0, "advantage": "batch"})
    for name in names:
        for toy in range(len(CLASSES)):
            ctx = _local(LocalContext, toy, table, flat)
            with torch.no_grad():
                for parameter in ctx.policy.parameters():
                    parameter += 0.2
            algorithm = subject.make(subject.options.model_validate({name: 1.0}))
            algorithm.setup(ctx)
            before = _distance(ctx)
            for _ in range(RISE_STEPS):
                algorithm.step(ctx)
                ctx.step += 1
            if not _distance(ctx) < 0.9 * before:
                raise Broken(
                    f"{TOYS[toy].name}: with {name} = 1 and a constant reward the KL to the starting weights goes from "
                    f"{before:.3f} to {_distance(ctx):.3f}; likely cause: the penalty is inside no_grad, or detached"
                )


def _distance(ctx: LocalContext) -> float:
    return closed_form.trajectory_kl(frozen_copy(ctx.policy), ctx.reference, ToyPrompts(ToyPromptOptions()).train())


def stands_alone(subject: AlgorithmSubject) -> None:
    """No algorithm inherits from another: what is shared is a function of `rlzoo.functional`."""
    concrete = [
        kind for kind in type(subject.default()).__mro__ if issubclass(kind, Algorithm) and not inspect.isabstract(kind)
    ]
    if len(concrete) > 1:
        raise Broken(f"'{concrete[0].__name__}' inherits from '{concrete[1].__name__}'")


CHECKS: Sequence[Callable[[AlgorithmSubject], None]] = (
    same_seed_same_run,
    updates_the_policy_only,
    resumes_exactly,
    first_step_passes_the_self_checks,
    follows_the_reward,
    needs_are_sufficient,
    ranks_agree,
    penalty_pulls_back,
    stands_alone,
)
