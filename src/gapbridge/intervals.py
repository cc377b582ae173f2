"""95 % intervals: the bootstrap over examples, and score intervals for shares where it has nothing to resample.

Where fewer than 5 examples differ from the others (0 of 20 right), resampling gives an interval of hardly any width:
shares get Wilson's interval there, paired differences that of Bonett and Price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


LEVEL = 0.95
NORMAL = 1.959964  # 95 % of a normal distribution lie within so many deviations
MIN_VALUES_FOR_INTERVAL = 5
_CELLS = 2**22  # of the index matrix that is held at once


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def mean_interval(values: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """The mean of one value an example, with the percentile bootstrap interval (Efron 1979).

    Values that are all 0 or 1, fewer than 5 of one of them, get `fraction_interval`.

    Args:
        values: [examples], numbers or booleans.

    Raises:
        ValueError: there is no value.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"an interval needs one value an example, got an array of shape {array.shape}")
    if _is_binary(array) and are_few(array):
        return fraction_interval(int(array.sum()), len(array))
    return column_intervals(array[:, None], resamples=resamples, seed=seed)[0]


def paired_difference(first: ArrayLike, second: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """mean(second - first) over the same examples, with the interval of the paired difference.

    Pairing takes out how hard an example is, which both share: two overlapping intervals can still differ. Where fewer
    than 5 examples differ from the commonest outcome, it is `few_changes_interval`.

    Raises:
        ValueError: the lengths differ, or there is no value.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"a paired difference needs the same examples, got shapes {a.shape} and {b.shape}")
    difference = b - a
    if not are_few(difference):
        return column_intervals(difference[:, None], resamples=resamples, seed=seed)[0]
    return few_changes_interval(difference, largest_change(a, b))


def few_changes_interval(differences: NDArray[np.float64], largest: float) -> Interval:
    """The mean of differences of which hardly any differ, with the adjusted Wald interval of Bonett and Price (2012,
    J. Educ. Behav. Stat. 37): a change of `largest` is counted once more in each direction.

    Args:
        differences: [examples]; of values that are all 0 or 1 theirs are -1, 0 and 1.
        largest: from `largest_change`; of values that are all 0 or 1 the ends stay between -1 and 1.
    """
    count = len(differences) + 2
    centre = differences.sum() / count
    half = NORMAL * np.sqrt(max(0.0, ((differences**2).sum() + 2 * largest**2) / count - centre**2) / count)
    low, high = max(centre - half, -largest), min(centre + half, largest)
    return Interval(float(differences.mean()), float(low), float(high))


def largest_change(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The largest change of an example there could be: 1 where all values are 0 or 1, else the largest there is."""
    if _is_binary(first) and _is_binary(second):
        return 1.0
    return float(np.abs(second - first).max())


def fraction_interval(successes: int, count: int) -> Interval:
    """The share of successes with Wilson's score interval (1927)."""
    share, weight = successes / count, NORMAL**2 / count
    centre = (share + weight / 2) / (1 + weight)
    half = (weight * (share * (1 - share) + weight / 4)) ** 0.5 / (1 + weight)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def _is_binary(values: NDArray[np.float64]) -> bool:
    return bool(np.isin(values, (0, 1)).all())


def are_few(values: NDArray[np.float64]) -> bool:
    """Whether fewer than 5 values differ from the commonest one."""
    return bool(len(values) - np.unique(values.round(9), return_counts=True)[1].max() < MIN_VALUES_FOR_INTERVAL)


def resampled_means(
    values: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Column means of `values` [examples, columns] over resampled examples → [resamples, columns].

    `weights` of the same shape make each a weighted mean; a column whose resampled weights are all 0 gives NaN.
    """
    rng = np.random.default_rng(seed)
    count = len(values)
    means = np.empty((resamples, values.shape[1]))
    batch = max(1, _CELLS // count)
    weighted = values if weights is None else np.where(weights > 0, values, 0.0) * weights
    for start in range(0, resamples, batch):
        size = min(batch, resamples - start)
        # How often each example is sampled: a multinomial count, so that the mean is one matrix product.
        sampled = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(float)
        if weights is None:
            means[start : start + size] = sampled @ weighted / count
        else:
            with np.errstate(invalid="ignore", divide="ignore"):
                means[start : start + size] = (sampled @ weighted) / (sampled @ weights)
    return means


def column_intervals(
    values: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> list[Interval]:
    """An interval for each column of `values` [examples, columns], the examples resampled together."""
    weights_or_ones = np.ones_like(values) if weights is None else weights
    total = weights_or_ones.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (np.where(weights_or_ones > 0, values, 0.0) * weights_or_ones).sum(0) / total
    samples = resampled_means(values, weights, resamples=resamples, seed=seed)
    return [
        Interval(float(mean), *_quantiles(column[~np.isnan(column)]))
        for mean, column in zip(means, samples.T, strict=True)
    ]


def _quantiles(samples: NDArray[np.float64] | Sequence[float]) -> tuple[float, float]:
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
