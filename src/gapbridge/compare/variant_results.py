"""From the finished cells to rows: every variant in every mode, each score beside the control's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..generation.decoding_modes import SINGLE_PASS
from .run_records import Record
from .statistics import Difference, difference, difference_of_means, pooled_mean


@dataclass(frozen=True)
class MetricCell:
    """A score or figure of a row: mean over seeds, the seeds' own, what it is more than the control's, and in a
    further mode more than the variant's own single-pass answers."""

    mean: float
    by_seed: dict[int, float]
    delta_vs_control: Difference | None = None
    delta_vs_single_pass: Difference | None = None


@dataclass(frozen=True)
class VariantResult:
    """A variant in one mode. `scores` are those of its answers, `figures` those of the gap, `cost` means over
    seeds."""

    variant: str
    mode: str
    seeds: list[int]
    scores: dict[str, MetricCell] = field(default_factory=dict)
    figures: dict[str, MetricCell] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.variant if self.mode == SINGLE_PASS else f"{self.variant} ({self.mode})"


def summarize_variants(cells: Sequence[Record], control: str) -> list[VariantResult]:
    """The rows, the control's first; other variants in the order of the experiment."""
    variants = dict.fromkeys([control, *(cell["variant"] for cell in sorted(cells, key=lambda cell: cell["order"]))])
    rows = []
    for variant in variants:
        own = [cell for cell in cells if cell["variant"] == variant]
        for mode in dict.fromkeys(mode for cell in own for mode in cell["scores"]):
            scores = {column: _score(cells, variant, mode, column, control) for column in _columns(own, mode)}
            direct = mode == SINGLE_PASS
            names = dict.fromkeys(name for cell in own for name in cell["figures"])
            figures = {name: _figure(cells, variant, name, control) for name in names} if direct else {}
            cost = _cost(own) if direct else {}
            rows.append(VariantResult(variant, mode, sorted(cell["seed"] for cell in own), scores, figures, cost))
    return rows


def _columns(cells: Sequence[Record], mode: str) -> list[str]:
    return list(dict.fromkeys(column for cell in cells for column in cell["scores"].get(mode, {})))


def _by_seed(cells: Sequence[Record], variant: str, mode: str, column: str) -> dict[int, dict[str, float]]:
    return {
        cell["seed"]: cell["scores"][mode][column]
        for cell in cells
        if cell["variant"] == variant and column in cell["scores"].get(mode, {})
    }


def _score(cells: Sequence[Record], variant: str, mode: str, column: str, control: str) -> MetricCell:
    own, direct = (_by_seed(cells, variant, asked, column) for asked in (mode, SINGLE_PASS))
    # The control's answers in the same mode, or where it was not asked in that, its direct ones.
    other = _by_seed(cells, control, mode, column) or _by_seed(cells, control, SINGLE_PASS, column)
    by_seed = {seed: pooled_mean({seed: values}) for seed, values in own.items()}
    from_control = None if variant == control and other == own else difference(other, own)
    from_direct = None if mode == SINGLE_PASS else difference(direct, own)
    return MetricCell(pooled_mean(own), by_seed, from_control, from_direct)


def _figure(cells: Sequence[Record], variant: str, name: str, control: str) -> MetricCell:
    def of(which: str) -> dict[int, Any]:
        own = [cell for cell in cells if cell["variant"] == which and name in cell["figures"]]
        return {cell["seed"]: cell["figures"][name] for cell in own}

    own, other = of(variant), of(control)
    means, others = ({seed: figure["mean"] for seed, figure in each.items()} for each in (own, other))
    less: Difference | None = None
    if variant != control and all("by_example" in figure for figure in (*own.values(), *other.values())):
        less = difference(*({seed: figure["by_example"] for seed, figure in each.items()} for each in (other, own)))
    elif variant != control:
        less = difference_of_means(others, means)
    return MetricCell(float(np.mean([*means.values()])), means, less)


def _cost(cells: Sequence[Record]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for key in cells[0]["cost"]:
        values = [cell["cost"][key] for cell in cells if cell["cost"][key] is not None]
        found[key] = float(np.mean(values)) if values else None
    return found
