"""The pause method's own keys."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import describe
from ...training.config import DataArgs, option


PLACEMENTS = ("after_prompt", "random")
PAUSE_TOKEN = "<|pause|>"


@dataclass
class PauseArgs(DataArgs):
    """Where pauses stand in the rows, and how their token begins.

    The tokenizer keeps `num_pause_tokens`, and whatever asks the model later puts as many after the prompt; in a chat
    at the start of the assistant's turn. A reserved special token as `pause_token` saves growing the vocabulary. Rows
    of a new token begin, in the embeddings and the output head, as the mean of all others.
    """

    RANGES = {"num_pause_tokens": (0, None)}

    num_pause_tokens: int = option(10, "M: number of pause tokens between prompt and completion; 0 is SFT.")
    pause_token: str = option(PAUSE_TOKEN, "Text of the pause token; a new one is added to the vocabulary.")
    pause_placement: str = option(
        "after_prompt",
        "Position of the pause tokens: after the prompt, or random (pause-pretraining).",
        choices=PLACEMENTS,
    )
    pause_fraction: float = option(
        0.1, "Number of pause tokens as a fraction (0-1) of the tokens of a row, for random placement."
    )

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        if not 0 <= self.pause_fraction < 1:
            expected = "a number from 0 to below 1"
            errors.append(describe("pause_fraction", self.pause_fraction, expected, "Correct the value"))
        if self.trains_whole_rows and self.pauses_after_prompt:
            keys, got = "assistant_only_loss and completion_only_loss", "false, so that rows have no prompt"
            expected = "true with pause_placement: after_prompt"
            errors.append(describe(keys, got, expected, "Set pause_placement: random, or remove the keys"))
        if not self.pause_token.strip():
            errors.append(describe("pause_token", "an empty text", "a token such as <|pause|>", "Correct the value"))
        return errors

    @property
    def at_random(self) -> bool:
        return self.pause_placement == "random"

    @property
    def pauses_after_prompt(self) -> int:
        """How many stand after each prompt."""
        return 0 if self.at_random else self.num_pause_tokens

    @property
    def has_pauses(self) -> bool:
        """Whether there are any: without, this is SFT, and nothing is added to the model."""
        return self.pause_fraction > 0 if self.at_random else self.num_pause_tokens > 0


FIELDS = PauseArgs
