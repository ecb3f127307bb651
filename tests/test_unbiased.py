"""The policy gradients are unbiased: their mean over many rollouts against finite differences of exact expectations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import toy_theory as theory
from rlzoo_ddpo import DDPOOptions
from rlzoo_ddpo.algorithm import DDPO
from rlzoo_dlpo import DLPOOptions
from rlzoo_dlpo.algorithm import DLPO
from rlzoo_dpok import DPOKOptions
from rlzoo_dpok.algorithm import DPOK
from rlzoo_grpo import GRPOOptions
from rlzoo_grpo.algorithm import GRPO
from rlzoo_klinr import KLinROptions
from rlzoo_klinr.algorithm import KLinR
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from toy_contexts import PROMPTS, TOYS, gradient, gradient_of, local

from rlzoo.api import Policy
from rlzoo.functional import frozen_copy
from rlzoo.testing import closed_form
from rlzoo.testing.specs import ToyRewardOptions

REWARD = ToyRewardOptions(slope=1.0, curvature=0.1)
BATCHES, SAMPLES, BETA = 20, 250, 1.0
Objective = Callable[[Policy, Policy], Tensor]  # of a policy and its reference: exact, with a graph


def expected_reward(policy: Policy, reference: Policy) -> Tensor:
    return theory.expected_reward(theory.law(policy, PROMPTS), REWARD).mean()


def less_diffusion_loss(policy: Policy, reference: Policy) -> Tensor:
    return expected_reward(policy, reference) - BETA * theory.trajectory_diffusion_loss(policy, PROMPTS).mean()


def less_kl(policy: Policy, reference: Policy, visits: Policy | None = None) -> Tensor:
    """Reward less KL of trajectories; with `visits` the KL is counted at the states where that policy goes."""
    ours, theirs, drawn = (closed_form.chain(p, PROMPTS) for p in (policy, reference, visits or policy))
    mean, variance, total = torch.zeros_like(ours.gain[0]), torch.ones_like(ours.gain[0]), torch.zeros(())
    for k in range(len(ours.stochastic)):
        if ours.stochastic[k]:
            gain, shift = ours.gain[k] - theirs.gain[k], ours.shift[k] - theirs.shift[k]
            square = ((gain * mean + shift) ** 2 + gain**2 * variance) / (2 * ours.std[k][:, None] ** 2)
            total = total + (square * ours.mask).sum(1).mean()
        mean = drawn.gain[k] * mean + drawn.shift[k]
        variance = drawn.gain[k] ** 2 * variance + drawn.std[k][:, None] ** 2
    return expected_reward(policy, reference) - BETA * total


def less_kl_where_it_has_been(policy: Policy, reference: Policy) -> Tensor:
    """A KL in the loss is differentiated at the states of the rollout, wherever another policy would go."""
    return less_kl(policy, reference, frozen_copy(policy))


def dlpo(estimator: Any) -> DLPO:
    return DLPO(DLPOOptions(estimator=estimator, beta=BETA, norm="l2"))


UNBIASED: dict[str, tuple[Callable[[], Any], Objective]] = {
    "dlpo full": (lambda: dlpo("full"), less_diffusion_loss),
    "ddpo sf": (lambda: DDPO(DDPOOptions(estimator="sf")), expected_reward),
    "ddpo is": (lambda: DDPO(DDPOOptions(estimator="is")), expected_reward),
    "dpok": (lambda: DPOK(DPOKOptions(beta=BETA, scale=False)), less_kl_where_it_has_been),
    "klinr k1": (lambda: KLinR(KLinROptions(estimator="k1", beta=BETA)), less_kl),
    "klinr exact": (lambda: KLinR(KLinROptions(estimator="exact", beta=BETA)), less_kl),
    "grpo flow": (lambda: GRPO(GRPOOptions(beta=BETA)), less_kl_where_it_has_been),
    "grpo dance": (lambda: GRPO(GRPOOptions(form="dance")), expected_reward),
}
BIASED: dict[str, tuple[Callable[[], Any], Objective]] = {
    "dlpo scalar": (lambda: dlpo("scalar"), less_diffusion_loss),
    "dlpo additive": (lambda: dlpo("additive"), less_diffusion_loss),
    "no penalty": (lambda: DDPO(DDPOOptions()), less_kl),
    "klinr k2": (lambda: KLinR(KLinROptions(estimator="k2", beta=BETA)), less_kl),
    "dpok as klinr": (lambda: DPOK(DPOKOptions(beta=BETA, scale=False)), less_kl),
}


def differences(kind: type[Policy], make: Callable[[], Any], objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """Per parameter: mean estimate, its standard error, and the exact gradient.

    The weights have left their reference: a well trained policy is a stationary point of penalties and losses.
    """
    estimates = []
    for seed in range(BATCHES):
        ctx = local(
            kind, samples=SAMPLES, seed=seed, shift=0.2, reward=REWARD, logprob_reduction="sum", micro_batch=4096
        )
        # The loss is a mean over transitions, the objective's gradient a sum over each trajectory.
        estimates.append(-(len(ctx.policy.schedule()) - 1) * gradient(ctx, make()))
    truth = gradient_of(objective(ctx.policy, ctx.reference), ctx)
    error = torch.stack(estimates).std(0) / BATCHES**0.5
    # The last step is deterministic, has a knot of its own, the first, and is not trained. Biases of modes and elements
    # that these prompts do not use have no gradient at all.
    trained = torch.cat([(torch.arange(len(p)) > 0).repeat_interleave(p[0].numel()) for p in ctx.policy.parameters()])
    trained &= error > 1e-9
    assert trained.sum() > 20
    return torch.stack(estimates).mean(0)[trained], error[trained], truth[trained]


@pytest.mark.parametrize("kind", TOYS)
def test_the_exact_gradients_are_finite_differences(kind: type[Policy]) -> None:
    """Along a random direction, of what `rlzoo.testing.closed_form` says."""
    ctx = local(kind, shift=0.2)
    exact = gradient_of(less_kl(ctx.policy, ctx.reference), ctx)
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(0), dtype=exact.dtype)
    start, values, step = parameters_to_vector(ctx.policy.parameters()).detach(), [], 1e-4
    for sign in (1, -1):
        vector_to_parameters(start + sign * step * direction, ctx.policy.parameters())
        values.append(closed_form.objective(ctx.policy, ctx.reference, PROMPTS, REWARD, BETA))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(exact @ direction), rel=1e-6)


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("name", UNBIASED)
def test_the_mean_gradient_is_that_of_the_expected_objective(kind: type[Policy], name: str) -> None:
    mean, error, truth = differences(kind, *UNBIASED[name])
    assert ((mean - truth) / error).abs().max() < 4
    for factor in (0.5, 2.0):  # the errors are small enough to see a gradient that is half or twice as large
        assert ((factor * mean - truth) / (factor * error)).abs().max() > 4


@pytest.mark.parametrize("name", BIASED)
def test_the_test_above_sees_a_gradient_of_something_else(name: str) -> None:
    mean, error, truth = differences(TOYS[1], *BIASED[name])
    assert ((mean - truth) / error).abs().max() > 4
