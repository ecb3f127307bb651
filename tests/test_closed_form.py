"""The toys' closed forms against sampling and against direct optimisation."""

from __future__ import annotations

import math

import pytest
import torch

from rlzoo.functional import frozen_copy
from rlzoo.testing import closed_form
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward, mode_means, mode_of

PROMPTS = ToyPrompts(ToyPromptOptions()).train()
QUADRATIC, LINEAR = ToyRewardOptions(), ToyRewardOptions(slope=1.0, curvature=0.0)
TOYS = pytest.mark.parametrize("kind", [GaussianToy, FlowToy])


def build(kind, shift: float = 0.0):
    policy = kind(ToyPolicyOptions()).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += shift
    return policy


@TOYS
def test_a_pretrained_toy_speaks_like_its_recordings(kind) -> None:
    policy = frozen_copy(build(kind))
    chain = closed_form.chain(policy, PROMPTS)
    mean = torch.zeros_like(chain.shift[0])
    for gain, shift in zip(chain.gain, chain.shift, strict=True):
        mean = gain * mean + shift
    wanted = torch.stack([mode_means()[mode_of(prompt)] for prompt in PROMPTS])[:, : mean.shape[1]]
    assert ((mean - wanted) * chain.mask).abs().max() < 0.06


@TOYS
def test_expected_reward_and_kl_agree_with_sampling(kind) -> None:
    policy, reference = build(kind, 0.1), build(kind)
    ctx = LocalContext(policy, ToyReward(QUADRATIC), PROMPTS)
    traj = ctx.rollout(PROMPTS, samples_per_prompt=3000)
    scores = ctx.score(traj).values
    exact = closed_form.expected_reward(policy, PROMPTS, QUADRATIC)
    assert exact == pytest.approx(float(scores.mean()), abs=4 * float(scores.std()) / math.sqrt(len(scores)))
    kl = torch.zeros(len(traj), dtype=torch.float64)
    with torch.no_grad():
        for k in traj.schedule.stochastic.nonzero().flatten().tolist():
            there = (traj.states[k], torch.full((len(traj),), k), traj.cond, traj.schedule)
            kl += policy.transition(*there).kl(reference.transition(*there), "sum")
    exact = closed_form.trajectory_kl(policy, reference, PROMPTS)
    assert exact == pytest.approx(float(kl.mean()), abs=4 * float(kl.std()) / math.sqrt(len(kl)))
    assert closed_form.trajectory_kl(reference, frozen_copy(reference), PROMPTS) == 0


@TOYS
@torch.no_grad()
def test_the_best_objective_under_a_linear_reward_is_the_tilted_density(kind) -> None:
    """A linear reward tilts a Gaussian: E[r] + Var[r | x0] / (2 beta), the variance being the steps' own."""
    reference, beta = build(kind), 0.2
    chain = closed_form.chain(reference, PROMPTS)
    variance = torch.zeros_like(chain.gain[0])
    for gain, std in zip(chain.gain, chain.std, strict=True):
        variance = gain**2 * variance + std[:, None] ** 2
    count = chain.mask.sum(1)
    spread = (variance * chain.mask).sum(1) / count**2
    expected = closed_form.expected_reward(reference, PROMPTS, LINEAR) + float((spread / (2 * beta)).mean())
    assert closed_form.best_objective(reference, PROMPTS, LINEAR, beta) == pytest.approx(expected)


@TOYS
@pytest.mark.parametrize("beta", [0.0, 0.05])
def test_direct_ascent_reaches_the_best_objective_and_never_passes_it(kind, beta: float) -> None:
    reference, policy = build(kind), build(kind)
    best = closed_form.best_objective(reference, PROMPTS, QUADRATIC, beta)
    start = closed_form.objective(policy, reference, PROMPTS, QUADRATIC, beta)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.03)
    values = []
    for _ in range(300):
        optimizer.zero_grad()
        with torch.enable_grad():
            value = exact_gradient(policy, reference, beta)
        (-value).backward()
        for parameter in policy.parameters():  # the deterministic last step is left as it is
            assert parameter.grad is not None
            parameter.grad[0] = 0
        optimizer.step()
        values.append(closed_form.objective(policy, reference, PROMPTS, QUADRATIC, beta))
    assert max(values) <= best + 1e-9
    assert values[-1] > best - 0.02 * (best - start)


def exact_gradient(policy, reference, beta: float) -> torch.Tensor:
    """The objective with a graph: the recursions of the module on a chain that is differentiable."""
    cond, schedule = policy.condition(PROMPTS), policy.schedule()
    mask = policy.mask(cond).double()
    zero, one = torch.zeros_like(mask), torch.ones_like(mask)
    mean, variance, total = zero, one, torch.zeros(len(mask), dtype=torch.float64)
    for k in range(len(schedule)):
        index = torch.full((len(cond),), k)
        ours = [policy.transition(x, index, cond, schedule) for x in (zero, one)]
        theirs = [reference.transition(x, index, cond, schedule) for x in (zero, one)]
        gain, shift = ours[1].mean - ours[0].mean, ours[0].mean
        if schedule.stochastic[k]:
            d_gain, d_shift = gain - (theirs[1].mean - theirs[0].mean), shift - theirs[0].mean
            distance = (d_gain * mean + d_shift) ** 2 + d_gain**2 * variance
            total = total + (distance * mask).sum(1) / (2 * ours[0].std ** 2)
        mean, variance = gain * mean + shift, gain**2 * variance + ours[0].std[:, None] ** 2
    score = (-((mean - 1) ** 2 + variance) * mask).sum(1) / mask.sum(1)
    return (score - beta * total).mean()
