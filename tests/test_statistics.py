"""Statistics against cases worked out by hand, and the hacking flag on rewards with and without a hole."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rlzoo.bench.summary import COVERAGE
from rlzoo.stats.hacking import hacking_flag
from rlzoo.stats.statistics import (
    aggregate,
    holm,
    iqm,
    mean,
    paired,
    performance_profile,
    prediction_band,
    probability_of_gain,
    probability_of_improvement,
    sign_flip,
)


def test_the_interquartile_mean_drops_a_quarter_on_each_side():
    assert iqm([100, 1, 2, 3, 4, 5, 6, -50]) == 3.5  # -50, 1 and 6, 100 go
    assert iqm([0.0, 1.0, 2.0, 3.0, 100.0]) == 2.0  # a quarter of five, rounded down, is one
    assert iqm([1.0, 5.0, 9.0]) == 5.0  # nothing goes
    assert iqm([0.0, 1.0, 2.0, 100.0]) == 1.5  # exactly a quarter of four is one


def test_the_bootstrap_of_two_runs_is_the_interval_between_them():
    # Resamples of {0, 1} are (0,0), (0,1), (1,0), (1,1): each mean of 0 and of 1 has probability 1/4.
    found = aggregate([[0.0, 1.0]], mean)
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_the_bootstrap_is_stratified_by_task():
    # Within a task nothing varies, so nothing varies at all; pooling the tasks would give a wide interval.
    found = aggregate([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]], mean)
    assert (found.value, found.low, found.high) == (3.0, 3.0, 3.0)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
    generator, hits = np.random.default_rng(0), 0
    for trial in range(200):
        found = aggregate([generator.normal(size=30)], mean, resamples=500, seed=trial)
        hits += found.low <= 0.0 <= found.high
    assert 180 <= hits <= 198


def test_the_interval_is_the_percentiles_of_the_resampled_means():
    """Skewed: an interval turned round the value, as the basic bootstrap's, would lie elsewhere."""
    scores = np.array([0.0, 0.0, 0.0, 0.0, 10.0])
    found = aggregate([scores], mean, level=0.96, resamples=20_000)
    sums = stats.binom(5, 0.2)  # how often a resample has the 10, which adds 2 to its mean
    assert (found.low, found.high) == (2 * sums.ppf(0.02), 2 * sums.ppf(0.98)) == (0.0, 6.0)
    assert found.value - found.low != found.high - found.value


@pytest.mark.parametrize(("runs", "covered"), [(3, COVERAGE[3]), (5, COVERAGE[5])])
def test_intervals_of_few_runs_cover_as_rarely_as_is_said_where_they_are_printed(runs, covered):
    generator, hits = np.random.default_rng(7), 0
    for trial in range(400):
        found = aggregate([generator.normal(size=runs)], resamples=300, seed=trial)
        hits += found.low <= 0.0 <= found.high
    assert hits / 400 == pytest.approx(covered, abs=3 * (covered * (1 - covered) / 400) ** 0.5)


def test_one_run_has_no_interval_and_no_run_is_refused():
    found = aggregate([[2.0]])
    assert (found.value, found.low, found.high) == (2.0, None, None)
    with pytest.raises(ValueError, match="at least one run"):
        aggregate([[1.0], []])


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    # Pairs (2,1) (2,2) (3,1) (3,2): win, tie, win, win.
    assert probability_of_improvement([[2, 3]], [[1, 2]]).value == 3.5 / 4
    assert probability_of_improvement([[2, 3], [0, 0]], [[1, 2], [1, 1]]).value == (3.5 / 4 + 0) / 2


def test_probability_of_improvement_is_mann_whitneys_u():
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=7), generator.normal(size=5)
    u = stats.mannwhitneyu(x, y).statistic
    found = probability_of_improvement([x], [y])
    assert found.value == pytest.approx(u / 35)
    assert found.low <= found.value <= found.high


def test_profiles_are_shares_of_runs_above_a_threshold():
    share, low, high = performance_profile([[0.1, 0.5], [0.5, 0.9]], [0.0, 0.3, 0.5, 1.0])
    assert share.tolist() == [1.0, 0.75, 0.25, 0.0]
    assert low.tolist() == [1.0, 0.5, 0.0, 0.0]  # the second task stays above 0.3, the first may not
    assert high.tolist() == [1.0, 1.0, 0.5, 0.0]


def test_every_task_of_a_profile_counts_alike_however_many_runs_it_has():
    share, low, high = performance_profile([[1.0], [0.0, 0.0, 0.0]], [0.5])
    assert share.tolist() == low.tolist() == high.tolist() == [0.5]  # pooled runs would say a quarter


def test_runs_are_compared_with_the_start_of_their_own_seed():
    """Bases that differ more than runs gain: pairs show the gain, pooling hides it."""
    base = np.array([0.0, 10.0, 20.0])
    assert probability_of_gain(base + 1 - base).value == 1.0
    assert probability_of_improvement([base + 1], [base]).value == pytest.approx(6 / 9)
    assert probability_of_gain([0.0, 1.0, -1.0, 2.0]).value == 2.5 / 4


def test_runs_of_two_systems_are_resampled_apart():
    """Equal numbers of runs are no pairs: 0, 1 against 0, 1 may come out as 1 against 0."""
    found = probability_of_improvement([[0.0, 1.0]], [[0.0, 1.0]])
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_the_sign_flip_test_enumerates_all_signs(alternative):
    d = np.array([0.3, -0.1, 0.8, 0.5, 0.2])
    means = [float((d * signs).mean()) for signs in itertools.product((1, -1), repeat=5)]
    above = sum(m >= d.mean() - 1e-12 for m in means) / 32
    below = sum(m <= d.mean() + 1e-12 for m in means) / 32
    expected = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}
    assert sign_flip(d, alternative=alternative) == pytest.approx(expected[alternative])


def test_the_sign_flip_test_keeps_its_level():
    generator = np.random.default_rng(2)
    rejected = sum(sign_flip(generator.normal(size=8)) < 0.05 for _ in range(400))
    assert rejected <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_paired_counts_wins_and_keeps_units_together():
    found = paired([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 1.0, 5.0])
    assert (found.wins, found.ties, found.losses, found.win_rate.value) == (2, 1, 1, 0.625)
    assert (found.first, found.second, found.gain.value) == (2.5, 2.0, 0.5)
    with pytest.raises(ValueError, match="paired units"):
        paired([1.0], [1.0, 2.0])


def test_paired_asks_the_question_it_is_given():
    first, second = [2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 1.0, 1.0]  # all higher: 1 of 16 sign patterns is as high
    found = {side: paired(first, second, alternative=side).p for side in ("two-sided", "greater", "less")}
    assert found == pytest.approx({"two-sided": 2 / 16, "greater": 1 / 16, "less": 1.0})


def test_nothing_changed_is_no_evidence():
    found = paired([1.0, 2.0], [1.0, 2.0])
    assert (found.p, found.gain.low, found.gain.high, found.ties) == (1.0, 0.0, 0.0, 2)
    assert paired([1.0], [0.0]).p == 1.0


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a": 0.03, "b": 0.06, "c": 0.06}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_the_prediction_band_of_three_runs_by_hand():
    found = prediction_band([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 * 1.0 * math.sqrt(4 / 3), rel=1e-6)  # t(0.975, 2 d.o.f.)
    assert prediction_band([1.0]).low is None


def test_the_prediction_band_catches_the_next_run():
    generator = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        band = prediction_band(generator.normal(size=5))
        inside += band.low <= generator.normal() <= band.high
    assert 365 <= inside <= 393


# --- hacking ---------------------------------------------------------------------------------------------------------


def speech(generator, prompts):
    """Speech-like clips of about -20 dB: noise with a slow envelope."""
    t = np.arange(8000) / 16000
    envelopes = 1 + 0.8 * np.sin(2 * np.pi * generator.uniform(2, 5, size=(prompts, 1)) * t)
    return 0.1 * envelopes * generator.normal(size=(prompts, 8000))


def loudness(clips):
    return 20 * np.log10(np.sqrt((clips**2).mean(1)))


def clipping_guard(clips):
    return -(np.abs(clips) >= 0.99).mean(1)


def quietness(clips):
    """An honest stand-in for quality: less noise between the syllables."""
    return -np.median(np.abs(clips), axis=1)


def test_a_reward_that_pays_for_loudness_trips_the_flag():
    clips = speech(np.random.default_rng(4), 12)
    tuned = np.clip(12 * clips, -1, 1)  # what a policy does that is paid for loudness
    found = hacking_flag((loudness(tuned), loudness(clips)), {"guard": (clipping_guard(tuned), clipping_guard(clips))})
    assert found.hacked
    assert found.worse == ("guard",)
    assert "guard" in str(found)


def test_an_honest_gain_does_not_trip_the_flag():
    generator = np.random.default_rng(5)
    clips = speech(generator, 12)
    tuned = 0.8 * clips
    found = hacking_flag(
        (quietness(tuned), quietness(clips)), {"guard": (clipping_guard(tuned), clipping_guard(clips))}
    )
    assert found.reward.gain.value > 0
    assert found.reward.p < 0.05
    assert not found.hacked


def test_a_judge_that_only_wobbles_does_not_trip_the_flag():
    generator, false_alarms = np.random.default_rng(6), 0
    for _ in range(100):
        base = generator.normal(size=(3, 10))
        judges = {str(k): (base[k] + 0.3 * generator.normal(size=10), base[k]) for k in range(3)}
        rise = (np.arange(10.0) + 1, np.arange(10.0))
        false_alarms += hacking_flag(rise, judges).hacked
    assert false_alarms <= 12  # 5 % over all judges together


def test_a_fall_without_a_rise_is_no_hacking_and_a_margin_forgives():
    down, up = (np.arange(8.0) - 1, np.arange(8.0)), (np.arange(8.0) + 1, np.arange(8.0))
    assert not hacking_flag(down, {"judge": down}).hacked
    assert hacking_flag(up, {"judge": down}).hacked
    assert not hacking_flag(up, {"judge": down}, margins={"judge": 1.5}).hacked
    assert not hacking_flag(up, {}).hacked


def test_the_flag_needs_a_rise_that_is_no_chance():
    down = (np.arange(8.0) - 1, np.arange(8.0))
    wobble = (np.arange(8.0) + np.array([1, -1, 1, -1, 1, -1, 1, -0.5]), np.arange(8.0))
    found = hacking_flag(wobble, {"judge": down})
    assert found.reward.gain.value > 0
    assert found.worse == ("judge",)
    assert not found.hacked


def test_a_judge_is_tested_for_a_fall_and_for_its_share_of_false_alarms():
    """Five of six signs down: p = 7/64 one-sided, or 1/64 where all six fall; Holm multiplies by the judges left."""
    up = (np.arange(6.0) + 1, np.arange(6.0))
    falls = -np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found = hacking_flag(up, {"one": (falls, np.zeros(6))}, level=0.02)
    assert found.judges["one"].p == pytest.approx(1 / 64)  # two-sided it would be 2/64, and no flag
    assert found.hacked
    four = {str(number): (falls, np.zeros(6)) for number in range(4)}
    many = hacking_flag(up, four, level=0.02)
    assert many.adjusted == pytest.approx(dict.fromkeys(four, 4 / 64))
    assert not many.hacked
