"""What SPIN's pairs are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import describe
from ...training.stats import GenerationStats, completion_metrics


@dataclass(frozen=True)
class SPINStats(GenerationStats):
    """The `completions`, how many of them are of the `previous_round_pairs`, were `truncated` at the length limit,
    equal to the reference (left out) or too long for `max_length` (left out)."""

    completions: int = 0
    previous_round_pairs: int = 0
    truncated: int = 0
    exact_match: int = 0
    dropped_overlong: int = 0

    def summary(self) -> str:
        return (
            f"{self.completions} generated completions ({self.previous_round_pairs} of the previous round, "
            f"{self.truncated} truncated; left out: {self.exact_match} equal to the reference, "
            f"{self.dropped_overlong} longer than max_length)"
        )

    def metrics(self) -> dict[str, float]:
        total, *parts = self.counts().items()
        return completion_metrics(total[1], dict(parts))

    def errors(self, args: Any) -> list[str]:
        if self.completions > self.exact_match + self.dropped_overlong:
            return []
        got = f"no pair ({self.exact_match} of {self.completions} equal references, {self.dropped_overlong} long)"
        expected = f"one that differs and fits into max_length {args.max_length}"
        advice = "Raise max_length, lower max_completion_length, or stop if the model writes the references"
        return [describe("completions", got, expected, advice)]
