"""What the rows with pauses are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import GenerationStats


@dataclass(frozen=True)
class PauseStats(GenerationStats):
    """The `rows`, their `pauses`, and for random placement in how many rows there is no room for all of them
    (`short`), how many pauses are `missing` there, and how many rows are `cut` to `max_length` with them."""

    rows: int = 0
    pauses: int = 0
    short: int = 0
    missing: int = 0
    cut: int = 0

    def summary(self) -> str:
        short = f", {self.short} rows without room for all pauses" if self.short else ""
        cut = f", {self.cut} rows truncated because of their pauses" if self.cut else ""
        return f"{self.pauses} pauses in {self.rows} rows{short}{cut}"

    def warnings(self, args: Any) -> list[str]:
        if self.missing <= self.pauses:
            return []
        return [
            f"only {self.pauses} of {self.pauses + self.missing} pauses have room within max_length "
            f"{args.max_length}, so that this is nearly SFT. Set truncate_overlong: true, which cuts rows as the "
            "paper does, or raise max_length"
        ]
