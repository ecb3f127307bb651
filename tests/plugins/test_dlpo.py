"""DLPO's estimators against closed forms, on toys in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from rlzoo_dlpo import DLPOOptions
from rlzoo_dlpo.algorithm import DLPO
from torch import Tensor
from toy_contexts import drifted, gradient_of, log_probs, steps_of, surrogate

from rlzoo.api import Policy, Trajectory
from rlzoo.config.schema import RolloutTable, TrainTable
from rlzoo.errors import DataError
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyPromptOptions, ToyRewardOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyPrompts, ToyReward

TOYS = [GaussianToy, FlowToy]
PROMPTS = ToyPrompts(ToyPromptOptions(train=2))


def make(
    kind: type[Policy], *, samples: int = 4, seed: int = 0, recordings: bool = False, **table: Any
) -> LocalContext:
    policy = kind(ToyPolicyOptions()).double()  # type: ignore[call-arg]
    return LocalContext(
        policy,
        ToyReward(ToyRewardOptions(slope=0.3)),
        PROMPTS.train(),
        rollout=RolloutTable(prompts_per_step=2, samples_per_prompt=samples),
        train=TrainTable(advantage="none", advantage_clip=1e9, **table),
        recordings=PROMPTS.recordings(PROMPTS.train()) if recordings else None,
        seed=seed,
        update=False,
    )


def gradient(ctx: LocalContext, **options: Any) -> Tensor:
    DLPO(DLPOOptions(**options)).step(ctx)
    return torch.cat([ctx.gradients[name].flatten() for name, _ in ctx.policy.named_parameters()])


def rows(traj: Trajectory, k: int) -> Tensor:
    return torch.full((len(traj),), k)


def own_losses(policy: Policy, traj: Trajectory) -> Tensor:
    """(K-1, N): squared error against the noise or velocity that leads from the final state to each visited one."""
    losses = []
    mask = policy.mask(traj.cond)
    assert mask is not None
    for k in traj.schedule.stochastic.nonzero().flatten().tolist():
        x_t, x_0, t = traj.states[k], traj.final, float(traj.schedule.times[k])
        prediction = policy.predict(x_t, torch.full((len(traj),), t, dtype=x_t.dtype), traj.cond)
        if isinstance(policy, GaussianToy):
            wanted = (x_t - math.sqrt(1 - t**2) * x_0) / t
        else:
            wanted = (x_t - (1 - t) * x_0) / t - x_0
        losses.append((((prediction - wanted) ** 2) * mask).sum(1) / mask.sum(1))
    return torch.stack(losses)


@pytest.mark.parametrize("kind", TOYS)
def test_own_target_is_the_noise_that_leads_to_the_visited_state(kind: type[Policy]) -> None:
    ctx = make(kind)
    traj = ctx.rollout()
    expected = own_losses(ctx.policy, traj)
    dlpo = DLPO(DLPOOptions(credit="step", centre=False))
    charge = dlpo.penalty(ctx, traj, dlpo.denoising_target(ctx, traj))
    assert charge is not None
    torch.testing.assert_close(charge[:-1], expected)
    assert charge[-1].abs().max() == 0  # the deterministic last step pays nothing


def test_trajectory_credit_charges_every_step_with_the_whole_trajectory() -> None:
    ctx = make(GaussianToy)
    traj = ctx.rollout()
    total = own_losses(ctx.policy, traj).sum(0)
    dlpo = DLPO(DLPOOptions(centre=False))
    charge = dlpo.penalty(ctx, traj, dlpo.denoising_target(ctx, traj))
    assert charge is not None
    torch.testing.assert_close(charge, total.expand_as(charge))
    dlpo = DLPO(DLPOOptions(centre=True))
    centred = dlpo.penalty(ctx, traj, dlpo.denoising_target(ctx, traj))
    assert centred is not None
    torch.testing.assert_close(centred, (total - total.mean()).expand_as(charge))


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("estimator", ["full", "scalar", "additive"])
def test_gradient_is_the_equation_written_out(kind: type[Policy], estimator: str) -> None:
    got = gradient(make(kind), estimator=estimator, alpha=1.5, beta=0.4, norm="l2", centre=False)
    ctx = make(kind)  # the same seeds: the same trajectory
    traj = ctx.rollout()
    reward = ctx.score(traj).values
    losses = own_losses(ctx.policy, traj)
    steps = len(losses)
    logp = torch.stack(
        [
            ctx.policy.transition(traj.states[k], rows(traj, k), traj.cond, traj.schedule).log_prob(traj.states[k + 1])
            for k in range(steps)
        ]
    )
    shaped = 1.5 * reward if estimator == "additive" else 1.5 * reward - 0.4 * losses.detach().sum(0)
    objective = (shaped * logp).sum()
    if estimator != "scalar":
        objective = objective - 0.4 * losses.sum()
    grads = torch.autograd.grad(-objective / (steps * len(traj)), list(ctx.policy.parameters()))
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in grads]), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("estimator", ["full", "scalar", "additive"])
def test_off_the_sampling_policy_the_ratio_is_clipped_on_both_sides(estimator: str, reduction: str) -> None:
    options = {"alpha": 1.5, "beta": 0.4, "norm": "l2", "credit": "step", "centre": True, "clip": (0.004, 0.008)}
    table = {"by": 0.02, "advantage": "batch", "logprob_reduction": reduction}
    got = gradient(drifted(**table)[0], estimator=estimator, **options)
    ctx, traj = drifted(**table)
    steps, losses = steps_of(traj), own_losses(ctx.policy, traj)
    charge = (losses - losses.mean(1, keepdim=True)).detach() if estimator != "additive" else 0.0
    shaped = 1.5 * ctx.advantages(ctx.score(traj), traj) - 0.4 * charge
    ratio = (log_probs(ctx.policy, traj, reduction) - traj.log_probs[steps]).exp()
    loss = surrogate(ratio, shaped, ctx, traj, 0.004, 0.008)
    if estimator != "scalar":
        loss = loss + 0.4 * losses
    torch.testing.assert_close(got, gradient_of(loss.mean(), ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("kind", TOYS)
def test_released_has_no_reward_gradient_at_all(kind: type[Policy]) -> None:
    plain = gradient(make(kind), estimator="released", alpha=0.0)
    rewarded = gradient(make(kind), estimator="released", alpha=50.0)
    assert torch.equal(plain, rewarded)
    # What is left is the supervised loss, scaled by the constant that the clamp returns.
    losses = gradient(make(kind), estimator="additive", alpha=0.0)
    torch.testing.assert_close(plain, losses * (1 - 1e-4))
    assert plain.norm() > 0


@pytest.mark.parametrize("estimator", ["full", "scalar", "additive"])
def test_every_other_estimator_has_a_reward_gradient(estimator: str) -> None:
    plain = gradient(make(GaussianToy), estimator=estimator, alpha=0.0)
    rewarded = gradient(make(GaussianToy), estimator=estimator, alpha=1.0)
    assert (plain - rewarded).norm() > 1e-3


def test_norm_follows_the_policy_unless_told() -> None:
    ctx = make(GaussianToy)
    ctx.policy.loss_norm = "l1"
    own, l1, l2 = (gradient(ctx, norm=norm, estimator="additive", alpha=0.0) for norm in ("policy", "l1", "l2"))
    assert l1.shape == own.shape
    fresh = [make(GaussianToy) for _ in range(2)]
    fresh[0].policy.loss_norm = "l1"
    assert torch.equal(gradient(fresh[0], norm="policy", alpha=0.0), gradient(fresh[1], norm="l1", alpha=0.0))
    assert not torch.equal(l1, l2)


def noises(traj: Trajectory, ctx: LocalContext, dlpo: DLPO) -> list[Tensor]:
    """What is added to the recordings at each step."""
    noisy, heard = ctx.policy.noisy, []
    ctx.policy.noisy = lambda x, noise, t: heard.append(noise) or noisy(x, noise, t)  # type: ignore[method-assign]
    dlpo.penalty(ctx, traj, dlpo.denoising_target(ctx, traj))
    ctx.policy.noisy = noisy  # type: ignore[method-assign]
    return heard


def test_data_target_is_the_denoising_loss_of_the_recording() -> None:
    ctx = make(GaussianToy, recordings=True)
    traj = ctx.rollout()
    dlpo = DLPO(DLPOOptions(target="data", credit="step", centre=False))
    charge = dlpo.penalty(ctx, traj, dlpo.denoising_target(ctx, traj))
    assert charge is not None
    # Rows of one prompt share its recording but not their noise, and every step draws its own.
    assert charge[0].unique().numel() == len(traj)
    heard = noises(traj, ctx, dlpo)
    assert len({noise.flatten()[0].item() for noise in heard}) == len(heard) == len(traj.schedule) - 1
    # Its mean over noise is what the policy's own denoising loss measures on the same recordings.
    x, cond = ctx.policy.supervise(traj.prompts, ctx.recordings(traj.prompts))
    big, many = make(GaussianToy, recordings=True, samples=4000), 4000
    traj = big.rollout()
    charge = dlpo.penalty(big, traj, dlpo.denoising_target(big, traj))
    assert charge is not None
    noise = torch.randn(2 * many, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)[:, : x.shape[1]]
    t = torch.full((2 * many,), float(traj.schedule.times[1]), dtype=torch.float64)
    x, cond = big.policy.supervise(traj.prompts, big.recordings(traj.prompts))
    expected = big.policy.denoising_loss(x.double(), cond, t, noise).detach()
    error = math.sqrt(float(charge[1].var() + expected.var()) / (2 * many))
    assert float(charge[1].mean()) == pytest.approx(float(expected.mean()), abs=5 * error)


def test_data_target_refuses_prompts_without_recordings() -> None:
    with pytest.raises(DataError, match="no recordings"):
        gradient(make(GaussianToy), target="data")


def test_padding_has_no_influence() -> None:
    """A short prompt's gradient is the same beside a longer one and alone."""
    short, long = sorted(ToyPrompts(ToyPromptOptions()).train(), key=lambda p: len(p.text) % 3)[::7]
    policy = GaussianToy(ToyPolicyOptions()).double()
    reward = ToyReward(ToyRewardOptions())
    table = RolloutTable(prompts_per_step=1, samples_per_prompt=2)
    alone = LocalContext(policy, reward, [short], rollout=table, update=False)
    traj = alone.rollout([short])
    dlpo = DLPO(DLPOOptions(credit="step", centre=False))
    charge = dlpo.penalty(alone, traj, dlpo.denoising_target(alone, traj))
    both = alone.rollout([short, long])
    wide = torch.nn.functional.pad(traj.states, (0, both.states.shape[-1] - traj.states.shape[-1]), value=9.0)
    both.states[:, :2] = wide
    both_charge = dlpo.penalty(alone, both, dlpo.denoising_target(alone, both))
    assert charge is not None
    assert both_charge is not None
    assert both.states.shape[-1] > traj.states.shape[-1]
    torch.testing.assert_close(both_charge[:, :2], charge)


def test_released_compares_with_the_starting_weights() -> None:
    """Far from them the difference of log-probabilities passes 1, and the clamp returns its other end."""

    def moved() -> LocalContext:
        ctx = make(GaussianToy)
        traj = ctx.rollout()
        with torch.no_grad():
            ctx.reference.bias.add_(5.0)  # type: ignore[operator, union-attr]
        ctx.rollout = lambda: traj  # type: ignore[method-assign]
        return ctx

    ctx = moved()
    traj = ctx.rollout()
    k = 0
    ours, theirs = (
        policy.transition(traj.states[k], rows(traj, k), traj.cond, traj.schedule).log_prob(traj.states[k + 1])
        for policy in (ctx.policy, ctx.reference)
    )
    assert float((ours - theirs).detach().min()) > 1.0001
    released, supervised = (gradient(moved(), estimator=name, alpha=0.0) for name in ("released", "additive"))
    torch.testing.assert_close(released, supervised * (1 + 1e-4))
