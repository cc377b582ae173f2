"""From the finished cells to rows: every arm in every mode, each score beside the control's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ...answers.modes import DIRECT
from .cells import Record
from .statistics import Difference, difference, difference_of_means, mean_of


@dataclass(frozen=True)
class Entry:
    """A score or figure of a row: mean over seeds, the seeds' own, what it is more than the control's, and in a
    further mode more than the arm's own direct answers."""

    mean: float
    by_seed: dict[int, float]
    less_control: Difference | None = None
    less_direct: Difference | None = None


@dataclass(frozen=True)
class Row:
    """An arm in one mode. `scores` are those of its answers, `figures` those of the gap, `cost` means over seeds."""

    arm: str
    mode: str
    seeds: list[int]
    scores: dict[str, Entry] = field(default_factory=dict)
    figures: dict[str, Entry] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.arm if self.mode == DIRECT else f"{self.arm} ({self.mode})"


def summarise(cells: Sequence[Record], control: str) -> list[Row]:
    """The rows, the control's first; other arms in the order of the suite."""
    arms = dict.fromkeys([control, *(cell["arm"] for cell in sorted(cells, key=lambda cell: cell["order"]))])
    rows = []
    for arm in arms:
        own = [cell for cell in cells if cell["arm"] == arm]
        for mode in dict.fromkeys(mode for cell in own for mode in cell["scores"]):
            scores = {column: _score(cells, arm, mode, column, control) for column in _columns(own, mode)}
            direct = mode == DIRECT
            figures = {name: _figure(cells, arm, name, control) for name in _names(own)} if direct else {}
            cost = _cost(own) if direct else {}
            rows.append(Row(arm, mode, sorted(cell["seed"] for cell in own), scores, figures, cost))
    return rows


def as_records(rows: Sequence[Row]) -> list[Record]:
    """The rows as JSON values."""
    return [asdict(row) for row in rows]


def _columns(cells: Sequence[Record], mode: str) -> list[str]:
    return list(dict.fromkeys(column for cell in cells for column in cell["scores"].get(mode, {})))


def _names(cells: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for cell in cells for name in cell["figures"]))


def _by_seed(cells: Sequence[Record], arm: str, mode: str, column: str) -> dict[int, dict[str, float]]:
    return {
        cell["seed"]: cell["scores"][mode][column]
        for cell in cells
        if cell["arm"] == arm and column in cell["scores"].get(mode, {})
    }


def _score(cells: Sequence[Record], arm: str, mode: str, column: str, control: str) -> Entry:
    own = _by_seed(cells, arm, mode, column)
    # The control's answers in the same mode, or where it was not asked in that, its direct ones.
    other = _by_seed(cells, control, mode, column) or _by_seed(cells, control, DIRECT, column)
    same = arm == control and other == own
    return Entry(
        mean=mean_of(own),
        by_seed={seed: mean_of({seed: values}) for seed, values in own.items()},
        less_control=None if same else difference(other, own),
        less_direct=None if mode == DIRECT else difference(_by_seed(cells, arm, DIRECT, column), own),
    )


def _figure(cells: Sequence[Record], arm: str, name: str, control: str) -> Entry:
    def of(which: str) -> dict[int, Any]:
        return {
            cell["seed"]: cell["figures"][name] for cell in cells if cell["arm"] == which and name in cell["figures"]
        }

    own, other = of(arm), of(control)
    means = {seed: figure["mean"] for seed, figure in own.items()}
    less: Difference | None = None
    if arm != control and all("by_example" in figure for figure in (*own.values(), *other.values())):
        less = difference(*({seed: figure["by_example"] for seed, figure in all.items()} for all in (other, own)))
    elif arm != control:
        less = difference_of_means({seed: figure["mean"] for seed, figure in other.items()}, means)
    return Entry(float(np.mean([*means.values()])), means, less)


def _cost(cells: Sequence[Record]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key in cells[0]["cost"]:
        values = [cell["cost"][key] for cell in cells if cell["cost"][key] is not None]
        found[key] = float(np.mean(values)) if values else None
    return found
