"""DiffusionNFT: the loss written out, its meaning at the old policy, and the old policy's way."""

from __future__ import annotations

import pytest
import torch
from rlzoo_nft import NFTOptions
from rlzoo_nft.algorithm import NFT
from toy_contexts import TOYS, gradient, gradient_of, local


def distance(ctx, x_t, v, t, clean, mask):
    implied = ctx.policy.clean(x_t, v, t)
    count = mask.sum(1)
    weight = ((implied - clean).detach().abs() * mask).sum(1) / count
    return ((implied - clean) ** 2 * mask).sum(1) / count / weight


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("beta", [0.4, 1.0])
def test_the_step_is_the_equation(kind, beta: float) -> None:
    def prepared():
        ctx, algorithm = local(kind), NFT(NFTOptions(beta=beta, kl=0.2, advantage_max=20.0, updates=1))
        algorithm.setup(ctx)
        with torch.no_grad():
            ctx.policy.bias.add_(0.1)  # so that policy, old policy and reference differ
            algorithm.old.bias.sub_(0.05)
        algorithm.setup = lambda ctx: None
        return ctx, algorithm

    got = gradient(*prepared())
    ctx, algorithm = prepared()
    traj = ctx.rollout(keep="final", policy=algorithm.old)
    good = (ctx.score(traj).values / 40 + 0.5).clamp(0, 1)
    assert good.min() > 0
    t, noise = ctx.draw(traj, "nft")
    mask, clean = ctx.policy.mask(traj.cond), traj.final
    x_t = ctx.policy.noisy(clean, noise, t)
    v, v_old, v_ref = (p.predict(x_t, t, traj.cond) for p in (ctx.policy, algorithm.old, ctx.reference))
    v_plus, v_minus = beta * v + (1 - beta) * v_old, (1 + beta) * v_old - beta * v
    loss = good * distance(ctx, x_t, v_plus, t, clean, mask) + (1 - good) * distance(ctx, x_t, v_minus, t, clean, mask)
    kl = ((v - v_ref) ** 2 * mask).sum(1) / mask.sum(1)
    expected = (loss * 20.0 / beta + 0.2 * kl).mean()
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)


def test_at_the_old_policy_it_is_the_advantage_weighted_gradient() -> None:
    """v+ = v- = v_old: the two sides pull against each other with weight 2 q - 1 = A / A_max."""
    got = gradient(local(), NFT(NFTOptions(kl=0.0, advantage_max=50.0, updates=1)))
    ctx = local()
    traj = ctx.rollout(keep="final")
    advantages = ctx.score(traj).values
    t, noise = ctx.draw(traj, "nft")
    x_t = ctx.policy.noisy(traj.final, noise, t)
    v, mask = ctx.policy.predict(x_t, t, traj.cond), ctx.policy.mask(traj.cond)
    expected = (advantages * distance(ctx, x_t, v, t, traj.final, mask)).mean()
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)


def test_the_old_policy_follows_and_survives_a_checkpoint() -> None:
    ctx, algorithm = local(update=True), NFT(NFTOptions(decay_rate=0.2, decay_max=0.5, updates=1))
    algorithm.setup(ctx)
    for step, decay in enumerate((0.2, 0.4, 0.5, 0.5)):
        ctx.step, before = step, algorithm.old.bias.clone()
        assert algorithm.step(ctx)["train/old_decay"] == pytest.approx(decay)
        torch.testing.assert_close(algorithm.old.bias, decay * before + (1 - decay) * ctx.policy.bias.detach())
    resumed = NFT(NFTOptions())
    resumed.setup(local())
    resumed.load_state_dict(algorithm.state_dict())
    assert torch.equal(resumed.old.bias, algorithm.old.bias)
    assert not any(p.requires_grad for p in resumed.old.parameters())


@pytest.mark.parametrize("beta", [0.4])
def test_advantages_beyond_the_largest_count_as_certain(beta: float) -> None:
    """Some scores lie outside +-advantage_max: their samples are wholly good or wholly bad, never more."""
    options = NFTOptions(beta=beta, kl=0.0, advantage_max=0.5, updates=1)
    got = gradient(local(advantage="batch"), NFT(options))
    ctx = local(advantage="batch")
    traj = ctx.rollout(keep="final")
    good = (ctx.advantages(ctx.score(traj), traj) / (2 * 0.5) + 0.5).clamp(0, 1)
    assert {0.0, 1.0} < set(good.tolist())
    t, noise = ctx.draw(traj, "nft")
    mask, x_t = ctx.policy.mask(traj.cond), ctx.policy.noisy(traj.final, noise, t)
    v, v_old = ctx.policy.predict(x_t, t, traj.cond), ctx.reference.predict(x_t, t, traj.cond)
    sides = (beta * v + (1 - beta) * v_old, (1 + beta) * v_old - beta * v)
    plus, minus = (distance(ctx, x_t, side, t, traj.final, mask) for side in sides)
    expected = ((good * plus + (1 - good) * minus) * 0.5 / beta).mean()
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "decays"),
    [
        ({"decay_rate": 0.001, "decay_max": 0.5, "updates": 2}, [0.002, 0.004, 0.006]),
        # The authors' type 2, counted in gradient updates after they were made.
        ({"decay_flat": 3, "decay_rate": 0.3, "decay_max": 0.999, "updates": 2}, [0.0, 0.3, 0.9]),
        ({"decay_flat": 3, "decay_rate": 0.9, "decay_max": 0.999, "updates": 2}, [0.0, 0.9, 0.999]),
    ],
)
def test_the_decay_counts_gradient_updates_and_a_checkpoint_keeps_the_count(options, decays) -> None:
    ctx, algorithm = local(update=True), NFT(NFTOptions(**options))
    algorithm.setup(ctx)
    found = []
    for _ in decays:
        found.append(algorithm.step(ctx)["train/old_decay"])
        state = algorithm.state_dict()
        algorithm = NFT(NFTOptions(**options))
        algorithm.setup(ctx)
        algorithm.load_state_dict(state)
    assert found == pytest.approx(decays)
