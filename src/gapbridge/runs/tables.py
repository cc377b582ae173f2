"""Tables of reports: what is compared stands in columns, what is told of it in rows.

The same lines are Markdown in a file and a table in a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any


WIDTH = 100
_CELL = 46  # two of them fit into WIDTH

Columns = Mapping[str, Mapping[str, Any]]


def table(corner: str, columns: Columns) -> list[str]:
    """The lines of an aligned table, at most `WIDTH` wide, and an empty line.

    A missing value is a dash, and a row of dashes is left out. Columns that do not fit beside the others follow in a
    table below.

    Args:
        corner: what stands over the names of the rows.
        columns: name of the column → name of the row → value. The rows keep the order in which they come.
    """
    rows = [
        row
        for row in dict.fromkeys(chain(*columns.values()))
        if any(column.get(row) is not None for column in columns.values())
    ]
    first = _column(corner, rows)
    lines: list[str] = []
    block = [first]
    for column in [_column(name, [values.get(row) for row in rows]) for name, values in columns.items()]:
        if len(block) > 1 and len(_lines([*block, column])[0]) > WIDTH:
            lines += [*_lines(block), ""]
            block = [first]
        block.append(column)
    return [*lines, *_lines(block), ""]


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def share(part: float, whole: float) -> str | None:
    """Per cent with four significant digits; None of nothing."""
    return f"{number(100 * part / whole)} %" if whole else None


def short(text: str, length: int = _CELL) -> str:
    """A text without its middle where it is too long: the ends of paths and the beginnings of sentences tell most."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length - length // 2) :]}"


def _column(name: str, values: list[Any]) -> list[str]:
    cells = [short(_text(value)) for value in (name, *values)]
    width = max(3, *map(len, cells))
    return [cell.ljust(width) for cell in (cells[0], "-" * width, *cells[1:])]


def _lines(columns: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True)]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return number(value)
    return str(value).replace("|", "\\|").replace("\n", " ")
