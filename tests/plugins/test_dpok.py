"""DPOK: its KL, its clamp, its value network, and the whole gradient written out."""

from __future__ import annotations

import pytest
import torch
from rlzoo_dpok import DPOKOptions
from rlzoo_dpok.algorithm import DPOK
from rlzoo_dpok.value import Value, features
from toy_contexts import (
    TOYS,
    assert_ranks_agree,
    bounded,
    drifted,
    gradient,
    gradient_of,
    local,
    log_probs,
    steps_of,
    transition,
)

from rlzoo.api import Batch


@pytest.mark.parametrize("kind", TOYS)
def test_the_kl_is_that_of_torch_distributions(kind) -> None:
    """With a constant score only beta KL is left: its gradient is that of the exact divergence of the normals."""
    options = DPOKOptions(alpha=0.0, beta=0.7, baseline="advantage")
    got = gradient(local(kind, shift=0.1), DPOK(options))
    ctx = local(kind, shift=0.1)
    DPOK(options).setup(ctx)  # draws the value network's seed
    traj = ctx.rollout()
    mask = ctx.policy.mask(traj.cond)
    total = torch.zeros((), dtype=torch.float64)
    for k in steps_of(traj):
        ours, theirs = transition(ctx.policy, traj, k), transition(ctx.reference, traj, k)
        p, q = (torch.distributions.Normal(d.mean, d.std[:, None]) for d in (ours, theirs))
        total = total + ((torch.distributions.kl_divergence(p, q) * mask).sum(1) / mask.sum(1)).sum()
    expected = 0.7 * total / (len(steps_of(traj)) * len(traj))
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)
    assert got.norm() > 1e-4


def test_the_authors_penalty_is_the_distance_of_predictions() -> None:
    got = gradient(local(shift=0.1), DPOK(DPOKOptions(alpha=0.0, beta=0.7, baseline="advantage", kl_space="eps")))
    ctx = local(shift=0.1)
    DPOK(DPOKOptions()).setup(ctx)
    traj = ctx.rollout()
    mask, total = ctx.policy.mask(traj.cond), torch.zeros((), dtype=torch.float64)
    for k in steps_of(traj):
        t = traj.schedule.times[k].expand(len(traj))
        difference = ctx.policy.predict(traj.states[k], t, traj.cond)
        difference = difference - ctx.reference.predict(traj.states[k], t, traj.cond)
        total = total + ((difference**2 * mask).sum(1) / mask.sum(1)).sum()
    expected = 0.7 * total / (len(steps_of(traj)) * len(traj))
    torch.testing.assert_close(got, gradient_of(expected, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("kind", TOYS)
def test_the_step_is_reward_times_clamped_ratio(kind) -> None:
    """A policy that has drifted: the plain clamp has no gradient outside its band, on either side."""

    def drifted():
        ctx = local(kind)
        traj = ctx.rollout()
        with torch.no_grad():
            ctx.policy.bias.add_(0.05)
        ctx.rollout = lambda: traj
        return ctx, traj

    ctx, _ = drifted()
    got = gradient(ctx, DPOK(DPOKOptions(alpha=2.0, beta=0.0, baseline="advantage", clip=0.005)))
    ctx, traj = drifted()
    logp = log_probs(ctx.policy, traj)
    ratio = (logp - traj.log_probs[: len(logp)]).exp()
    inside = (ratio > 0.995) & (ratio < 1.005)
    assert 0 < inside.sum() < inside.numel()
    assert (ratio < 0.995).any()
    assert (ratio > 1.005).any()
    loss = (-2 * ctx.score(traj).values * ratio * inside).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


def test_with_sums_the_clamp_and_the_kl_are_of_whole_states() -> None:
    options = DPOKOptions(alpha=2.0, beta=0.3, baseline="advantage", clip=(0.004, 0.008))
    table = {"by": 0.03, "shift": 0.1, "logprob_reduction": "sum"}
    got = gradient(drifted(**table)[0], DPOK(options))
    ctx, traj = drifted(**table)
    steps = steps_of(traj)
    ratio = (log_probs(ctx.policy, traj, "sum") - traj.log_probs[steps]).exp()
    clamped = bounded(ratio, ctx, traj, 0.004, 0.008)
    assert 0 < (clamped != ratio).sum() < ratio.numel()
    kls = [transition(ctx.policy, traj, k).kl(transition(ctx.reference, traj, k), "sum") for k in steps]
    loss = (-2 * ctx.score(traj).values * clamped + 0.3 * torch.stack(kls)).mean()
    torch.testing.assert_close(got, gradient_of(loss, ctx), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("scale", [True, False])
def test_the_value_s_advantage_is_the_score_less_its_value_over_the_spread(scale: bool) -> None:
    """In a second step, when the value network says something: it is asked before it is fitted again."""
    ctx, algorithm = local(update=True), DPOK(DPOKOptions(scale=scale, value_learning_rate=0.05))
    algorithm.setup(ctx)
    algorithm.step(ctx)
    traj = ctx.rollout()
    scores, mask = ctx.score(traj).values, ctx.policy.mask(traj.cond)
    spread = (float(scores.std(correction=0)) + 1e-4) if scale else 1.0
    expected = torch.zeros_like(traj.log_probs)
    for k in steps_of(traj):
        asked = features(traj.states[k], mask, traj.schedule.times[k].expand(len(traj)), traj.cond)
        expected[k] = (scores - algorithm.value(asked).detach()) / spread
    torch.testing.assert_close(algorithm.value_advantages(ctx, traj, scores)[0], expected)


def test_the_value_learns_what_a_state_is_worth() -> None:
    """Scores that follow from the state's mean are predicted, and the baseline then removes them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator) + torch.linspace(-2, 2, 256)[:, None]
    cond = Batch({"mode": torch.zeros(256, dtype=torch.int64)})
    inputs, scores = features(x, None, torch.full((256,), 0.5), cond), 3 + 2 * x.mean(1)
    value = Value(inputs.shape[1], 32, 1e-2, seed=0, device=torch.device("cpu"))
    value.calibrate(inputs, scores)
    first = value.fit(inputs, scores, 1)
    last = value.fit(inputs, scores, 300)
    assert first == pytest.approx(float(scores.var(correction=0)), rel=0.05)  # it starts at the mean
    after = float(((value(inputs) - scores) ** 2).mean().detach())
    assert after < 0.05 * first
    assert last < first


def test_features_do_not_depend_on_padding_or_batch_mates() -> None:
    text = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    text[0, :, 3:] = 0
    x, mask = torch.randn(2, 4), torch.tensor([[True, True, False, False], [True] * 4])
    together = features(x, mask, torch.full((2,), 0.3), Batch({"hidden": text}))
    alone = features(x[:1, :2], None, torch.full((1,), 0.3), Batch({"hidden": text[:1, :, :3]}))
    torch.testing.assert_close(together[0], alone[0])


def test_the_value_survives_a_checkpoint_before_and_after_its_first_use() -> None:
    first, ctx = DPOK(DPOKOptions()), local(update=True)
    first.setup(ctx)
    assert first.state_dict() == {}
    first.step(ctx)
    state = first.state_dict()
    second = DPOK(DPOKOptions())
    second.setup(ctx)
    second.load_state_dict(state)
    # Not yet used, it must still hand on what it was given.
    assert set(second.state_dict()) == set(state)
    value = second.built(first.value.net[0].in_features, torch.device("cpu"))
    inputs = torch.randn(5, first.value.net[0].in_features)
    assert torch.equal(value(inputs), first.value(inputs))


def test_the_value_baseline_lowers_the_gradients_noise() -> None:
    """Scores with a large mean: without a baseline every transition is pushed."""
    norms = {}
    for baseline in ("value", "advantage"):
        ctx = local(samples=64)
        norms[baseline] = float(gradient(ctx, DPOK(DPOKOptions(beta=0.0, baseline=baseline, scale=False))).norm())
    assert norms["value"] < norms["advantage"]


def test_the_value_network_starts_from_its_seed_alone_and_leaves_the_global_generator() -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made.append(Value(3, 8, 1e-3, 7, torch.device("cpu")))
        assert torch.equal(before, torch.get_rng_state())
    for a, b in zip(made[0].net.parameters(), made[1].net.parameters(), strict=True):
        assert torch.equal(a, b)
    other = Value(3, 8, 1e-3, 8, torch.device("cpu"))
    assert not torch.equal(next(other.net.parameters()), next(made[0].net.parameters()))


def test_two_processes_scale_by_the_spread_of_all_scores_and_fit_one_value() -> None:
    """In the second step the value counts, too."""
    for options in ({}, {"baseline": "advantage"}, {"scale": False, "kl_space": "eps"}):
        assert_ranks_agree(lambda options=options: DPOK(DPOKOptions(**options)), steps=2)


def test_features_tell_states_times_and_conditioning_apart() -> None:
    """By hand: mean, log of the level, crest, time, log of the conditioning's numbers."""
    x, cond = torch.tensor([[1.0, -3.0]]), Batch({"length": torch.tensor([4])})
    level = 5**0.5
    for time in (0.25, 0.75):
        expected = [-1.0, torch.log(torch.tensor(level)).item(), 2 / level, time, torch.log(torch.tensor(5.0)).item()]
        assert features(x, None, torch.tensor([time]), cond)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_scales_are_those_of_the_first_step() -> None:
    first, second = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    value = Value(3, 8, 1e-2, seed=0, device=torch.device("cpu"))
    value.calibrate(first, first.sum(1))
    before = {name: tensor.clone() for name, tensor in value.scale.items()}
    value.calibrate(9 + 5 * second, second.sum(1))
    assert all(torch.equal(value.scale[name], tensor) for name, tensor in before.items())


def test_a_state_unlike_all_of_the_first_step_counts_as_five_deviations_away() -> None:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    value = Value(3, 8, 1e-2, seed=0, device=torch.device("cpu"))
    value.calibrate(inputs, inputs.sum(1))
    value.fit(inputs, inputs.sum(1), 20)
    there = value.scale["mean"] + torch.tensor([4.0, 5.0, 9.0])[:, None] * value.scale["std"]
    near, edge, far = value(there).tolist()
    assert far == edge != near
