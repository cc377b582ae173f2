"""What a comparison found, in words, by rule."""

from __future__ import annotations

from collections.abc import Mapping

from ..reporting.evaluations import score_label
from .statistics import Difference


LOWER_IS_BETTER = ("recovery", "decisions.drop", "cer")


def is_better_lower(column: str) -> bool:
    """Whether less of a score or figure is better."""
    return column.startswith(LOWER_IS_BETTER)


def label(column: str) -> str:
    """`token_f1, T = 1` as a reader knows it."""
    name, comma, how = column.partition(",")
    return score_label(name) + comma + how


def conclusion(columns: Mapping[str, Mapping[str, Difference]], control: str, seeds: int) -> str:
    """One sentence, by the first score: what is better and worse than the control, and what is no different.

    Args:
        columns: score → variant → its difference from the control. seeds: how many it was trained with.
    """
    found = next(iter(columns.items()), None)
    if found is None:
        return f"There is nothing to compare: {control} is the only variant."
    if seeds == 1:
        return "No conclusion: one seed cannot show how much scores move from seed to seed; give at least three."
    return _sentence(*found, control)


def _sentence(column: str, differences: Mapping[str, Difference], control: str) -> str:
    found: dict[str, list[str]] = {"better": [], "worse": [], "null": [], "one seed": []}
    for variant, difference in differences.items():
        verdict = difference.verdict
        if verdict in ("higher", "lower"):
            verdict = "better" if (verdict == "lower") == is_better_lower(column) else "worse"
        found[verdict].append(variant)
    parts = [
        f"{verdict} than {control}: {', '.join(found[verdict])}" for verdict in ("better", "worse") if found[verdict]
    ]
    if found["null"]:
        parts.append(f"no difference shown: {', '.join(found['null'])}")
    if found["one seed"]:
        parts.append(f"no conclusion, one seed: {', '.join(found['one seed'])}")
    return f"{label(column)}: {'; '.join(parts)}."
