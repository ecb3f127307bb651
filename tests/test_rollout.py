"""Noise belongs to its row: no result depends on padding, batch size or the other rows."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rlzoo.api import Gaussian, Prompt, Samples, Schedule
from rlzoo.core.noise import draw_noise, generator_of, seed_of
from rlzoo.engine import rollout
from rlzoo.errors import ContractError
from rlzoo.testing.context import LocalContext
from rlzoo.testing.specs import ToyPolicyOptions, ToyRewardOptions
from rlzoo.testing.toys import FlowToy, GaussianToy, ToyReward

PROMPTS = [Prompt("short", "a"), Prompt("long", "bb"), Prompt("middle", "ddd")]
POLICIES = [GaussianToy(ToyPolicyOptions()), FlowToy(ToyPolicyOptions())]


def sampled(policy, prompts, repetitions=2, micro_batch=16, **changes):
    rows = rollout.rows_of(prompts, range(len(prompts)), repetitions, seed=0, step=0)
    cond = policy.condition(prompts).repeat(repetitions)
    schedule = changes.pop("schedule", policy.schedule())
    settings = {"kept": tuple(range(len(schedule) + 1))} | changes
    plan = rollout.SamplingPlan(schedule=schedule, seeds=rows.seeds, micro_batch=micro_batch, **settings)
    return rows, cond, rollout.sample(policy, cond, plan)


@pytest.mark.parametrize("policy", POLICIES, ids=["gaussian", "flow"])
def test_the_batch_size_changes_nothing(policy):
    _, _, at_once = sampled(policy, PROMPTS, micro_batch=16)
    for micro_batch in (1, 2, 5):
        _, _, apart = sampled(policy, PROMPTS, micro_batch=micro_batch)
        torch.testing.assert_close(apart.states, at_once.states, rtol=0, atol=1e-6)
        torch.testing.assert_close(apart.log_probs, at_once.log_probs, rtol=0, atol=1e-5)


def test_rows_of_like_length_go_together_the_longest_first():
    assert rollout.by_length([3, 9, 4, 9, 2], 2) == [[1, 3], [2, 0], [4]]
    assert rollout.by_length([3, 9, 4], 3) == [[0, 1, 2]], "one batch needs no order"


@pytest.mark.parametrize("kept", [{}, {"kept": (len(POLICIES[0].schedule()),)}], ids=["all", "final"])
def test_a_batch_of_short_rows_is_no_wider_than_they_are_and_rows_keep_their_order(kept):
    widths = []

    class Watched(GaussianToy):
        def forward(self, x_t, t, cond):
            widths.append(tuple(x_t.shape))
            return super().forward(x_t, t, cond)

    probe = (0, 1, 2, 3, 0, 1)
    settings = {"probe": probe, "window_frames": 1} | kept
    _, cond, whole = sampled(policy := Watched(ToyPolicyOptions()), PROMPTS, **settings)
    widths.clear()
    _, _, apart = sampled(policy, PROMPTS, micro_batch=2, **settings)
    assert list(dict.fromkeys(widths)) == [(2, 4), (2, 3), (2, 2)]
    assert apart.samples.lengths.tolist() == policy.lengths(cond).tolist()
    for name in ("states", "log_probs", "probed", "window_log_probs"):
        torch.testing.assert_close(getattr(apart, name), getattr(whole, name), rtol=0, atol=1e-5)
    torch.testing.assert_close(apart.samples.data, whole.samples.data, rtol=0, atol=1e-6)


def test_the_graph_reaches_the_policy_through_batches_in_another_order():
    policy = POLICIES[0]
    gradients = []
    for micro_batch in (16, 2):
        _, _, done = sampled(policy, PROMPTS, micro_batch=micro_batch, grad_steps=2)
        weights = torch.arange(done.samples.data.numel()).view_as(done.samples.data)
        gradients.append(torch.autograd.grad((done.samples.data * weights).sum(), policy.bias)[0])
    torch.testing.assert_close(*gradients)


class HostReads(TorchDispatchMode):
    """Counts what would make the host wait for a GPU's numbers, while `inside`."""

    inside = False

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = [index for index in args[1] if index is not None] if func is torch.ops.aten.index.Tensor else []
        waits = func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        if self.inside and (waits or any(index.dtype == torch.bool for index in masks)):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [{}, {"window_frames": 1}, {"probe": (0, 1, 2, 3, 0, 1)}])
def test_no_step_of_the_sampler_reads_a_number_from_its_device(settings):
    class Watched(GaussianToy):
        def transition(self, x, k, *args):
            HostReads.inside = True
            return super().transition(x, k, *args)

        def decode(self, x, cond):
            HostReads.inside = False
            return super().decode(x, cond)

    with HostReads() as reads:
        sampled(Watched(ToyPolicyOptions()), PROMPTS, **settings)
    assert not reads.seen


@pytest.mark.parametrize("policy", POLICIES, ids=["gaussian", "flow"])
def test_padding_and_batch_mates_change_nothing(policy):
    _, _, together = sampled(policy, PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        _, _, alone = sampled(policy, [prompt])
        width = alone.states.shape[-1]
        rows = slice(2 * number, 2 * number + 2)
        torch.testing.assert_close(together.states[:, rows, :width], alone.states, rtol=0, atol=1e-6)
        assert not together.states[:, rows, width:].any(), "padding must stay zero"


def test_samples_of_another_length_than_their_states():
    class Doubling(GaussianToy):
        def decode(self, x, cond):
            return Samples(x.repeat_interleave(2, -1), 2 * self.lengths(cond), self.media)

    for micro_batch in (1, 2, 16):
        _, cond, done = sampled(policy := Doubling(ToyPolicyOptions()), PROMPTS, micro_batch=micro_batch)
        assert done.samples.lengths.tolist() == (2 * policy.lengths(cond)).tolist()
        assert torch.equal(done.samples.data, done.states[-1].repeat_interleave(2, -1))


def test_noise_beyond_the_length_is_not_drawn():
    short = draw_noise([generator_of(1)], (5,), [5])
    padded = draw_noise([generator_of(1)], (9,), [5])
    assert torch.equal(padded[:, :5], short)
    assert not padded[:, 5:].any()


def test_seeds_are_fixed_for_ever():
    # A change of this number changes every published result: it needs a "Numerics" line in the changelog.
    assert seed_of("row", 0, 3, "toy-001", 2) == 4466307881249766204
    first = rollout.rows_of(PROMPTS, range(3), 2, seed=0, step=0)
    assert len(set(first.seeds)) == 6
    for seed, step in ((1, 0), (0, 1)):
        assert not set(first.seeds) & set(rollout.rows_of(PROMPTS, range(3), 2, seed, step).seeds)


def test_every_process_makes_its_own_rows_of_the_same_whole():
    prompts = [Prompt(str(number), "a") for number in range(5)]
    whole = rollout.rows_of(prompts, range(5), 3, seed=7, step=2)
    shares = [rollout.share(5, rank, 2) for rank in range(2)]
    parts = [rollout.rows_of(prompts, mine, 3, seed=7, step=2) for mine in shares]
    for name in ("prompts", "group", "seeds", "group_seeds"):
        assert sum((getattr(part, name) for part in parts), ()) == getattr(whole, name)


def test_a_prompt_that_comes_twice_in_a_step_is_not_sampled_twice_alike():
    rows = rollout.rows_of([PROMPTS[0], PROMPTS[0]], range(2), 2, seed=0, step=0)
    assert len(set(rows.seeds)) == 4


def test_a_shared_prior_starts_a_group_from_one_noise_and_then_parts():
    policy = POLICIES[0]
    rows = rollout.rows_of(PROMPTS, range(3), 2, seed=0, step=0)
    _, _, done = sampled(policy, PROMPTS, prior_seeds=rows.group_seeds)
    _, _, plain = sampled(policy, PROMPTS)
    assert torch.equal(done.states[0, 0::2], done.states[0, 1::2])
    assert not torch.equal(done.states[1, 0::2], done.states[1, 1::2])
    assert torch.equal(done.states[0, 0::2], plain.states[0, 0::2]), "the first of a group starts as it always does"


def test_the_first_draw_is_not_the_prior_again(monkeypatch):
    """Whether or not a row starts from its own prior, the steps' draws are those behind it."""
    seen = []
    rsample = Gaussian.rsample
    monkeypatch.setattr(Gaussian, "rsample", lambda self, noise: seen.append(noise) or rsample(self, noise))
    rows, _, done = sampled(POLICIES[0], PROMPTS)
    assert not torch.equal(seen[0], done.states[0])
    own = list(seen)
    seen.clear()
    sampled(POLICIES[0], PROMPTS, prior_seeds=rows.group_seeds)
    assert all(torch.equal(a, b) for a, b in zip(own, seen, strict=True))


@pytest.mark.parametrize("policy", POLICIES, ids=["gaussian", "flow"])
def test_log_probs_are_those_of_the_transition_and_zero_where_there_is_no_density(policy):
    _, cond, done = sampled(policy, PROMPTS)
    schedule = policy.schedule()
    for k in range(len(schedule)):
        step = policy.transition(done.states[k], torch.full((6,), k), cond, schedule)
        if schedule.stochastic[k]:
            torch.testing.assert_close(step.log_prob(done.states[k + 1]), done.log_probs[k], rtol=0, atol=1e-5)
        else:
            assert not done.log_probs[k].any()
            torch.testing.assert_close(done.states[k + 1], step.mode.detach(), rtol=0, atol=1e-6)


def test_the_graph_reaches_back_as_many_steps_as_asked():
    policy = POLICIES[0]
    _, _, done = sampled(policy, PROMPTS, grad_steps=1)
    last = torch.autograd.grad(done.samples.data.sum(), policy.bias)[0]
    _, _, done = sampled(policy, PROMPTS, grad_steps=3)
    more = torch.autograd.grad(done.samples.data.sum(), policy.bias)[0]
    trained = [(gradient.flatten(1).abs().sum(1) > 0).sum().item() for gradient in (last, more)]
    assert trained == [1, 3], "knots of the table that received a gradient"
    _, _, none = sampled(policy, PROMPTS)
    assert not none.states.requires_grad


def test_probed_states_are_those_before_the_step():
    probe = (0, 1, 2, 3, 0, 1)
    _, _, done = sampled(POLICIES[0], PROMPTS, probe=probe)
    expected = torch.stack([done.states[k, row] for row, k in enumerate(probe)])
    assert torch.equal(done.probed, expected)
    _, _, final = sampled(POLICIES[0], PROMPTS, probe=probe, kept=(len(POLICIES[0].schedule()),))
    assert torch.equal(final.probed, expected)
    assert final.states.shape[0] == 1
    assert torch.equal(final.states[0], done.states[-1])


def test_only_states_around_densities_are_kept():
    """What MixGRPO samples: noise in a window of steps, the mode elsewhere."""
    policy, prompts = FlowToy(ToyPolicyOptions()), PROMPTS[:2]
    ctx = LocalContext(policy, ToyReward(ToyRewardOptions()), prompts)
    K = len(policy.schedule())
    stochastic = policy.schedule().stochastic.clone()
    stochastic[2:] = False
    stochastic[0] = False
    assert rollout.around_densities(stochastic) == (1, 2, K)
    schedule = Schedule(policy.schedule().times, stochastic)
    _, cond, every = sampled(policy, prompts, schedule=schedule)
    rows, _, some = sampled(policy, prompts, schedule=schedule, kept=(1, 2, K))
    assert torch.equal(some.states, every.states[[1, 2, K]])

    whole = ctx.rollout(prompts, samples_per_prompt=2)
    trajectory = replace(whole, cond=cond, schedule=schedule, states=some.states, kept=(1, 2, K), seeds=rows.seeds)
    assert torch.equal(trajectory.state(2), every.states[2])
    row = torch.tensor([0, 3])
    assert torch.equal(trajectory.state(torch.tensor([1, K]), row), every.states[torch.tensor([1, K]), row])
    assert torch.equal(trajectory.final, every.states[K])
    for missing in (0, torch.tensor([1, 3])):
        with pytest.raises(ContractError, match="were not kept, only"):
            trajectory.state(missing, row)
