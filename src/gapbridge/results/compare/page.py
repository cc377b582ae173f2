"""`compare.md`: the words first, then the tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...answers.intervals import Interval
from ...runs.tables import number
from .statistics import Difference
from .summary import Entry, Row
from .words import paragraph


READING = (
    "Means over seeds; behind them what the arm has more than the control, with two 95 % intervals: over examples in "
    "[ ], over seeds in { }. Scores in per cent, differences in points."
)


def differing(rows: Sequence[Row]) -> dict[str, dict[str, Difference]]:
    """Score or figure → row → its difference from the control."""
    found: dict[str, dict[str, Difference]] = {}
    for row in rows:
        for column, entry in (*row.scores.items(), *row.figures.items()):
            if entry.less_control is not None:
                found.setdefault(column, {})[row.name] = entry.less_control
    return found


def page(record: dict[str, Any], rows: Sequence[Row], control: str, picture: str) -> str:
    """The page of a comparison: `record` is what `compare.json` holds."""
    settings = record["settings"]
    seeds = max((len(row.seeds) for row in rows), default=0)
    recipe = f"Recipe `{settings['recipe']}`, graded as {record['task']}, at equal {settings['match']}"
    if settings["match"] == "none":
        recipe = f"Recipe `{settings['recipe']}`, graded as {record['task']}, each arm with its own length"
    lines = [f"# {settings['name']}", "", record["words"], "", f"{recipe}; control: {control}. {READING}", ""]
    lines += [*markdown(*score_table(rows, costs=True)), f"![differences]({picture})", ""]
    if any(row.figures for row in rows):
        lines += ["## The gap", "", *markdown(*figure_table(rows))]
    if any(entry.less_direct for row in rows for entry in row.scores.values()):
        lines += ["## Further modes less the arm's direct answers", "", *_modes(rows)]
    lines += ["## Arms", "", *_arms(record, rows)]
    if seeds > 1:
        lines += ["## Seeds", "", *markdown(*_seeds(rows))]
    return "\n".join(lines)


def verdict(rows: Sequence[Row], control: str) -> str:
    """The paragraph in words."""
    own = [row for row in rows if row.arm == control]
    return paragraph(differing(rows), control, len(own[0].seeds) if own else 0)


def score_table(rows: Sequence[Row], *, costs: bool = False) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the main table."""
    columns = list(dict.fromkeys(column for row in rows for column in row.scores))
    cost = list(dict.fromkeys(key for row in rows for key in row.cost)) if costs else []
    head = ["arm", "seeds", *columns, *cost]
    lines = []
    for row in rows:
        scores = [_cell(row.scores.get(column), 100, 1) for column in columns]
        paid = [_number(row.cost.get(key)) for key in cost]
        lines.append([row.name, str(len(row.seeds)), *scores, *paid])
    return head, lines


def figure_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the gap's table: an arm a column, a figure a line."""
    shown = [row for row in rows if row.figures]
    names = list(dict.fromkeys(name for row in shown for name in row.figures))
    lines = [[name, *(_cell(row.figures.get(name), 1, 3) for row in shown)] for name in names]
    return ["figure", *(row.name for row in shown)], lines


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, lines), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell(entry: Entry | None, scale: float, digits: int) -> str:
    if entry is None:
        return "–"
    return " ".join([f"{scale * entry.mean:.{digits}f}", *_less(entry.less_control, scale, digits)])


def _less(less: Difference | None, scale: float, digits: int) -> list[str]:
    """The difference and its two intervals."""
    if less is None:
        return []

    def ends(interval: Interval, brackets: str) -> str:
        low, high = (f"{scale * value:+.{digits}f}" for value in (interval.low, interval.high))
        return f"{brackets[0]}{low}, {high}{brackets[1]}"

    words = [f"{scale * less.mean:+.{digits}f}"]
    words += [ends(less.over_examples, "[]")] if less.over_examples else []
    return [*words, ends(less.over_seeds, "{}") if less.over_seeds else "{one seed: no interval}"]


def _modes(rows: Sequence[Row]) -> list[str]:
    found = [(row, column, entry) for row in rows for column, entry in row.scores.items() if entry.less_direct]
    lines = [[row.name, column, " ".join(_less(entry.less_direct, 100, 1))] for row, column, entry in found]
    return markdown(["arm", "score", "less direct"], lines)


def _arms(record: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    """What each arm is: its method, settings, start, what its length follows from, and the keys that it lacks."""
    lines = []
    for name, arm in record["settings"]["arms"].items():
        cell = next((cell for cell in record["cells"] if cell["arm"] == name), None)
        own = ", ".join(f"{key}: {value}" for key, value in arm["overrides"].items()) or "–"
        matched = cell["plan"]["match"] if cell else "not run yet"
        dropped = ", ".join(cell["dropped keys"]) if cell else ""
        lines.append([name, arm["method"], own, arm["start"], matched, dropped or "–"])
    return markdown(["arm", "method", "settings of its own", "starts from", "matched", "keys left out"], lines)


def _seeds(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Every score of every seed: seeds vary, and a mean does not show it."""
    seeds = sorted({seed for row in rows for seed in row.seeds})
    lines = []
    for row in rows:
        for column, entry in row.scores.items():
            values = [f"{100 * entry.by_seed[seed]:.1f}" if seed in entry.by_seed else "–" for seed in seeds]
            lines.append([row.name, column, *values])
    return ["arm", "score", *(f"seed {seed}" for seed in seeds)], lines


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)
