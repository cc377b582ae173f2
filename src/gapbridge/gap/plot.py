"""`gap.png`: one panel a measure, one colour a model, bands for the 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from ..answers.intervals import Interval
from ..files import write_atomic


matplotlib.use("Agg")

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plot_gaps(path: Path, gaps: dict[str, Any]) -> None:
    """Draw the gaps of several models, by name, into one picture."""
    from matplotlib import pyplot as plt

    with_oracle = all(gap.excess_error is not None for gap in gaps.values())
    rows, columns = (2, 2) if with_oracle else (1, 2)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 4.1 * rows + 0.5), squeeze=False)
    for colour, (name, gap) in zip(COLOURS * (1 + len(gaps) // len(COLOURS)), gaps.items(), strict=False):
        curve = gap.recovery
        _band(axes[0][0], curve.k, curve.delta, colour, name)
        decisions = gap.decisions
        centres = [(start + end - 1) / 2 for start, end in zip(decisions.start, decisions.end, strict=True)]
        _band(axes[0][1], centres, _per_cent(decisions.free_running), colour, name)
        axes[0][1].plot(centres, [i.mean for i in _per_cent(decisions.teacher_forced)], "--", color=colour, lw=1.2)
        if with_oracle:
            _band(axes[1][0], gap.excess_error.length, gap.excess_error.excess, colour, name)
            _band(axes[1][1], gap.wrong_steps.steps, _per_cent(gap.wrong_steps.hazard), colour, name)
    _label(axes[0][0], "recovery curve", "own tokens before the reference, k", "Δ(k), nats per token")
    axes[0][0].axhline(0, color="0.6", lw=0.8)
    _label(
        axes[0][1],
        "the reference's token is the likeliest\nsolid: behind own draft, dashed: behind reference",
        "position in the answer, tokens",
        "positions, %",
    )
    if with_oracle:
        _label(axes[1][0], "excess error behind own words", "over the first l positions", "ExAccErr(l), %")
        axes[1][0].axhline(0, color="0.6", lw=0.8)
        _label(axes[1][1], "first wrong step", "step (the last: the result)", "wrong, of those right so far, %")
        axes[1][1].set_xticks(next(iter(gaps.values())).wrong_steps.steps)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.5 / (4.1 * rows + 0.5), 1, 1))
    figure.legend(handles, labels, loc="lower center", ncol=min(4, len(gaps)), frameon=False)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    plt.close(figure)


def _band(axis: Any, x: Sequence[float], intervals: Sequence[Interval], colour: str, name: str) -> None:
    axis.plot(x, [i.mean for i in intervals], "o-", color=colour, label=name, markersize=3.5, lw=1.6)
    axis.fill_between(x, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.18, lw=0)


def _per_cent(intervals: Sequence[Interval]) -> list[Interval]:
    return [Interval(100 * i.mean, 100 * i.low, 100 * i.high) for i in intervals]


def _label(axis: Any, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
