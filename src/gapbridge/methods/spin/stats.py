"""What SPIN's pairs are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import GenerationStats


@dataclass(frozen=True)
class SPINStats(GenerationStats):
    """The `drafts`, how many of them are of the `previous_round`, were `capped` at the length limit, `equal` to the
    reference (left out) or `too_long` for `max_length` (left out)."""

    drafts: int = 0
    previous_round: int = 0
    capped: int = 0
    equal: int = 0
    too_long: int = 0

    def summary(self) -> str:
        return (
            f"{self.drafts} drafts ({self.previous_round} of the round before, {self.capped} at the length cap; left "
            f"out: {self.equal} equal to the reference, {self.too_long} longer than max_length)"
        )

    def faults(self, args: Any) -> list[str]:
        if self.drafts > self.equal + self.too_long:
            return []
        return [
            f"none of {self.drafts} drafts makes a pair: {self.equal} equal the reference, {self.too_long} do not fit "
            f"into max_length {args.max_length}. Raise max_length, lower max_draft_length, or stop here: a model that "
            "writes the references has nothing to learn from SPIN"
        ]
