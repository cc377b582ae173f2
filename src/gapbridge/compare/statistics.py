"""What the figures of variants say, paired by example and by seed. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from ..intervals import (
    LEVEL,
    Interval,
    are_few,
    column_intervals,
    few_changes_interval,
    largest_change,
    paired_difference,
)


ByExample = Mapping[str, float]
BySeed = Mapping[int, ByExample]


@dataclass(frozen=True)
class Difference:
    """A variant less the control: mean over seeds, the seeds' own, and two 95 % intervals of the mean.

    over_examples: had other examples been asked, with these very models; None where there is no figure an example.
    over_seeds: had other seeds been trained; None with one seed.
    """

    mean: float
    by_seed: dict[int, float]
    over_examples: Interval | None
    over_seeds: Interval | None

    @property
    def verdict(self) -> str:
        """`higher` or `lower` where 0 lies outside all intervals there are, `null`, or `one seed`."""
        if self.over_seeds is None:
            return "one seed"
        found = [interval for interval in (self.over_examples, self.over_seeds) if interval is not None]
        if not all(map(leaves_out_zero, found)):
            return "null"
        signs = {interval.low > 0 for interval in found}
        return "null" if len(signs) > 1 else "higher" if signs == {True} else "lower"

    def is_expected(self, expected: str, margin: float) -> bool:
        """Whether it is `higher` or `lower`, as expected, or `equal`: both intervals lie within ±`margin`."""
        if expected != "equal":
            return self.verdict == expected
        intervals = [self.over_examples, self.over_seeds]
        return all(i is not None and -margin < i.low and i.high < margin for i in intervals)


def leaves_out_zero(interval: Interval) -> bool:
    """Whether 0 lies outside. An interval without width shows nothing: two seeds with equal differences by chance."""
    has_width = not math.isclose(interval.low, interval.high, rel_tol=1e-9)
    return has_width and (interval.low > 0 or interval.high < 0)


def t_interval(values: Sequence[float]) -> Interval | None:
    """The mean of one value a seed, with Student's 95 % interval; None for fewer than two."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def pooled_mean(by_seed: BySeed) -> float:
    """Mean over the seeds of the mean over their examples."""
    return float(np.mean([np.mean([*values.values()]) for values in by_seed.values()]))


def difference(first: BySeed, second: BySeed) -> Difference | None:
    """second less first over the seeds, and in each the examples, that both have; None where there are none."""
    pairs = {
        seed: [(first[seed][key], value, key) for key, value in second[seed].items() if key in first[seed]]
        for seed in second
        if seed in first
    }
    pairs = {seed: found for seed, found in pairs.items() if found}
    if not pairs:
        return None
    by_seed = {seed: float(np.mean([b - a for a, b, _ in found])) for seed, found in pairs.items()}
    values = [*by_seed.values()]
    return Difference(float(np.mean(values)), by_seed, _over_examples([*pairs.values()]), t_interval(values))


def difference_of_means(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """As `difference`, of figures that are known a seed and not an example."""
    by_seed = {seed: second[seed] - first[seed] for seed in second if seed in first}
    if not by_seed:
        return None
    return Difference(float(np.mean([*by_seed.values()])), by_seed, None, t_interval([*by_seed.values()]))


def _over_examples(seeds: Sequence[Sequence[tuple[float, float, str]]]) -> Interval:
    """The paired bootstrap over examples. An example is sampled with all the seeds that asked it, because its models
    find it equally hard; a seed whose held-out part is its own has examples of its own.

    Where fewer than 5 examples differ there is hardly anything to resample, however many seeds say the same of them.
    """
    if len(seeds) == 1:
        return paired_difference(*zip(*((a, b) for a, b, _ in seeds[0]), strict=True))
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for found in seeds:
        for a, b, key in found:  # a seed counts as much as another, whatever the number of its examples
            sums[key] = sums.get(key, 0.0) + (b - a) / len(found)
            weights[key] = weights.get(key, 0.0) + 1 / len(found)
    weight = np.array([[weights[key]] for key in sums])
    values = np.array([[sums[key]] for key in sums]) / weight
    if are_few(values[:, 0]):
        first, second = (np.array([pair[side] for found in seeds for pair in found]) for side in (0, 1))
        return few_changes_interval((values * weight / weight.mean())[:, 0], largest_change(first, second))
    return column_intervals(values, weight)[0]
