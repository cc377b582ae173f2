"""`gap.png`: one panel a measure, one colour and marker a model, bands for the 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .plots import label, legend, looks, new_figure


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_gaps(models: Mapping[str, Mapping[str, Any]], caption: str) -> Figure:
    """The gaps of several models (name → its entry in `gap.json`) in one picture with the title `caption`."""
    with_oracle = [gap for gap in models.values() if gap["excess_error"]]
    with_errors = {name: gap["forced_errors"] for name, gap in models.items() if gap.get("forced_errors")}
    figure, axes = new_figure(1 + bool(with_oracle) + bool(with_errors), 2)
    figure.suptitle(caption, fontsize=10)
    look = looks(list(models))
    for name, gap in models.items():
        curve, decisions, excess, steps = (
            gap[key] for key in ("recovery", "decisions", "excess_error", "wrong_steps")
        )
        _band(axes[0], curve["k"][1:], curve["delta"][1:], look[name])  # k = 0 is 0 and has no place on a log axis
        centres = [(start + end - 1) / 2 for start, end in zip(decisions["start"], decisions["end"], strict=True)]
        _band(axes[1], centres, decisions["free_running"], look[name], scale=100)
        forced = [100 * interval["mean"] for interval in decisions["teacher_forced"]]
        axes[1].plot(centres, forced, "--", color=look[name][0], lw=1.2)
        if excess:
            _band(axes[2], excess["length"], excess["excess"], look[name])
            _band(axes[3], steps["steps"], steps["hazard"], look[name], scale=100)
    label(axes[0], "recovery curve", "lower", "generated tokens before the reference, k", "Δ(k) (nats per token)")
    label(axes[1], "top-1 accuracy", "higher", "position in the completion (tokens)", "reference token first (%)")
    _halves(axes[0])
    if with_oracle:
        label(axes[2], "excess error after generated prefixes", "lower", "first l positions", "ExAccErr(l) (%)")
        label(axes[3], "first wrong step", "lower", "step, the result last", "wrong, of those right so far (%)")
        axes[3].set_xticks(max((gap["wrong_steps"]["steps"] for gap in with_oracle), key=len))
        _halves(axes[2])
    if with_errors:
        _recovery(axes[-2:], with_errors, look)
    legend(figure, look, {"free-running": "-", "teacher-forced": "--"})
    return figure


def _recovery(
    axes: Sequence[Axes], models: Mapping[str, Mapping[str, Any]], look: Mapping[str, tuple[str, str]]
) -> None:
    """What is recovered after a forced error, by its position; final answers too where all references have one."""
    final = all(forced_errors["final_right"] for forced_errors in models.values())
    second = ("final_right", "final answer after a forced error", "right (%)") if final else None
    second = second or ("edit_recovered", "recovery by edit distance after a forced error", "recovered (%)")
    first = ("tokens_recovered", "token recovery after a forced error", "recovered (%)")
    for axis, (key, title, unit) in zip(axes, (first, second), strict=True):
        for name, forced_errors in models.items():
            known = [
                (100 * at, one)
                for at, one in zip(forced_errors["places"], forced_errors[key]["at"], strict=True)
                if one
            ]
            _band(axis, [at for at, _ in known], [one for _, one in known], look[name], scale=100)
        label(axis, title, "higher", "position of the error (% of the reference)", unit)


def _band(
    axis: Axes, x: Sequence[float], intervals: Sequence[Mapping[str, float]], look: tuple[str, str], scale: float = 1
) -> None:
    mean, low, high = ([scale * interval[key] for interval in intervals] for key in ("mean", "low", "high"))
    colour, marker = look
    axis.plot(x, mean, "-", marker=marker, color=colour, markersize=4, lw=1.6)
    axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)


def _halves(axis: Axes) -> None:
    """A log₂ axis with the lengths that were measured as its ticks, and a line at 0 of y."""
    ticks: list[int] = []
    for length in np.unique(np.concatenate([line.get_xdata() for line in axis.lines])):
        if not ticks or length >= 1.4 * ticks[-1]:  # else their numbers run into each other
            ticks.append(int(length))
    axis.set_xscale("log", base=2)
    axis.minorticks_off()
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.axhline(0, color="0.4", lw=0.8)
