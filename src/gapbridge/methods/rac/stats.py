"""What RAC's rows are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import describe
from ...training.stats import GenerationStats, completion_metrics


@dataclass(frozen=True)
class RACStats(GenerationStats):
    """The `completions` used, how many were `truncated` at the length limit, equal to the reference or too long for
    `max_length` (left out), and the `sft_rows`."""

    completions: int = 0
    truncated: int = 0
    exact_match: int = 0
    dropped_overlong: int = 0
    sft_rows: int = 0

    def summary(self) -> str:
        return (
            f"{self.completions} generated completions ({self.truncated} truncated, {self.exact_match} equal to the "
            f"reference, {self.dropped_overlong} left out because the row would be longer than max_length), "
            f"{self.sft_rows} SFT rows"
        )

    def metrics(self) -> dict[str, float]:
        parts = {name: self.counts()[name] for name in ("truncated", "exact_match", "dropped_overlong")}
        return {**completion_metrics(self.completions, parts), "contexts/num_sft_rows": self.sft_rows}

    def warnings(self, args: Any) -> list[str]:
        cut = f"were truncated at max_completion_length ({args.max_completion_length} tokens): raise it"
        long = f"make a row longer than max_length ({args.max_length}) and are left out: raise it"
        return [
            f"{count} of {self.completions} completions ({100 * count / self.completions:.3g} %) {what}"
            for count, what in ((self.truncated, cut), (self.dropped_overlong, long))
            if count
        ]

    def errors(self, args: Any) -> list[str]:
        if args.sft_fraction == 1 or self.completions > self.dropped_overlong:
            return []
        got = f"{args.max_length}, into which none of {self.completions} correction rows fits"
        expected = "room for prompt, completion, request and correction"
        return [describe("max_length", got, expected, "Raise max_length or lower max_completion_length")]
