"""Shares and means over all that was counted between two log entries: a mean of means depends on the batches."""

from __future__ import annotations

from collections import defaultdict


class Ratios:
    """Numerators and denominators by mode (`train`, `eval`) and name, added up until they are logged."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, list[float]]] = {"train": {}, "eval": {}}

    def add(self, mode: str, name: str, numerator: float, denominator: float) -> None:
        sums = self._sums[mode].setdefault(name, [0.0, 0.0])
        sums[0] += numerator
        sums[1] += denominator

    def move_to(self, metrics: dict[str, defaultdict[str, list[float]]], mode: str) -> None:
        """Give TRL's `_metrics` what was added up for a mode, each as its only value, and begin again."""
        for name, (numerator, denominator) in self._sums[mode].items():
            if denominator:
                metrics[mode][name] = [numerator / denominator]
        self._sums[mode].clear()
