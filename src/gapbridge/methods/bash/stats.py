"""What BASH's rows are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import MIN_REPLACED_FRAC, GenerationStats


@dataclass(frozen=True)
class BASHStats(GenerationStats):
    """The answer `tokens` of all mixed contexts, how many were `sampled`, and how many differ from the reference
    (`replaced`); beside them how many rows are plain, and how many labels after replaced tokens are masked
    (`masked_labels`)."""

    tokens: int = 0
    sampled: int = 0
    replaced: int = 0
    sft_rows: int = 0
    masked_labels: int = 0

    @property
    def sampled_frac(self) -> float:
        """Of the completion tokens in mixed contexts, the fraction that was sampled."""
        return self.sampled / max(1, self.tokens)

    @property
    def replaced_frac(self) -> float:
        return self.replaced / max(1, self.tokens)

    def summary(self) -> str:
        sampled, replaced = 100 * self.sampled_frac, 100 * self.replaced_frac
        words = [f"{sampled:.3g} % of the answer tokens sampled, {replaced:.3g} % replaced"] if self.tokens else []
        words += [f"{self.sft_rows} SFT rows"] if self.sft_rows else []
        words += [f"{self.masked_labels} labels after replaced tokens without loss"] if self.masked_labels else []
        return ", ".join(words)

    def metrics(self) -> dict[str, float]:
        return {
            "contexts/num_completion_tokens": self.tokens,
            "contexts/sampled_frac": self.sampled_frac,
            "contexts/replaced_frac": self.replaced_frac,
            "contexts/num_sft_rows": self.sft_rows,
            "contexts/num_masked_labels": self.masked_labels,
        }

    def warnings(self, args: Any) -> list[str]:
        if args.mixture_coefficient == 0 or not self.tokens or self.replaced_frac >= MIN_REPLACED_FRAC:
            return []
        return [
            f"only {100 * self.replaced_frac:.3g} % of the answer tokens are replaced, so this is nearly SFT: the "
            "model samples the reference tokens. Raise mixture_coefficient or temperature, or use data that the model "
            "has not learned"
        ]
