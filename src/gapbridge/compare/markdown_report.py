"""The report of a comparison: a conclusion in a sentence, a table and a forest plot for each score, then details."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..reporting.page import Page, Part, Picture, Section
from ..reporting.tables import Table, estimate, number
from .conclusion_text import conclusion, is_better_lower, label
from .difference_plot import draw_differences
from .statistics import Difference
from .variant_results import MetricCell, VariantResult


READING = (
    "All scores are means over seeds. The interval over examples holds for these very models on other examples. The "
    "interval over seeds holds for models trained with other seeds. `gapbridge report` shows losses, recovery curves "
    "and completions of the runs of a seed side by side."
)


def differing(rows: Sequence[VariantResult]) -> dict[str, dict[str, Difference]]:
    """Score or figure → row → its difference from the control."""
    found: dict[str, dict[str, Difference]] = {}
    for row in rows:
        for column, entry in (*row.scores.items(), *row.figures.items()):
            if entry.delta_vs_control is not None:
                found.setdefault(column, {})[row.name] = entry.delta_vs_control
    return found


def verdict(rows: Sequence[VariantResult], control: str) -> str:
    """The conclusion in one sentence, by the first score."""
    seeds = next((len(row.seeds) for row in rows if row.variant == control), 0)
    return conclusion(differing(rows), control, seeds)


def comparison_page(record: dict[str, Any], rows: Sequence[VariantResult], control: str) -> Page:
    """The report of what `compare.json` holds."""
    settings = record["settings"]
    budget = "each variant with its own number of steps"
    if settings["budget"] != "none":
        budget = f"with equal {settings['budget']}"
    about = f"Recipe {settings['recipe']}, graded as {record['task']}, {budget}. Control: {control}. {READING}"
    differences = differing(rows)
    scores: list[Part] = []
    for table, column in zip(score_tables(rows, control), _columns(rows), strict=True):
        found = differences.get(column)
        scores.append((table, _forest(column, found, control)) if found else table)
    sections = [
        Section("Scores", scores),
        Section("Cost", _cost(rows)),
        Section("Appendix: other decoding modes", _modes(rows)),
        Section("Appendix: gap", _figures(rows, control)),
        Section("Appendix: scores of each seed (%)", _seeds(rows)),
        Section("Appendix: variants", [_variants(record)]),
    ]
    return Page(settings["name"], [record["conclusion"], about], [section for section in sections if section.parts])


def score_tables(rows: Sequence[VariantResult], control: str) -> list[Table]:
    """A table for each score."""
    return [
        Table(
            ["variant", "seeds", *_heads("score (%)", control, "pp")],
            [[row.name, len(row.seeds), *_cells(row.scores[column], 100)] for row in rows if column in row.scores],
            f"{label(column)}, {'lower' if is_better_lower(column) else 'higher'} is better",
        )
        for column in _columns(rows)
    ]


def _columns(rows: Sequence[VariantResult]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.scores))


def _heads(value: str, control: str, unit: str = "") -> list[str]:
    shown = f" ({unit})" if unit else ""
    return [value, f"Δ vs {control}{shown}", f"95 % over examples{shown}", f"95 % over seeds{shown}"]


def _cells(entry: MetricCell, scale: float) -> list[str | None]:
    return [number(scale * entry.mean), *_difference(entry.delta_vs_control, scale)]


def _difference(found: Difference | None, scale: float) -> list[str | None]:
    """A difference and its two intervals."""
    if found is None:
        return [None, None, None]
    examples, seeds = (
        estimate(None if interval is None else vars(interval), scale, sign=True)[1]
        for interval in (found.over_examples, found.over_seeds)
    )
    return [number(scale * found.mean, sign=True), examples, seeds or "one seed"]


def _forest(column: str, differences: dict[str, Difference], control: str) -> Picture:
    name = re.sub(r"[^a-z0-9]+", "-", column.lower()).strip("-")
    figure = draw_differences({column: differences}, {column: 100.0}, control, "")
    return Picture(f"plots/{name}.png", figure, f"Forest plot: {label(column)}, difference from {control}")


def _cost(rows: Sequence[VariantResult]) -> list[Part]:
    keys = list(dict.fromkeys(key for row in rows for key in row.cost))
    return [Table(["variant", *keys], [[row.name, *(row.cost.get(key) for key in keys)] for row in rows if row.cost])]


def _modes(rows: Sequence[VariantResult]) -> list[Part]:
    """Further decoding modes against the direct completions of the same variant."""
    lines = [
        [row.name, label(column), *_difference(entry.delta_vs_single_pass, 100)]
        for row in rows
        for column, entry in row.scores.items()
        if entry.delta_vs_single_pass
    ]
    return [Table(["variant", "score", *_heads("", "single_pass", "pp")[1:]], lines, texts=2)] if lines else []


def _figures(rows: Sequence[VariantResult], control: str) -> list[Part]:
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [[name, row.name, *_cells(row.figures[name], 1)] for name in names for row in rows if name in row.figures]
    found = {name: columns for name, columns in differing(rows).items() if name in names}
    parts: list[Part] = [Table(["figure", "variant", *_heads("value", control)], lines, texts=2)] if lines else []
    if found:
        figure = draw_differences(found, {}, control, "Gap")
        parts.append(Picture("plots/gap-differences.png", figure, f"Forest plots: gap, difference from {control}"))
    return parts


def _seeds(rows: Sequence[VariantResult]) -> list[Part]:
    """Every score of every seed: seeds vary, and a mean does not show it."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    lines = [
        [row.name, label(column), *(100 * entry.by_seed[seed] if seed in entry.by_seed else None for seed in seeds)]
        for row in rows
        for column, entry in row.scores.items()
    ]
    head = ["variant", "score", *(f"seed {seed}" for seed in seeds)]
    return [Table(head, lines, texts=2)] if len(seeds) > 1 else []


def _variants(record: dict[str, Any]) -> Table:
    """What each variant is: its method, settings, start, what its length follows from, and the keys that it lacks."""
    lines = []
    for name, variant in record["settings"]["variants"].items():
        cell = next((cell for cell in record["cells"] if cell["variant"] == name), None)
        own = ", ".join(f"{key}: {value}" for key, value in variant["overrides"].items()) or None
        matched = cell["plan"]["budget"] if cell else "not run yet"
        dropped = ", ".join(cell["ignored_keys"]) if cell else ""
        lines.append([name, variant["method"], own, variant["init_from"], matched, dropped or None])
    head = ["variant", "method", "overrides", "initial model", "budget", "ignored keys"]
    return Table(head, lines, texts=len(head))
