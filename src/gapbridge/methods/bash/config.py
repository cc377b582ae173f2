"""BASH's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...decoding.options import DrawOptions
from ...training.config import DrawFields, ExampleFields


@dataclass
class BASHFields(DrawFields, ExampleFields):
    r"""How contexts are mixed; rounds and sampling are those of [`~gapbridge.training.config.DrawFields`].

    Args:
        mixture_coefficient (`float`, *optional*, defaults to `0.2`):
            β, the probability that a position of the context holds the model's own token. 0 is SFT.
        suppress_tokens (`list[int]`, *optional*):
            Token ids never sampled into a context. Defaults to the stop tokens, all special tokens and ids beyond the
            tokenizer's.
        lookahead (`int`, *optional*, defaults to `16`):
            The most tokens a row is fed in one pass. No influence on the contexts.
    """

    FREE = frozenset({"lookahead"})

    mixture_coefficient: float = field(default=0.2, metadata={"help": "β: share of positions sampled from the model."})
    suppress_tokens: list[int] | None = field(
        default=None, metadata={"help": "Token ids never sampled into a context."}
    )
    lookahead: int = field(default=16, metadata={"help": "Most tokens a row is fed in one generation pass."})

    def faults(self) -> list[str]:
        faults = super().faults()
        if not 0 <= self.mixture_coefficient <= 1:
            faults.append(f"mixture_coefficient is {self.mixture_coefficient}: it must lie in [0, 1]")
        return faults

    def draw_options(self, suppress_tokens: tuple[int, ...] = (), **more: int) -> DrawOptions:
        return super().draw_options(suppress_tokens, lookahead=self.lookahead, **more)


FIELDS = BASHFields
