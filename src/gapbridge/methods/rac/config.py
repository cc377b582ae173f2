"""RAC's own keys."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import describe
from ...training.completion_config import CompletionArgs
from ...training.config import DataArgs, option


CORRECTION_PROMPT = "Check your answer step by step and write the correct answer."


@dataclass
class RACArgs(CompletionArgs, DataArgs):
    """How the model is asked to correct itself; completions are sampled as
    [`~gapbridge.training.completion_config.CompletionArgs`] says.

    The request is a user turn in chat data and a line of text in plain data. The plain rows of `sft_fraction` keep the
    first answer from decaying.
    """

    wraps_rows = False
    RANGES = {"sft_fraction": (0, 1)}

    correction_prompt: str = option(
        CORRECTION_PROMPT, "Request that follows the generated completion and precedes the reference."
    )
    sft_fraction: float = option(0.5, "Fraction (0-1) of rows without a correction (prompt → reference); 1 is SFT.")

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        got = "false, so that rows have no completion to correct"
        for name in ("assistant_only_loss", "completion_only_loss"):
            if not vars(self)[name]:
                errors.append(describe(name, got, "true", "Remove the key"))
        if not self.correction_prompt.strip():
            errors.append(describe("correction_prompt", "an empty text", "a request", "Add the text"))
        return errors


FIELDS = RACArgs
