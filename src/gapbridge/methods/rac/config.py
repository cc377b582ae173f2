"""RAC's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...training.config import ExampleFields
from ...training.draft_config import DraftFields


CORRECTION_PROMPT = "Check your answer step by step and write the correct answer."


@dataclass
class RACFields(DraftFields, ExampleFields):
    r"""How the model is asked to correct itself; drafts are drawn as
    [`~gapbridge.training.draft_config.DraftFields`] says.

    Args:
        correction_prompt (`str`, *optional*):
            The request between draft and reference: a user turn in chat data, a line of text in plain data.
        reference_rows (`float`, *optional*, defaults to `0.5`):
            Share in [0, 1] of plain rows, prompt → reference, among all rows. They keep the first answer from
            decaying. 1 is SFT.
    """

    wraps_rows = False

    correction_prompt: str = field(
        default=CORRECTION_PROMPT, metadata={"help": "The request that stands between draft and reference."}
    )
    reference_rows: float = field(
        default=0.5, metadata={"help": "Share of plain rows (prompt → reference), in [0, 1]."}
    )

    def faults(self) -> list[str]:
        faults = super().faults()
        for name in ("assistant_only_loss", "completion_only_loss"):
            if not vars(self)[name]:
                faults.append(
                    f"{name} is false: RAC learns to correct an answer, and a whole row has none; leave it out"
                )
        if not 0 <= self.reference_rows <= 1:
            faults.append(f"reference_rows is {self.reference_rows}: it must lie in [0, 1]")
        if not self.correction_prompt.strip():
            faults.append("correction_prompt is empty: the model could not tell a correction from an answer")
        return faults


FIELDS = RACFields
