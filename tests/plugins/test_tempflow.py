"""TempFlow-GRPO: where groups part, what a step weighs, and the loss written out."""

from __future__ import annotations

import pytest
import torch
from rlzoo_tempflow import TempFlowOptions
from rlzoo_tempflow.algorithm import TempFlow
from toy_contexts import PROMPTS, TOYS, assert_ranks_agree, bounded, gradient, gradient_of, local, transition

from rlzoo.errors import ConfigError


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("k", [0, 2])
def test_a_group_is_one_trajectory_until_its_step(kind, k: int) -> None:
    traj = TempFlow(TempFlowOptions()).branch(local(kind), PROMPTS, k)
    for step in range(len(traj.schedule) + 1):
        groups = traj.states[step].view(2, 4, -1)
        for group in range(2):
            assert len(groups[group].unique(dim=0)) == (1 if step <= k else 4), step
    assert traj.schedule.stochastic.nonzero().flatten().tolist() == [k]


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize(("weights", "reduction"), [("noise", "mean"), ("none", "mean"), ("noise", "sum")])
def test_the_step_is_the_equation(kind, weights: str, reduction: str) -> None:
    """Two branches, a penalty, and a policy that is pushed once it has sampled; the clip bites on both sides."""
    options = TempFlowOptions(branches=2, weights=weights, beta=0.3, clip=(0.003, 0.006))

    def context():
        ctx = local(kind, shift=0.1, advantage="group", logprob_reduction=reduction)
        minibatches, pushed = ctx.minibatches, []

        def push(trajectory):
            if not pushed:
                with torch.no_grad():
                    ctx.policy.bias.add_(0.05)
            pushed.append(trajectory)
            yield from minibatches(trajectory)

        ctx.minibatches = push
        return ctx

    got = gradient(context(), TempFlow(options))
    ctx = local(kind, shift=0.1, advantage="group", logprob_reduction=reduction)
    algorithm = TempFlow(options)
    prompts = ctx.next_prompts()
    places = algorithm.places(ctx)
    trajs = [algorithm.branch(ctx, prompts, k) for k in places]
    advs = [ctx.advantages(ctx.score(traj), traj) for traj in trajs]
    full = local(kind).rollout()
    noises = {k: float(transition(local(kind).policy, full, k).std[0]) for k in range(4)}
    with torch.no_grad():
        ctx.policy.bias.add_(0.05)
    total, clipped = torch.zeros((), dtype=torch.float64), 0
    for traj, adv, k in zip(trajs, advs, places, strict=True):
        dist = transition(ctx.policy, traj, k)
        ratio = (dist.log_prob(traj.states[k + 1], reduction) - traj.log_probs[k]).exp()
        inside = bounded(ratio, ctx, traj, 0.003, 0.006)
        clipped += int((ratio != inside).sum())
        weight = noises[k] / (sum(noises.values()) / 4) if weights == "noise" else 1.0
        loss = weight * torch.maximum(-adv * ratio, -adv * inside)
        total = total + (loss + 0.3 * dist.kl(transition(ctx.reference, traj, k), reduction)).mean() / 2
    assert 0 < clipped < 16
    torch.testing.assert_close(got, gradient_of(total, ctx), atol=1e-9, rtol=1e-6)


def test_every_step_comes_up_and_none_twice_at_once() -> None:
    ctx, algorithm = local(), TempFlow(TempFlowOptions(branches=2))
    seen = [algorithm.places(ctx) for _ in range(40)]
    assert {k for places in seen for k in places} == {0, 1, 2, 3}
    assert all(len(set(places)) == 2 for places in seen)
    assert TempFlow(TempFlowOptions(branches=99)).places(ctx) == [0, 1, 2, 3]


def test_a_schedule_without_noise_is_refused(monkeypatch) -> None:
    ctx = local()
    schedule = ctx.policy.schedule()
    schedule.stochastic[:] = False
    monkeypatch.setattr(ctx.policy, "schedule", lambda steps=None: schedule)
    with pytest.raises(ConfigError, match="no denoising step has noise"):
        TempFlow(TempFlowOptions()).places(ctx)


def test_two_processes_learn_what_one_learns() -> None:
    assert_ranks_agree(lambda: TempFlow(TempFlowOptions(branches=2, beta=0.1)), steps=2)
