"""Tables of reports: one object, shown as Markdown, on a terminal, or in an HTML page.

Every figure has a column of its own, with four significant digits; its unit stands in the head or in the row's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..display import printable


WIDTH = 100
_CELL = 52  # characters; the longest label of our own has 50
INTERVAL = "95 % interval"

Columns = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """A table: a head and rows of as many cells. The first `texts` columns hold text, the others figures.

    A cell is a number, a text or None, which is shown as a dash.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    texts: int = 1

    @property
    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[_text(value) for value in row] for row in self.rows]


def in_columns(corner: str, columns: Columns, title: str = "") -> Table:
    """A table with what is compared in columns; a row without any value is left out.

    Args:
        corner: the head of the first column, which has the names of the rows.
        columns: name of the column → name of the row → value. The rows keep the order in which they come.
    """
    names = dict.fromkeys(chain(*columns.values()))
    rows = [[name, *(column.get(name) for column in columns.values())] for name in names]
    rows = [row for row in rows if any(value is not None for value in row[1:])]
    return Table([corner, *columns], rows, title, texts=1 + len(columns))


def markdown(table: Table) -> list[str]:
    """The lines of an aligned table and an empty line."""
    cells = table.cells
    columns = [
        _column(name, [row[at] for row in cells], is_text=at < table.texts)
        for at, name in enumerate(map(str, table.head))
    ]
    lines = [f"| {' | '.join(line)} |" for line in zip(*columns, strict=True)]
    return [*([f"**{_escaped(table.title)}**", ""] if table.title else []), *lines, ""]


def print_table(table: Table) -> None:
    """Print a table below its title; text may be folded. Figures are not, so that a table may be wider than a page."""
    shown, cells = RichTable(box=SIMPLE_HEAD, show_edge=False, padding=0), table.cells
    for at, name in enumerate(table.head):
        if at < table.texts:
            shown.add_column(Text(printable(name)), overflow="fold")
        else:
            words = [*name.split(), *(printable(row[at]) for row in cells)]
            widest = max(map(cell_len, words), default=0)
            shown.add_column(Text(printable(name)), justify="right", min_width=widest)
    for row in cells:
        texts, figures = row[: table.texts], row[table.texts :]
        shown.add_row(*(Text(printable(cell)) for cell in texts), *(Text(printable(c), no_wrap=True) for c in figures))
    if table.title:
        console().print(printable(table.title), highlight=False, markup=False, soft_wrap=True)
    page = console()
    page.print(shown, width=max(page.width, page.measure(shown).minimum), crop=False)


def console() -> Console:
    """The terminal, or where there is none a page of `WIDTH` columns."""
    return Console() if Console().is_terminal else Console(width=WIDTH)


def number(value: float, *, sign: bool = False) -> str:
    """Four significant digits; a dash for what is not finite."""
    if not math.isfinite(value):
        return "–"
    plus = "+" if sign and value else ""
    value = value or 0.0  # no minus before a zero
    return f"{value:{plus},.0f}" if abs(value) >= 1000 else f"{value:{plus}.4g}"


def estimate(interval: Mapping[str, float] | None, scale: float = 1, *, sign: bool = False) -> list[str | None]:
    """Two cells, a mean and its 95 % interval, both times `scale`; dashes where there is none.

    Args:
        interval: with `mean`, `low` and `high`.
        sign: whether a plus is written, for differences.
    """
    if interval is None:
        return [None, None]
    mean, low, high = (number(scale * interval[key], sign=sign) for key in ("mean", "low", "high"))
    return [mean, f"[{low}, {high}]"]


def short(text: str, length: int = _CELL) -> str:
    """A text without its middle where it is too long: the ends of paths and the beginnings of sentences tell most."""
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-(length - length // 2) :]}"


def short_name(name: str, names: Sequence[str]) -> str:
    """The last part of a path where that is enough to tell the models apart."""
    last = Path(name).name
    return last if sum(Path(other).name == last for other in set(names)) == 1 else name


def _column(name: str, values: Sequence[str], *, is_text: bool) -> list[str]:
    cells = [_escaped(short(value)) for value in (name, *values)]
    width = max(3, *map(len, cells))
    if is_text:
        return [cell.ljust(width) for cell in (cells[0], "-" * width, *cells[1:])]
    return [cell.rjust(width) for cell in (cells[0], "-" * (width - 1) + ":", *cells[1:])]


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return number(value)
    return str(value)


def _escaped(text: str) -> str:
    """As Markdown shows it in one line; text of data makes neither cells nor tags."""
    return printable(text).replace("|", "\\|").replace("<", "\\<").replace("\n", " ").replace("\t", " ")
