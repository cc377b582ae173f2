"""What a comparison says of its figures: intervals paired by example and by seed, equal budgets, words; by hand."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from gapbridge.compare.budget import StepCost, budget_steps
from gapbridge.compare.conclusion_text import conclusion
from gapbridge.compare.difference_plot import draw_differences
from gapbridge.compare.markdown_report import comparison_page, differing, verdict
from gapbridge.compare.run_records import read_figures
from gapbridge.compare.statistics import Difference, difference, difference_of_means, t_interval
from gapbridge.compare.variant_results import summarize_variants
from gapbridge.errors import ConfigError
from gapbridge.intervals import Interval, paired_difference
from gapbridge.reporting.page import to_markdown


def test_interval_over_seeds() -> None:
    interval = t_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # deviation 1, 2 degrees of freedom
    assert interval is not None
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2, 2 - half, 2 + half))
    assert t_interval([1.0]) is None and t_interval([]) is None


def test_differences_are_paired_by_seed_and_example() -> None:
    control = {1: {"a": 0.0, "b": 1.0, "only here": 1.0}, 2: {"a": 0.0, "b": 0.0}, 3: {"a": 1.0}}
    variant = {1: {"b": 1.0, "a": 1.0}, 2: {"a": 1.0, "b": 1.0, "only there": 0.0}, 4: {"a": 1.0}}
    found = difference(control, variant)
    assert found is not None and found.by_seed == {1: 0.5, 2: 1.0} and found.mean == 0.75
    assert found.over_seeds == t_interval([0.5, 1.0])
    assert difference(control, {4: {"a": 1.0}}) is None and difference(control, {3: {"z": 1.0}}) is None


def test_an_example_is_drawn_with_all_its_seeds() -> None:
    """Asking the same examples of a second seed whose models answer alike tells nothing new of the examples."""
    rng = np.random.default_rng(0)
    values = {str(at): float(value) for at, value in enumerate(rng.normal(0.2, 1, 40))}
    nothing = dict.fromkeys(values, 0.0)
    alike = {key: value + 1e-9 for key, value in values.items()}
    one, two = difference({1: nothing}, {1: values}), difference({1: nothing, 2: nothing}, {1: values, 2: alike})
    assert one is not None and two is not None and one.over_examples is not None and two.over_examples is not None
    assert one.over_examples == paired_difference([*nothing.values()], [*values.values()])
    widths = [found.over_examples.high - found.over_examples.low for found in (one, two)]  # type: ignore[union-attr]
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)
    # Other examples in every seed: they are more examples, and the interval is narrower.
    other = {f"other {key}": value for key, value in values.items()}
    wide = difference({1: nothing, 2: dict.fromkeys(other, 0.0)}, {1: values, 2: other})
    assert wide is not None and wide.over_examples is not None
    assert wide.over_examples.high - wide.over_examples.low < 0.85 * widths[0]


def test_hardly_a_change_gives_no_interval_without_width() -> None:
    nothing = {str(at): 0.0 for at in range(20)}
    found = difference({1: nothing, 2: nothing}, {1: nothing, 2: nothing})
    assert found is not None and found.over_examples is not None
    assert found.over_examples.low < 0 < found.over_examples.high and found.over_seeds == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("size", [1.0, 0.3])  # of a change: right or wrong, or a score
@pytest.mark.parametrize("seeds", [1, 2, 8])
@pytest.mark.parametrize("changed", [1, 4])
def test_few_examples_are_few_in_however_many_seeds(changed: int, seeds: int, size: float) -> None:
    nothing = {str(at): 0.0 if size == 1 else at / 1000 for at in range(200)}
    variant = {key: value + size * (at < changed) for at, (key, value) in enumerate(nothing.items())}
    found = difference(dict.fromkeys(range(seeds), nothing), dict.fromkeys(range(seeds), variant))
    assert found is not None and found.over_examples is not None
    assert found.mean == pytest.approx(size * changed / 200) == found.over_examples.mean
    assert found.over_examples.low < 0 < found.over_examples.high
    assert found.verdict in ("null", "one seed")
    one = difference({0: nothing}, {0: variant})
    assert one is not None and one.over_examples is not None
    ends = (one.over_examples.low, one.over_examples.high)
    assert (found.over_examples.low, found.over_examples.high) == pytest.approx(ends), "seeds that agree add nothing"


def test_few_examples_of_seeds_that_differ() -> None:
    """Bonett and Price on the examples' means over seeds: 1, 1/2 and -1/2."""
    nothing = dict.fromkeys(map(str, range(50)), 0.0)
    binary = {key: float(key == "2") for key in nothing}
    variants = {1: {**binary, "0": 1.0, "1": 1.0}, 2: {**binary, "0": 1.0, "2": 0.0}}
    found = difference({1: binary, 2: binary}, variants)
    assert found is not None and found.over_examples is not None
    centre = (1 + 0.5 - 0.5) / 52
    half = 1.959964 * math.sqrt(((1 + 0.25 + 0.25 + 2) / 52 - centre**2) / 52)
    assert (found.over_examples.low, found.over_examples.high) == pytest.approx((centre - half, centre + half))


def test_few_examples_are_covered() -> None:
    """One in a hundred problems gains in every seed: its interval holds the truth as often as it says."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(120):
        control = {str(at): 0.0 for at in range(200)}
        variant = {key: float(rng.random() < 0.01) for key in control}
        found = difference(dict.fromkeys(range(8), control), dict.fromkeys(range(8), variant))
        assert found is not None and found.over_examples is not None
        covered += found.over_examples.low <= 0.01 <= found.over_examples.high
    assert covered / 120 > 0.93


def test_equal_differences_of_two_seeds_show_nothing() -> None:
    nothing = {str(at): 0.0 for at in range(100)}
    variant = {key: float(int(key) < 30) for key in nothing}
    found = difference({1: nothing, 2: nothing}, {1: variant, 2: variant})
    assert found is not None and found.over_examples is not None and found.over_examples.low > 0
    assert found.over_seeds == Interval(0.3, 0.3, 0.3) and found.verdict == "null"
    assert made(2, (1, 3), (2, 2 + 1e-15)).verdict == made(-2, (-3, -1), (-2, -2)).verdict == "null"


def test_figures_that_are_known_a_seed() -> None:
    found = difference_of_means({1: 2.0, 2: 4.0, 3: 0.0}, {1: 3.0, 2: 6.0, 9: 1.0})
    assert found is not None and found.by_seed == {1: 1.0, 2: 2.0} and found.over_examples is None
    assert difference_of_means({1: 2.0}, {2: 2.0}) is None


def made(mean: float, examples: tuple[float, float] | None, seeds: tuple[float, float] | None) -> Difference:
    intervals = [Interval(mean, *ends) if ends else None for ends in (examples, seeds)]
    return Difference(mean, {1: mean}, *intervals)


@pytest.mark.parametrize(
    ("examples", "seeds", "verdict"),
    [
        ((1, 3), (0.5, 3.5), "higher"),
        ((-3, -1), (-3.5, -0.5), "lower"),
        ((1, 3), (-0.5, 4.5), "null"),
        ((-1, 5), (0.5, 3.5), "null"),
        ((0, 3), (0.5, 3.5), "null"),
        (None, (0.5, 3.5), "higher"),
        ((1, 3), None, "one seed"),
    ],
)
def test_verdicts(examples: Any, seeds: Any, verdict: str) -> None:
    assert made(2, examples, seeds).verdict == verdict


def test_words() -> None:
    up, down, null = made(2, (1, 3), (1, 3)), made(-2, (-3, -1), (-3, -1)), made(2, (1, 3), (-1, 5))
    columns = {"accuracy, greedy": {"a": up, "b": down, "c": null, "d": made(2, (1, 3), None)}}
    assert conclusion(columns, "sft", 3) == (
        "accuracy, greedy: better than sft: a; worse than sft: b; no difference shown: c; no conclusion, one seed: d."
    )
    assert conclusion({"recovery": {"a": down}}, "sft", 3) == "recovery: better than sft: a."
    assert conclusion({"accuracy": {"a": made(2, (1, 3), None)}}, "sft", 1).startswith("No conclusion: one seed")
    assert "only variant" in conclusion({}, "sft", 3)
    assert conclusion({"x": {"a": null}, "z": {"a": up}}, "sft", 3) == "x: no difference shown: a."


CONTROL = StepCost(rows_per_step=10, row_tokens=100, passes=3, generated_tokens=0, rows=95)
LONG = StepCost(rows_per_step=10, row_tokens=250, passes=3, generated_tokens=30_000, rows=190)


def test_equal_budgets() -> None:
    assert (CONTROL.tokens(20), CONTROL.compute(20)) == (20_000, 60_000)
    assert (LONG.tokens(20), LONG.compute(20)) == (50_000, 180_000)
    assert budget_steps("steps", CONTROL, 20, LONG) == 20
    assert budget_steps("tokens", CONTROL, 20, LONG) == 8  # 20,000 / 2,500
    assert budget_steps("compute", CONTROL, 20, LONG) == 4  # (60,000 - 30,000) / (3 · 2,500)
    more_passes = replace(LONG, passes=4)
    assert more_passes.compute(20) == 230_000
    assert budget_steps("compute", CONTROL, 20, more_passes) == 3  # (60,000 - 30,000) / (4 · 2,500)
    assert budget_steps("tokens", CONTROL, 1, LONG) == 1
    rounds = StepCost(rows_per_step=10, row_tokens=100, passes=3, generated_tokens=0, rows=95, rounds=3)
    assert budget_steps("steps", CONTROL, 20, rounds) == 21
    with pytest.raises(ConfigError, match=r"budget: got compute, of which generation alone takes 30,000 tokens"):
        budget_steps("compute", CONTROL, 10, LONG)


def test_an_arms_own_steps() -> None:
    assert (
        CONTROL.configured_steps(2) == 20
        and CONTROL.configured_steps(0.5) == 5
        and CONTROL.configured_steps(2, max_steps=7) == 7
    )
    assert LONG.configured_steps(1) == 19


def test_figures_of_a_gap_are_found_wherever_they_are() -> None:
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    gap = {
        "model": "m",
        "examples": 3,
        "recovery": {"k": [0, 1], "delta": [interval, interval], "mean": interval, "by_example": {"a": 1, "b": 0}},
        "decisions": {"drop": interval, "start": [0]},
        "excess_error": None,
        "forced_errors": [{"place": 0.15, "as_reference": {**interval, "mean": float("nan")}},
                  {"place": 0.35, "as_reference": {"by_example": {"a": 0.25, "b": None}}}],
    }  # fmt: skip
    assert read_figures(gap) == {
        "recovery": {"mean": 0.5, "by_example": {"a": 1, "b": 0}},
        "decisions.drop": {"mean": 0.5},
        "forced_errors.1.as_reference": {"mean": 0.25, "by_example": {"a": 0.25}},
    }


_KEYS = "abcdefghijklmnopqrst"


def cell(
    variant: str, seed: int, direct: list[float], corrected: list[float] | None = None, **more: Any
) -> dict[str, Any]:
    scores = {"single_pass": {"accuracy, greedy": dict(zip(_KEYS, direct, strict=True))}}
    if corrected is not None:
        scores["self_correct"] = {"accuracy, greedy": dict(zip(_KEYS, corrected, strict=True))}
    cost = {"training time (s)": 2.0 * seed, "generation time (s)": None}
    record = {
        "variant": variant,
        "seed": seed,
        "order": 0 if variant == "sft" else 1,
        "scores": scores,
        "figures": {},
        "cost": cost,
    }
    return {**record, "plan": {"budget": "steps"}, "ignored_keys": ["x"], **more}


def test_a_page_from_cells() -> None:
    """A further mode is compared with the control's single-pass answers where the control has no other."""
    quarter, half = 5 * [0, 0, 0, 1], 5 * [0, 0, 1, 1]
    cells = [cell("sft", 1, quarter), cell("rac", 1, half, 20 * [1]), cell("sft", 2, 20 * [0])]
    cells += [cell("rac", 2, 20 * [0], 16 * [1] + 4 * [0])]
    rows = summarize_variants(cells, "sft")
    assert [row.name for row in rows] == ["sft", "rac", "rac (self_correct)"] and rows[0].seeds == [1, 2]
    entries = {row.name: row.scores["accuracy, greedy"] for row in rows}
    assert entries["sft"].mean == 0.125 and entries["sft"].delta_vs_control is None
    corrected = entries["rac (self_correct)"]
    assert corrected.mean == 0.9 and corrected.by_seed == {1: 1.0, 2: 0.8}
    assert corrected.delta_vs_control is not None and corrected.delta_vs_control.by_seed == {1: 0.75, 2: 0.8}
    assert corrected.delta_vs_single_pass is not None and corrected.delta_vs_single_pass.by_seed == {1: 0.5, 2: 0.8}
    assert rows[0].cost == {"training time (s)": 3.0, "generation time (s)": None} and rows[2].cost == {}
    variant = {"method": "m", "overrides": {"k": 1}, "init_from": "none"}
    settings = {
        "name": "n",
        "recipe": "r",
        "budget": "steps",
        "variants": {"sft": variant, "rac": variant, "later": variant},
    }
    words = verdict(rows, "sft")
    assert "better than sft: rac (self_correct)" in words and "no difference shown: rac" in words
    record = {"settings": settings, "task": "math", "conclusion": words, "cells": cells}
    record["rows"] = [asdict(row) for row in rows]
    page = comparison_page(record, rows, "sft")
    text = re.sub(" +", " ", to_markdown(page))
    assert re.search(r"\| rac \(self_correct\) \| 2 \| 90 \| \+77.5 \| \[\S+, \S+\] \| \[\+45.73, \+109.3\] \|", text)
    assert words in text and "![Forest plot: accuracy, greedy, difference from sft](plots/accuracy-greedy.png)" in text
    assert "| later | m | k: 1 | none | not run yet | – |" in text
    assert "| rac (self_correct) | accuracy, greedy | 100 | 80 |" in text
    heads = [axis.get_title() for axis in draw_differences(differing(rows), {}, "sft", "c").axes]
    assert heads == ["accuracy, greedy: right is better"]


def test_one_seed_is_said() -> None:
    rows = summarize_variants([cell("sft", 1, 5 * [0, 0, 0, 1]), cell("rac", 1, 20 * [1])], "sft")
    assert verdict(rows, "sft").startswith("No conclusion: one seed")
    settings = {"name": "n", "recipe": "r", "budget": "none", "variants": {}}
    record = {"settings": settings, "task": "math", "conclusion": "w", "cells": []}
    text = to_markdown(comparison_page(record, rows, "sft"))
    assert "one seed |" in text and "of each seed" not in text and "each variant with its own number" in text
