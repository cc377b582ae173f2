"""Configuration of BASH."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...training.config import SelfGenerationConfig


@dataclass
class BASHConfig(SelfGenerationConfig):
    r"""
    Configuration for [`BASHTrainer`]: everything of [`~trl.SFTConfig`], rounds and sampling of
    [`~gapbridge.config.SelfGenerationConfig`], and how contexts are mixed.

    Args:
        mixture_coefficient (`float`, *optional*, defaults to `0.2`):
            β, the probability that a position of the context holds the model's own token. 0 is SFT.
        suppress_tokens (`list[int]`, *optional*):
            Token ids never sampled into a context. Defaults to the stop tokens, all special tokens and ids beyond the
            tokenizer's.
        lookahead (`int`, *optional*, defaults to `16`):
            The most tokens a row is fed in one pass. No influence on the contexts.
    """

    mixture_coefficient: float = field(default=0.2, metadata={"help": "β: share of positions sampled from the model."})
    suppress_tokens: list[int] | None = field(
        default=None, metadata={"help": "Token ids never sampled into a context."}
    )
    lookahead: int = field(default=16, metadata={"help": "Most tokens a row is fed in one generation pass."})

    def faults(self) -> list[str]:
        faults = super().faults()
        if not 0 <= self.mixture_coefficient <= 1:
            faults.append(f"mixture_coefficient is {self.mixture_coefficient}: it must lie in [0, 1]")
        if self.lookahead < 1:
            faults.append(f"lookahead is {self.lookahead}: it must be at least 1")
        return faults
