"""What BASH's rows are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import GenerationStats


MIN_REPLACED_FRACTION = 0.1  # percent


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
    def sampled_percent(self) -> float:
        """Of the mixed rows' answer tokens, those that were sampled."""
        return 100 * self.sampled / max(1, self.tokens)

    @property
    def replaced_percent(self) -> float:
        """Of the mixed rows' answer tokens, those that differ from the reference."""
        return 100 * self.replaced / max(1, self.tokens)

    def summary(self) -> str:
        sampled, replaced = self.sampled_percent, self.replaced_percent
        words = [f"{sampled:.3g} % of the answer tokens sampled, {replaced:.3g} % replaced"] if self.tokens else []
        words += [f"{self.sft_rows} plain rows"] if self.sft_rows else []
        words += [f"{self.masked_labels} labels behind replaced tokens without loss"] if self.masked_labels else []
        return ", ".join(words)

    def metrics(self) -> dict[str, float]:
        return {
            "contexts/num_completion_tokens": self.tokens,
            "contexts/sampled_frac": self.sampled_percent / 100,
            "contexts/replaced_frac": self.replaced_percent / 100,
            "contexts/num_sft_rows": self.sft_rows,
            "contexts/num_masked_labels": self.masked_labels,
        }

    def warnings(self, args: Any) -> list[str]:
        replaced = self.replaced_percent
        if args.mixture_coefficient == 0 or not self.tokens or replaced >= MIN_REPLACED_FRACTION:
            return []
        if args.sampling_token_regex is not None and not self.sampled:
            return [
                f"no token is sampled: sampling_token_regex {args.sampling_token_regex!r} leaves no reference token "
                f"for a coin"
            ]
        return [
            f"only {replaced:.3g} % of the answer tokens are replaced, so that this is nearly SFT: the model draws "
            "what the reference says. Raise mixture_coefficient or temperature, or take data that the model has not "
            "learned"
        ]
