"""BASH's own keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ...decoding.options import DrawOptions
from ...training.config import DrawFields, ExampleFields


REPLACEMENTS = ("model", "uniform", "unigram")


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

        > Controls and research options of this package; none is the paper's

        replacement (`str`, *optional*, defaults to `"model"`):
            What stands in a context where it is not the reference: the model's own tokens, or as many random ones in
            each example, `"uniform"` over the vocabulary or `"unigram"`, as often as in the references.
        reference_rows (`float`, *optional*, defaults to `0.0`):
            Share in [0, 1] of examples that are trained on the reference context. 1 is SFT.
        final_reference_epochs (`float`, *optional*, defaults to `0.0`):
            So many epochs at the end of each round are trained on reference contexts, in the same training run. Of
            `max_steps` it is the share `final_reference_epochs / num_train_epochs`.
        coin_pattern (`str`, *optional*):
            A regular expression: coins fall on those reference tokens only in whose text it is found.
        mask_after_replaced (`int`, *optional*, defaults to `0`):
            So many labels behind each replaced token carry no loss.
        context_model (`list[str]`, *optional*):
            A model that draws the contexts instead of the current weights; of several, each draws for one fold of the
            examples (see `leave_out_fold`).
    """

    FREE = frozenset({"lookahead"})

    mixture_coefficient: float = field(default=0.2, metadata={"help": "β: share of positions sampled from the model."})
    suppress_tokens: list[int] | None = field(
        default=None, metadata={"help": "Token ids never sampled into a context."}
    )
    lookahead: int = field(default=16, metadata={"help": "Most tokens a row is fed in one generation pass."})
    replacement: str = field(
        default="model",
        metadata={
            "help": "Tokens that replace: the model's, or as many random ones (control).",
            "choices": list(REPLACEMENTS),
        },
    )
    reference_rows: float = field(
        default=0.0, metadata={"help": "Share of examples trained on the reference context, in [0, 1]."}
    )
    final_reference_epochs: float = field(
        default=0.0, metadata={"help": "Epochs at the end of each round on reference contexts."}
    )
    coin_pattern: str | None = field(
        default=None, metadata={"help": "Coins fall only on tokens in whose text this regular expression is found."}
    )
    mask_after_replaced: int = field(default=0, metadata={"help": "Labels without loss behind each replaced token."})
    context_model: list[str] | None = field(
        default=None, metadata={"help": "Model that draws the contexts instead; several: one for each fold."}
    )

    def __post_init__(self) -> None:
        if isinstance(self.context_model, str):
            self.context_model = [self.context_model]
        super().__post_init__()

    def faults(self) -> list[str]:
        faults = super().faults()
        if not 0 <= self.mixture_coefficient <= 1:
            faults.append(f"mixture_coefficient is {self.mixture_coefficient}: it must lie in [0, 1]")
        if self.replacement not in REPLACEMENTS:
            faults.append(f"replacement is {self.replacement!r}: choose one of {', '.join(REPLACEMENTS)}")
        if not 0 <= self.reference_rows <= 1:
            faults.append(f"reference_rows is {self.reference_rows}: it must lie in [0, 1]")
        if self.mask_after_replaced < 0:
            faults.append(f"mask_after_replaced is {self.mask_after_replaced}: it must be 0 (off) or larger")
        faults += self._final_epochs_faults()
        if self.coin_pattern is not None:
            try:
                re.compile(self.coin_pattern)
            except re.error as error:
                faults.append(f"coin_pattern is {self.coin_pattern!r}: no regular expression ({error})")
        paths = self.context_model
        if paths is not None and (not paths or not all(paths) or len(set(paths)) < len(paths)):
            faults.append(f"context_model is {paths}: give a model, or a different one for each fold")
        if self.reference_rows == 1:
            idle = [name for name, value in self._mixing_options().items() if value]
            if idle:
                faults.append(
                    f"reference_rows is 1, so that no context is mixed and {', '.join(idle)} would have no effect: "
                    "leave them out, or lower reference_rows"
                )
        return faults

    def _final_epochs_faults(self) -> list[str]:
        final, faults = self.final_reference_epochs, []
        epochs = min([self.num_train_epochs] if self.round_epochs is None else self.round_epochs, default=0)
        if not 0 <= final <= epochs:
            faults.append(
                f"final_reference_epochs is {final}: it must lie between 0 and the epochs of a round, {epochs:g}"
                + (" (of max_steps it is that share of num_train_epochs)" if self.max_steps > 0 else "")
            )
        if final and self.mask_after_replaced:
            faults.append(
                "final_reference_epochs trains on the labels as contexts, mask_after_replaced takes labels away: keep "
                "one"
            )
        return faults

    def _mixing_options(self) -> dict[str, bool]:
        """The options that only act on mixed contexts, and whether each is set."""
        return {
            "replacement": self.replacement != "model",
            "final_reference_epochs": self.final_reference_epochs > 0,
            "coin_pattern": self.coin_pattern is not None,
            "mask_after_replaced": self.mask_after_replaced > 0,
            "context_model": self.context_model is not None,
        }

    def draw_options(self, suppress_tokens: tuple[int, ...] = (), **more: int) -> DrawOptions:
        return super().draw_options(suppress_tokens, lookahead=self.lookahead, **more)


FIELDS = BASHFields
