"""What BASH's rows are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...training.stats import GenerationStats


FEW_REPLACED = 0.1  # per cent


@dataclass(frozen=True)
class BASHStats(GenerationStats):
    """The answer `tokens` of all mixed contexts, how many were `sampled`, and how many differ from the reference
    (`differing`); beside them how many rows are plain, and how many labels behind replaced tokens are `masked`."""

    tokens: int = 0
    sampled: int = 0
    differing: int = 0
    plain_rows: int = 0
    masked: int = 0

    @property
    def sampled_percent(self) -> float:
        """Of the mixed rows' answer tokens, those that were sampled."""
        return 100 * self.sampled / max(1, self.tokens)

    @property
    def replaced_percent(self) -> float:
        """Of the mixed rows' answer tokens, those that differ from the reference."""
        return 100 * self.differing / max(1, self.tokens)

    def summary(self) -> str:
        sampled, replaced = self.sampled_percent, self.replaced_percent
        words = [f"{sampled:.3g} % of the answer tokens sampled, {replaced:.3g} % replaced"] if self.tokens else []
        words += [f"{self.plain_rows} plain rows"] if self.plain_rows else []
        words += [f"{self.masked} labels behind replaced tokens without loss"] if self.masked else []
        return ", ".join(words)

    def metrics(self) -> dict[str, float]:
        return {
            "contexts/tokens": self.tokens,
            "contexts/sampled_share": self.sampled_percent / 100,
            "contexts/replaced_share": self.replaced_percent / 100,
            "contexts/plain_rows": self.plain_rows,
            "contexts/masked": self.masked,
        }

    def warnings(self, args: Any) -> list[str]:
        replaced = self.replaced_percent
        if args.mixture_coefficient == 0 or not self.tokens or replaced >= FEW_REPLACED:
            return []
        if args.coin_pattern is not None and not self.sampled:
            return [f"no token is sampled: coin_pattern {args.coin_pattern!r} leaves no reference token for a coin"]
        return [
            f"only {replaced:.3g} % of the answer tokens are replaced, so that this is nearly SFT: the model draws "
            "what the reference says. Raise mixture_coefficient or temperature, or take data that the model has not "
            "learned"
        ]
