"""Forest plots: the difference of each variant from the control, both intervals and the seeds themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..reporting.plots import COLOURS, new_figure
from .conclusion_text import is_better_lower, label
from .statistics import Difference


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


def draw_differences(
    columns: Mapping[str, Mapping[str, Difference]], scales: Mapping[str, float], control: str, caption: str
) -> Figure:
    """A panel for each score or figure, a line for each variant.

    Args:
        columns: score → variant → its difference from the control.
        scales: what a score's differences are multiplied with; 100 gives points.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    across = max(1, min(_COLUMNS, len(columns)))
    down = max(1, -(-len(columns) // across))
    figure, axes = new_figure(down, across)
    variants = list(dict.fromkeys(variant for differences in columns.values() for variant in differences))
    figure.set_figheight(down * (1.2 + 0.42 * max(2, len(variants))) + 0.9)
    if caption:
        figure.suptitle(caption, fontsize=10)
    for axis, (column, differences) in zip(axes, columns.items(), strict=False):
        _panel(
            axis, column, {variant: differences.get(variant) for variant in variants}, scales.get(column, 1.0), control
        )
    for axis in axes[len(columns) :]:
        axis.set_axis_off()
    handles = [
        Patch(color=COLOURS[0], alpha=0.35, label="95 % over examples"),
        Line2D([], [], color=COLOURS[1], lw=1.6, marker="|", label="95 % over seeds"),
        Line2D([], [], color="0.3", marker="o", ls="", ms=3.5, label="a seed"),
        Line2D([], [], color="black", marker="D", ls="", ms=5, label="mean"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _panel(axis: Axes, column: str, differences: Mapping[str, Difference | None], scale: float, control: str) -> None:
    axis.axvline(0, color="0.3", lw=1)
    for at, less in enumerate(differences.values()):
        if less is None:
            axis.text(0, at, " not measured", fontsize=8, color="0.4", va="center")
            continue
        if less.over_examples:
            low, high = scale * less.over_examples.low, scale * less.over_examples.high
            axis.barh(at, high - low, left=low, height=0.44, color=COLOURS[0], alpha=0.35, lw=0)
        if less.over_seeds:
            ends = (scale * less.over_seeds.low, scale * less.over_seeds.high)
            axis.plot(ends, (at, at), "-|", color=COLOURS[1], lw=1.6, ms=8)
        values = [scale * value for value in less.by_seed.values()]
        axis.plot(values, [at] * len(values), "o", color="0.3", ms=3.5, zorder=3)
        axis.plot(scale * less.mean, at, "D", color="black", ms=5, zorder=4)
    axis.set_yticks(range(len(differences)), list(differences))
    axis.set_ylim(len(differences) - 0.4, -0.6)
    better = "left" if is_better_lower(column) else "right"
    axis.set_title(f"{label(column)}: {better} is better", fontsize=10)
    axis.set_xlabel(f"Δ vs {control} (pp)" if scale == 100 else f"Δ vs {control}")
    axis.use_sticky_edges = False
    axis.autoscale_view(scaley=False)
    axis.grid(axis="y", visible=False)
