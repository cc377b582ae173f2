"""RAC's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...training.completion_config import CompletionArgs
from ...training.config import DataArgs


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

    correction_prompt: str = field(
        default=CORRECTION_PROMPT,
        metadata={"help": "Request that follows the generated completion and precedes the reference."},
    )
    sft_fraction: float = field(
        default=0.5, metadata={"help": "Fraction (0-1) of rows without a correction (prompt → reference); 1 is SFT."}
    )

    def errors(self) -> list[str]:
        errors = super().errors()
        for name in ("assistant_only_loss", "completion_only_loss"):
            if not vars(self)[name]:
                errors.append(
                    f"{name} is false: RAC learns to correct an answer, and a whole row has none; leave it out"
                )
        if not self.correction_prompt.strip():
            errors.append("correction_prompt is empty: the model could not tell a correction from an answer")
        return errors


FIELDS = RACArgs
