"""Closed forms of every function in `rlzoo.functional`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rlzoo import functional as F
from rlzoo.api import Gaussian
from rlzoo.errors import ConfigError
from rlzoo.testing.specs import ToyPolicyOptions
from rlzoo.testing.toys import FlowToy, GaussianToy


def test_length_mask_is_true_before_each_length() -> None:
    assert F.length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_masked_mean_ignores_padding_even_when_it_is_not_finite() -> None:
    x = torch.tensor([[1.0, 3.0, float("nan")], [5.0, float("inf"), 7.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert F.masked_mean(x, mask).tolist() == [2.0, 5.0]
    assert F.masked_mean(torch.tensor([[1.0, 2.0]]), None).tolist() == [1.5]


def test_num_elements_counts_valid_ones() -> None:
    x = torch.zeros(2, 3, 4)
    assert F.num_elements(x, None).tolist() == [12.0, 12.0]
    mask = F.length_mask(torch.tensor([4, 1]), 4)[:, None, :]
    assert F.num_elements(x, mask).tolist() == [12.0, 3.0]


def test_group_advantages_standardise_inside_each_group() -> None:
    values, group = torch.tensor([1.0, 10.0, 3.0, 10.0]), torch.tensor([7, 2, 7, 2])
    # Group 7 is 1, 3: mean 2, population std 1. Group 2 has no spread.
    assert F.group_advantages(values, group, eps=0.0)[[0, 2]].tolist() == [-1.0, 1.0]
    assert F.group_advantages(values, group)[[1, 3]].tolist() == [0.0, 0.0]


def test_group_statistics_keep_their_digits_far_from_zero() -> None:
    values = torch.tensor([1000.01, 1000.03])
    _, std = F.group_statistics(values, torch.zeros(2, dtype=torch.int64))
    assert std[0].item() == pytest.approx(0.01, rel=0.01)


def test_batch_advantages_have_mean_zero_and_std_one() -> None:
    adv = F.batch_advantages(torch.tensor([1.0, 2.0, 6.0]), eps=0.0)
    assert adv.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert (adv**2).mean().item() == pytest.approx(1.0)


def test_prompt_statistics_use_the_batch_until_a_prompt_has_enough_scores() -> None:
    values = torch.tensor([1.0, 3.0, 8.0])
    mean, std, history = F.prompt_statistics(values, ["a", "a", "b"], {"a": [5.0]}, capacity=2, min_count=2)
    # The batch enters first and the capacity then forgets the oldest: a's history is 1, 3 and not 5.
    assert history == {"a": [1.0, 3.0], "b": [8.0]}
    assert mean.tolist() == [2.0, 2.0, 4.0]
    assert std[:2].tolist() == [1.0, 1.0]
    assert std[2].item() == pytest.approx(math.sqrt(26 / 3))


def test_prompt_statistics_leave_the_given_history_alone() -> None:
    history = {"a": [1.0]}
    F.prompt_statistics(torch.tensor([2.0]), ["a"], history)
    assert history == {"a": [1.0]}


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "loss"),
    [
        (math.log(1.5), 1.0, -1.2),  # too far up with a positive advantage: clipped
        (math.log(1.5), -1.0, 1.5),  # the pessimistic side stays
        (math.log(0.5), 1.0, -0.5),
        (math.log(0.5), -1.0, 0.8),
        (math.log(1.1), 2.0, -2.2),
    ],
)
def test_clipped_surrogate_takes_the_pessimistic_side(log_ratio: float, advantage: float, loss: float) -> None:
    got = F.clipped_surrogate(torch.tensor([log_ratio]), torch.zeros(1), torch.tensor([advantage]), clip=0.2)
    assert got.item() == pytest.approx(loss)


def test_clipped_surrogate_has_the_policy_gradient_at_ratio_one_and_none_when_clipped() -> None:
    logp = torch.tensor([0.0, math.log(1.5)], requires_grad=True)
    F.clipped_surrogate(logp, torch.zeros(2), torch.tensor([3.0, 3.0]), clip=0.2).sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [-3.0, 0.0]


def test_summed_log_probabilities_clip_exactly_where_averaged_ones_do() -> None:
    elements, clip = torch.tensor([50.0, 200.0]), 0.01
    for mean_log_ratio in (0.0099, 0.00999, -0.0099, -0.0102):
        mean = torch.full((2,), mean_log_ratio)
        by_mean, by_sum = F.RatioMeter(clip), F.RatioMeter(clip)
        by_mean.add(mean, torch.zeros(2))
        by_sum.add(mean * elements, torch.zeros(2), elements)
        assert by_mean.metrics()["policy/clip_fraction"] == by_sum.metrics()["policy/clip_fraction"]
        low, high = F.ratio_bounds(clip, elements)
        assert bool(((mean * elements).exp() < high).all()) == (mean_log_ratio < math.log1p(clip))
        assert bool(((mean * elements).exp() > low).all()) == (mean_log_ratio > math.log1p(-clip))


def test_clip_elements_only_for_sums() -> None:
    assert F.clip_elements("mean", torch.zeros(2, 5), None) is None
    elements = F.clip_elements("sum", torch.zeros(2, 5), None)
    assert elements is not None
    assert elements.tolist() == [5.0, 5.0]


def test_kl_estimators_agree_with_the_closed_form() -> None:
    # P = N(0, 1), Q = N(0.5, 1): KL = 0.125. k1 and k3 are unbiased, k2's own mean is (0.25 + 0.125^2 ...) / 2.
    p = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    q = torch.distributions.Normal(torch.tensor(0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for estimator, expected in (("k1", 0.125), ("k3", 0.125), ("k2", 0.5 * (0.25 + 0.125**2))):
        values = F.kl_estimate(p.log_prob(x), q.log_prob(x), estimator)  # type: ignore[arg-type]
        assert values.mean().item() == pytest.approx(expected, abs=4 * values.std().item() / math.sqrt(len(x)))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimates_of_averages_are_those_of_the_whole_per_element(estimator) -> None:
    """A state of 10,400 elements, as the voice that ships has: averages hide how far apart two densities are."""
    elements = torch.full((3,), 10_400.0, dtype=torch.float64)
    logp, other = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3
    of_whole = F.kl_estimate(logp * elements, other * elements, estimator)
    torch.testing.assert_close(F.kl_estimate(logp, other, estimator, elements), of_whole / elements)


def test_a_ratio_that_is_not_a_number_is_seen() -> None:
    ratios = F.RatioMeter(clip=0.2)
    ratios.add(torch.tensor([0.0, math.nan]), torch.zeros(2))
    ratios.add(torch.tensor([5.0]), torch.zeros(1))
    assert math.isnan(ratios.metrics()["policy/ratio_max"])


def test_an_asymmetric_clip_bounds_each_side_by_its_own_width() -> None:
    advantages, logp = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([0.25, 0.15, -0.15, -0.05]).exp().log()
    ratio = logp.exp()
    got = F.clipped_surrogate(logp, torch.zeros(4), advantages, (0.1, 0.2))
    bounded = ratio.clamp(0.9, 1.2)
    torch.testing.assert_close(got, torch.maximum(-advantages * ratio, -advantages * bounded))
    assert (got[0], got[2]) == (pytest.approx(-1.2), pytest.approx(0.9))
    assert (got[1], got[3]) == (pytest.approx(-float(ratio[1])), pytest.approx(float(ratio[3])))


def test_kl_estimators_are_zero_between_equal_densities() -> None:
    logp = torch.tensor([-1.0, 2.0])
    for estimator in ("k1", "k2", "k3"):
        assert F.kl_estimate(logp, logp, estimator).tolist() == [0.0, 0.0]  # type: ignore[arg-type]


def test_softmax_weights_are_n_times_the_softmax_also_when_split_over_ranks() -> None:
    everyone = torch.tensor([900.0, 901.0, 903.0, 900.5])
    expected = 4 * torch.softmax(0.7 * everyone.double(), 0).float()
    split = torch.cat([F.softmax_weights(part, everyone, 0.7) for part in (everyone[:1], everyone[1:])])
    torch.testing.assert_close(split, expected)


def test_effective_fraction() -> None:
    assert F.effective_fraction(torch.ones(10)) == pytest.approx(0.9)
    assert F.effective_fraction(torch.tensor([0.0, 95.0, 5.0, 0.0])) == 0.25
    assert F.effective_fraction(torch.zeros(4)) == 0.0


def test_frozen_copy_is_independent_and_takes_no_gradient() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    twin = F.frozen_copy(net)
    assert not twin.training
    assert net.training
    assert not any(p.requires_grad for p in twin.parameters())
    with torch.no_grad():
        net[0].weight.add_(1.0)
    assert not torch.equal(net[0].weight, twin[0].weight)


def test_ema_update_moves_parameters_and_copies_buffers() -> None:
    old, new = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        old.weight.fill_(1.0)
        new.weight.fill_(3.0)
        new.running_mean.fill_(9.0)  # type: ignore[union-attr]
    F.ema_update(old, new, decay=0.75)
    assert old.weight.item() == pytest.approx(1.5)
    assert old.running_mean.item() == 9.0  # type: ignore[union-attr]
    F.ema_update(old, new, decay=0.0)
    assert old.weight.item() == 3.0


def test_row_noise_depends_on_the_rows_seed_and_purpose_only() -> None:
    both = F.row_noise([3, 4], "a", (5,))
    assert torch.equal(F.row_noise([4], "a", (5,))[0], both[1])
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(F.row_noise([3], "b", (5,))[0], both[0])
    # And on no padding, if its length is given.
    padded = F.row_noise([3], "a", (2, 9), [5])
    assert torch.equal(padded[..., :5], F.row_noise([3], "a", (2, 5)))
    assert not padded[..., 5:].any()
    many = F.row_noise(list(range(200)), "a", (100,))
    assert many.mean().item() == pytest.approx(0.0, abs=0.03)
    assert many.std().item() == pytest.approx(1.0, abs=0.03)


def test_meters_have_the_same_names_whatever_was_added() -> None:
    empty, used = F.RatioMeter(clip=0.2), F.RatioMeter(clip=0.2)
    used.add(torch.tensor([math.log(1.5), math.log(0.5), 0.0, 0.1]), torch.zeros(4))
    assert used.metrics() == {"policy/ratio_max": pytest.approx(1.5), "policy/clip_fraction": 0.5}
    assert empty.metrics() == {"policy/ratio_max": 1.0, "policy/clip_fraction": 0.0}
    mean = F.MeanMeter()
    assert mean.mean == 0.0
    mean.add(torch.tensor([1.0, 2.0]))
    mean.add(torch.tensor([6.0]))
    assert mean.mean == 3.0


def test_implied_noise_undoes_the_forward_process() -> None:
    for policy in (GaussianToy(ToyPolicyOptions(pretrain_steps=0)), FlowToy(ToyPolicyOptions(pretrain_steps=0))):
        clean, noise, t = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5) * 0.8 + 0.1
        found = F.implied_noise(policy, policy.noisy(clean, noise, t), clean, t)
        torch.testing.assert_close(found, noise, atol=1e-4, rtol=1e-4)


def test_checkpointed_gives_the_same_gradient_and_leaves_the_module_as_it_was() -> None:
    net, x = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), torch.randn(4, 3)
    plain = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    with F.checkpointed(net):
        again = torch.autograd.grad(net(x).square().sum(), list(net.parameters()))
    for a, b in zip(plain, again, strict=True):
        assert torch.equal(a, b)
    assert "forward" not in vars(net)


def test_the_deviation_of_a_step_is_one_number_a_row_and_the_elements_keep_theirs() -> None:
    """A row's is the root of the mean variance where the mask is true; one number for a row stays as it is."""
    mean = torch.zeros(2, 2, 3)
    std = torch.tensor([[[3.0, 1.0, 9.0], [5.0, 1.0, 9.0]], [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]])
    mask = torch.tensor([True, True, False]).expand(2, 2, 3)
    step = Gaussian(mean, std, mask)
    assert torch.allclose(F.step_std(step), torch.tensor([3.0, 2.0]))  # ((9 + 1 + 25 + 1) / 4) ** 0.5
    assert torch.equal(F.element_std(step), std)
    plain = Gaussian(mean, torch.tensor([0.5, 0.25]))
    assert torch.equal(F.step_std(plain), torch.tensor([0.5, 0.25]))
    assert torch.equal(F.element_std(plain), torch.tensor([0.5, 0.25]).view(2, 1, 1))
    for function in (F.step_std, F.element_std):
        with pytest.raises(ConfigError, match="needs Gaussian steps"):
            function(object())
