"""Statistics of evaluations and benchmarks: few seeds, no normality, intervals always.

Aggregates over runs follow Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice"
(arXiv:2108.13264): interquartile mean, stratified bootstrap, probability of improvement, performance profiles. A *task*
is one thing that is measured in several runs (a reward, say); `tasks` is a sequence of tasks, each the scores of its
runs, which may differ in number. Comparisons on the same prompts and the same noise are paired. Everything random
follows from `seed`, so that the same input gives the same figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Alternative = Literal["two-sided", "greater", "less"]

RESAMPLES = 2000
PERMUTATIONS = 9999


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval; `low` and `high` are None if one run leaves nothing to resample."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Comparison of two systems on the same N units (prompts); differences are first minus second."""

    count: int
    first: float
    """Mean of the first system."""
    second: float
    """Mean of the second."""
    gain: Estimate
    """Mean difference."""
    p: float
    """Sign-flip permutation test of the mean difference; 1 if there is only one unit."""
    wins: int
    ties: int
    losses: int
    win_rate: Estimate
    """(wins + ties / 2) / N, with the bootstrap interval over units."""


def iqm(scores: ArrayLike, axis: int | None = None) -> Any:
    """Interquartile mean: the mean of what remains without the lowest and the highest quarter, each rounded down."""
    return stats.trim_mean(np.asarray(scores, dtype=np.float64), 0.25, axis=axis)


def mean(scores: ArrayLike, axis: int | None = None) -> Any:
    """Mean, in the shape of `iqm`."""
    return np.asarray(scores, dtype=np.float64).mean(axis=axis)


def aggregate(
    tasks: Sequence[ArrayLike],
    statistic: Callable[..., Any] = iqm,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """`statistic` of all runs of all tasks, with the percentile interval of the stratified bootstrap.

    Each bootstrap sample draws runs with replacement within every task. ValueError for a task without runs.
    """
    arrays = _tasks(tasks)
    value = float(statistic(np.concatenate(arrays), axis=-1))

    def pooled(*samples: Floats, axis: int = -1) -> Any:
        return statistic(np.concatenate(samples, axis=axis), axis=axis)

    return _bootstrap(arrays, pooled, value, level, resamples, seed)


def probability_of_improvement(
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """P(a run of `first` scores above a run of `second`), ties counted half, mean over tasks (Mann-Whitney U / nm)."""
    a, b = _tasks(first), _tasks(second)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} tasks of the first system, {len(b)} of the second")

    def statistic(*samples: Floats, axis: int = -1) -> Any:
        half = len(a)
        return np.mean([_wins(x, y) for x, y in zip(samples[:half], samples[half:], strict=True)], axis=0)

    return _bootstrap([*a, *b], statistic, float(statistic(*a, *b)), level, resamples, seed)


def probability_of_gain(
    gains: ArrayLike, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """P(a run ends above its own start), no change counted half, of (N,) gains: a run and its start share a seed."""
    d = np.asarray(gains, dtype=np.float64)
    return aggregate([(d > 0) + 0.5 * (d == 0)], mean, level=level, resamples=resamples, seed=seed)


def performance_profile(
    tasks: Sequence[ArrayLike],
    thresholds: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Floats, Floats, Floats]:
    """Share of runs that score above each of T thresholds, mean over tasks: (T,) share, (T,) low, (T,) high.

    Every task counts alike, however many runs it has.
    """
    arrays, taus = _tasks(tasks), np.asarray(thresholds, dtype=np.float64)
    share = np.mean([(array[:, None] > taus).mean(0) for array in arrays], axis=0)
    generator = np.random.default_rng(seed)
    drawn = [array[generator.integers(len(array), size=(resamples, len(array)))] for array in arrays]
    shares = np.stack([np.mean([(runs > tau).mean(1) for runs in drawn], axis=0) for tau in taus], 1)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return share, low, high


def paired(
    first: ArrayLike,
    second: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Compare N units that both systems were measured on. ValueError for no units, or two different numbers of them.

    The test flips signs of differences: exact for up to 13 units, 9999 random flips beyond.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"paired units have shapes {a.shape} and {b.shape}; one number of units >= 1 is needed")
    d = a - b
    outcome = np.where(d > 0, 1.0, np.where(d < 0, 0.0, 0.5))
    return Paired(
        count=len(d),
        first=float(a.mean()),
        second=float(b.mean()),
        gain=aggregate([d], mean, level=level, resamples=resamples, seed=seed),
        p=sign_flip(d, alternative=alternative, seed=seed),
        wins=int((d > 0).sum()),
        ties=int((d == 0).sum()),
        losses=int((d < 0).sum()),
        win_rate=aggregate([outcome], mean, level=level, resamples=resamples, seed=seed),
    )


def sign_flip(differences: ArrayLike, *, alternative: Alternative = "two-sided", seed: int = 0) -> float:
    """p of the mean of (N,) differences when their signs are flipped at random; 1 for one difference or none but 0."""
    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2 or not d.any():
        return 1.0
    found = stats.permutation_test(
        (d,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=1000,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return min(1.0, float(found.pvalue))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjustment of several p values: bounds the chance of any false alarm among them."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, value) in enumerate(sorted(p.items(), key=lambda item: (item[1], item[0]))):
        largest = max(largest, min(1.0, (len(p) - rank) * value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p}


def prediction_band(scores: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Interval for one more run of the same kind with probability `level`: mean +- t s sqrt(1 + 1/n), n runs.

    Student's t interval for a new observation; assumes roughly normal runs. None bounds for one run.
    """
    x = np.asarray(scores, dtype=np.float64)
    middle = float(x.mean())
    if len(x) < 2:
        return Estimate(middle, None, None)
    width = float(stats.t.ppf((1 + level) / 2, len(x) - 1) * x.std(ddof=1) * np.sqrt(1 + 1 / len(x)))
    return Estimate(middle, middle - width, middle + width)


def _wins(x: Floats, y: Floats) -> Any:
    """(..., n), (..., m) -> (...): share of pairs in which x is larger, ties half."""
    left, right = x[..., :, None], y[..., None, :]
    return ((left > right) + 0.5 * (left == right)).mean((-2, -1))


def _tasks(tasks: Sequence[ArrayLike]) -> list[Floats]:
    arrays = [np.asarray(task, dtype=np.float64) for task in tasks]
    if not arrays or any(array.ndim != 1 or not len(array) for array in arrays):
        raise ValueError("every task needs the scores of at least one run")
    return arrays


def _bootstrap(
    samples: Sequence[Floats], statistic: Callable[..., Any], value: float, level: float, resamples: int, seed: int
) -> Estimate:
    if any(len(sample) < 2 for sample in samples):
        return Estimate(value, None, None)
    found = stats.bootstrap(
        tuple(samples),
        statistic,
        vectorized=True,
        paired=False,
        method="percentile",
        confidence_level=level,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return Estimate(value, float(found.confidence_interval.low), float(found.confidence_interval.high))
