"""Pictures: one look for all of them, and the losses of one or several runs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import atomic_file


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart; the markers tell them apart without colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")  # one fewer: no look comes again before the 43rd name
_MANY = 40  # points on a line, more than that need no markers

LOSSES = {"loss": "training loss", "eval_loss": "eval loss", "eval_generated_loss": "eval loss (generated contexts)"}


def new_figure(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` × `columns` panels, and the panels row by row. Needs no display and sets nothing global."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, 3.8 * rows + 0.5), layout="constrained")
    axes = [axis for row in figure.subplots(rows, columns, squeeze=False) for axis in row]
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def label(axis: Axes, title: str, better: str, x: str, y: str) -> None:
    """Title and axes of a panel; `better` is lower or higher."""
    axis.set_title(f"{title}: {better} is better", fontsize=10)
    axis.set(xlabel=x, ylabel=y)


def legend(figure: Figure, look: Mapping[str, tuple[str, str]], styles: Mapping[str, Any]) -> None:
    """A legend below the panels: name → colour and marker, then meaning → line style."""
    from matplotlib.lines import Line2D

    handles = [
        *(Line2D([], [], color=colour, marker=marker, label=name) for name, (colour, marker) in look.items()),
        *(Line2D([], [], color="0.3", linestyle=style, label=name) for name, style in styles.items()),
    ]
    inches = 0.7 + 0.075 * max(map(len, (*look, *styles)))
    rows = -(-len(handles) // max(1, int(figure.get_figwidth() / inches)))
    columns = -(-len(handles) // rows)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, format="png")
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(to_png(figure))


def looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each name."""
    return dict(zip(names, zip(cycle(COLOURS), cycle(MARKERS)), strict=False))


def draw_losses(runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Figure | None:
    """Training and held-out losses over the optimizer steps, the rounds of a run one after the other.

    Args:
        runs: name → round → log entries.

    Returns:
        None where no loss was logged.
    """
    points = {name: _points(rounds) for name, rounds in runs.items()}
    sampled = {key for lines in points.values() for key, _ in lines}
    if not sampled:
        return None
    panels = {"training loss": ("loss",), "eval loss": ("eval_loss", "eval_generated_loss")}
    panels = {title: keys for title, keys in panels.items() if sampled & {*keys}}
    figure, axes = new_figure(1, len(panels))
    look, styles = looks(list(runs)), {"loss": "-", "eval_loss": "-", "eval_generated_loss": "--"}
    steps = "optimizer step" + (", a line for each round" if max(map(len, runs.values())) > 1 else "")
    for axis, (title, keys) in zip(axes, panels.items(), strict=True):
        for name, lines in points.items():
            colour, marker = look[name]
            for key, line in lines:
                if key in keys:
                    shown = marker if len(line) <= _MANY else ""
                    axis.plot(*zip(*line, strict=True), styles[key], color=colour, marker=shown, ms=4, lw=1.5)
        label(axis, title, "lower", steps, "nats per token")
        _spread(axis)
    legend(figure, look, {LOSSES[key]: style for key, style in styles.items() if key in sampled and key != "loss"})
    blind = [name for name, lines in points.items() if all(key == "loss" for key, _ in lines)]
    if blind:
        figure.suptitle(f"no evaluation was logged: {', '.join(blind)}", fontsize=9, color="0.3", wrap=True)
    return figure


def _points(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[str, list[tuple[int, float]]]]:
    """The lines of a run, (key, points): a line ends with its round, because the next one has other contexts."""
    lines, before = [], 0
    for entries in rounds:
        for key in LOSSES:
            line = [(before + entry["step"], entry[key]) for entry in entries if key in entry]
            if line:
                lines.append((key, line))
        before += max((entry["step"] for entry in entries if "step" in entry), default=0)
    return lines


def _spread(axis: Axes) -> None:
    """Whole steps; a logarithmic scale where losses lie far apart, as after generated and after reference contexts."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = axis.dataLim.intervaly
    if 0 < 4 * low < high:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
