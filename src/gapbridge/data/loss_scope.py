"""Which tokens of a row carry loss."""

from __future__ import annotations

from dataclasses import dataclass


LESS_THAN_TRL = "unlike TRL's default"  # in the words for what TRL's own defaults train more of


@dataclass(frozen=True)
class LossScope:
    """Which tokens of a row are trained; `build_examples` says what the flags are."""

    all_turns: bool = True
    assistant_only: bool = True
    completion_only: bool = True

    def on_whole(self, form: str) -> bool:
        """Whether rows of a form are trained from their first token on."""
        if form in ("messages", "conversations"):
            return not self.assistant_only
        return form == "text" or (form == "pair" and not self.completion_only)

    def in_words(self, form: str) -> str:
        if form == "ids":
            return "`labels`, or what completion_mask and assistant_masks mark, or all tokens"
        if self.on_whole(form):
            return "every token of a row, as in TRL"
        if form == "pair":
            return "completions; prompts carry none (completion_only_loss: false trains them, too)"
        turns = "assistant turns" if self.all_turns else "the last assistant turn"
        return f"{turns} only, {LESS_THAN_TRL}; assistant_only_loss: false trains whole rows"
