"""What RAC's rows are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import GenerationStats


@dataclass(frozen=True)
class RACStats(GenerationStats):
    """The `drafts` used, how many were `capped` at the length limit, `equal` to the reference or `too_long` for
    `max_length` (left out), and the `plain_rows`."""

    drafts: int = 0
    capped: int = 0
    equal: int = 0
    too_long: int = 0
    plain_rows: int = 0

    def summary(self) -> str:
        return (
            f"{self.drafts} drafts ({self.capped} at the length cap, {self.equal} equal to the reference, "
            f"{self.too_long} left out because the row would be longer than max_length), {self.plain_rows} plain rows"
        )

    def metrics(self) -> dict[str, float]:
        parts = {"capped": self.capped, "equal": self.equal, "too_long": self.too_long}
        shares = {f"contexts/{name}_share": count / max(1, self.drafts) for name, count in parts.items()}
        return {"contexts/drafts": self.drafts, **shares, "contexts/plain_rows": self.plain_rows}

    def warnings(self, args: Any) -> list[str]:
        found = []
        for count, what in (
            (self.capped, f"were cut at max_draft_length ({args.max_draft_length} tokens): raise it"),
            (self.too_long, f"make a row longer than max_length ({args.max_length}) and are left out: raise it"),
        ):
            if count:
                found.append(f"{count} of {self.drafts} drafts ({100 * count / self.drafts:.3g} %) {what}")
        return found

    def faults(self, args: Any) -> list[str]:
        if args.reference_rows == 1 or self.drafts > self.too_long:
            return []
        return [
            f"none of {self.drafts} correction rows fits into max_length {args.max_length}: a row holds prompt, "
            "draft, request and answer. Raise max_length or lower max_draft_length"
        ]
