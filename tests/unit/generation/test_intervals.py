"""Intervals: they cover the truth, tell pairs apart, and have a width where the bootstrap has none."""

from __future__ import annotations

import numpy as np
import pytest

from gapbridge.intervals import Interval, column_intervals, fraction_interval, mean_interval, paired_difference


def test_intervals_cover_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = {"share": 0, "skewed": 0, "difference": 0, "weighted": 0}
    trials = 400
    for trial in range(trials):
        share = mean_interval(rng.random(200) < 0.6, resamples=500, seed=trial)
        covered["share"] += share.low <= 0.6 <= share.high
        skewed = mean_interval(rng.exponential(size=200), resamples=500, seed=trial)
        covered["skewed"] += skewed.low <= 1 <= skewed.high
        easy = rng.random(200)
        first, second = easy < 0.4, easy + rng.normal(0, 0.1, 200) < 0.5
        difference = paired_difference(first, second, resamples=500, seed=trial)
        covered["difference"] += difference.low <= 0.1 + 0.0015 <= difference.high  # the truth, by a long simulation
        weights = rng.integers(1, 20, (200, 1)).astype(float)
        weighted = column_intervals(rng.normal(2, 1, (200, 1)), weights, resamples=500, seed=trial)[0]
        covered["weighted"] += weighted.low <= 2 <= weighted.high
    assert all(0.915 < count / trials < 0.98 for count in covered.values()), covered


def test_pairing_tells_apart_what_two_intervals_cannot() -> None:
    easy = np.random.default_rng(0).random(400)
    first, second = easy < 0.5, easy < 0.53
    assert mean_interval(first).high > mean_interval(second).low
    assert paired_difference(first, second).low > 0
    with pytest.raises(ValueError, match="same examples"):
        paired_difference([1, 0], [1])
    with pytest.raises(ValueError, match="one value an example"):
        mean_interval([])


def test_wilson_by_hand() -> None:
    """Wilson's published example of 81 right among 263, and the ends, which are z² / (n + z²)."""
    known = fraction_interval(81, 263)
    assert (round(known.low, 4), round(known.high, 4)) == (0.2553, 0.3662)  # Newcombe 1998, method 3
    none, all_of_them = fraction_interval(0, 20), fraction_interval(20, 20)
    assert (none.mean, none.low) == (0, 0) and none.high == pytest.approx(1.96**2 / (20 + 1.96**2), abs=1e-4)
    assert (all_of_them.mean, all_of_them.high) == (1, 1) and all_of_them.low == pytest.approx(1 - none.high)


@pytest.mark.parametrize("right", [0, 4, 16, 20])
def test_few_successes_or_failures_get_the_score_interval(right: int) -> None:
    assert mean_interval([True] * right + [False] * (20 - right)) == fraction_interval(right, 20)
    assert mean_interval([1] * 10 + [0] * 10) != fraction_interval(10, 20), "the bootstrap serves where it can"


def test_equal_marks_do_not_prove_an_equal_rate() -> None:
    same = paired_difference([1, 0] * 10, [1, 0] * 10)
    # Bonett and Price with no change either way: (1 - 1) / 22 ± 1.96 · √((1 + 1) / 22 / 22).
    assert same.mean == 0 and same.high == pytest.approx(1.96 * 2**0.5 / 22, abs=1e-4) and same.low == -same.high
    one = paired_difference([0] * 20, [1] + [0] * 19)
    centre, spread = 1 / 22, 1.96 * ((3 / 22 - (1 / 22) ** 2) / 22) ** 0.5
    assert (one.mean, one.low, one.high) == pytest.approx((0.05, centre - spread, centre + spread), abs=1e-4)
    every = paired_difference([0] * 20, [1] * 20)
    assert every.mean == every.high == 1 and every.low < 0.9


def test_equal_losses_are_equal() -> None:
    assert paired_difference([0.5, 2.0], [0.5, 2.0]) == Interval(0.0, 0.0, 0.0)


def test_small_differences_are_covered() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(500):
        sampled = rng.random(30)
        covered += (
            (found := paired_difference(sampled < 0.03, (sampled > 0.9) & (sampled < 0.97))).low <= 0.04 <= found.high
        )
    assert covered / 500 > 0.93
