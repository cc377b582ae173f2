"""Plain text as token ids, with what a tokenizer adds by itself kept off the place where an answer starts or ends.

Some tokenizers put a BOS token before a text, and some an EOS token after it (`add_eos_token`, or a post-processor).
A prompt that ends with EOS is a finished document: a model that is asked with it answers nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextEncoder:
    """Encodes prompts and rows of plain text for one tokenizer.

    Attributes:
        before: the ids that the tokenizer adds before a text, such as BOS. What it adds after one is left out.
    """

    tokenizer: PreTrainedTokenizerBase
    before: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
        """The encoder of a tokenizer as it is set now."""
        special = set(tokenizer.all_special_ids)
        for index in range(len(tokenizer)):  # there are tokenizers that can encode nothing but their own words
            probe = "" if index in special else str(tokenizer.decode([index]))
            if not probe.isalnum():
                continue
            own = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
            full = list(tokenizer(probe)["input_ids"])
            for start in range(len(full) - len(own) + 1) if own else ():
                if full[start : start + len(own)] == own:
                    return cls(tokenizer, tuple(full[:start]))
        return cls(tokenizer, ())

    def ids(self, text: str) -> list[int]:
        """A text as ids: with BOS once where the tokenizer adds one, and never with an EOS that the text lacks."""
        own = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        spelled = bool(self.before) and own[: len(self.before)] == list(self.before)
        return own if spelled else [*self.before, *own]

    def closed(self, text: str) -> str:
        """A text that ends with the EOS token once.

        White space after an EOS that the text spells out is no part of an answer, nor is a second EOS.
        """
        eos = str(self.tokenizer.eos_token)
        bare = text.rstrip()
        if not bare.endswith(eos):
            return text + eos
        while bare.endswith(eos):
            text = bare.removesuffix(eos)
            bare = text.rstrip()
        return text + eos


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """What a model is asked with a text: see `TextEncoder.ids`."""
    return TextEncoder.of(tokenizer).ids(text)
