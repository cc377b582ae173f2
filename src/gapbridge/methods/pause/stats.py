"""What the rows with pauses are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import GenerationStats


@dataclass(frozen=True)
class PauseStats(GenerationStats):
    """The `rows`, their `pauses`, and for random placement how many rows have no room for all of them (`incomplete`),
    how many `missing_pauses` that makes, and how many rows are `truncated` to `max_length` with them."""

    rows: int = 0
    pauses: int = 0
    incomplete: int = 0
    missing_pauses: int = 0
    truncated: int = 0

    def summary(self) -> str:
        incomplete = f", {self.incomplete} rows without room for all pauses" if self.incomplete else ""
        truncated = f", {self.truncated} rows truncated because of their pauses" if self.truncated else ""
        return f"{self.pauses} pauses in {self.rows} rows{incomplete}{truncated}"

    def warnings(self, args: Any) -> list[str]:
        if self.missing_pauses <= self.pauses:
            return []
        return [
            f"only {self.pauses} of {self.pauses + self.missing_pauses} pauses have room within max_length "
            f"{args.max_length}, so that this is nearly SFT. Set truncate_overlong: true, which cuts rows as the "
            "paper does, or raise max_length"
        ]
