"""What a comparison found, in words, by rule."""

from __future__ import annotations

from collections.abc import Mapping

from ..reporting.evaluations import score_label
from .statistics import Difference, leaves_out_zero


LOWER_IS_BETTER = ("recovery", "decisions.drop", "cer")


def is_better_lower(column: str) -> bool:
    """Whether less of a score or figure is better."""
    return column.startswith(LOWER_IS_BETTER)


def label(column: str) -> str:
    """`token_f1, T = 1` as a reader knows it."""
    name, comma, how = column.partition(",")
    return score_label(name) + comma + how


def conclusion(columns: Mapping[str, Mapping[str, Difference]], control: str, seeds: int) -> str:
    """One sentence, by the first score; arguments as for `paragraph`."""
    found = next(iter(columns.items()), None)
    if found is None:
        return f"There is nothing to compare: {control} is the only variant."
    if seeds == 1:
        return "No conclusion: one seed cannot show how much scores move from seed to seed; give at least three."
    return _sentence(*found, control)


def paragraph(columns: Mapping[str, Mapping[str, Difference]], control: str, seeds: int) -> str:
    """A sentence for each column: what is better and what is worse than the control, and what is no different.

    Args:
        columns: score → variant → its difference from the control. control: its name. seeds: how many it was trained
            with.
    """
    if not any(columns.values()):
        return f"There is nothing to compare: {control} is the only variant."
    if seeds == 1:
        return (
            "No conclusion: one seed. Training with another seed moves scores, too, and by how much cannot be seen "
            f"here: give at least three. Differences from {control} that leave out 0 over the examples: "
            f"{_one_seed(columns)}."
        )
    shown = {column: differences for column, differences in columns.items() if differences}
    nulls = [column for column, found in shown.items() if all(less.verdict == "null" for less in found.values())]
    sentences = [_sentence(column, found, control) for column, found in shown.items() if column not in nulls]
    if nulls:
        sentences.append(f"No difference from {control} shown for any variant: {'; '.join(map(label, nulls))}.")
    note = "Better and worse mean that 0 lies outside both 95 % intervals, over examples and over seeds."
    return " ".join([*sentences, note])


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


def _one_seed(columns: Mapping[str, Mapping[str, Difference]]) -> str:
    found = [
        f"{variant} in {label(column)}"
        for column, differences in columns.items()
        for variant, difference in differences.items()
        if difference.over_examples and leaves_out_zero(difference.over_examples)
    ]
    return ", ".join(found) or "none"
