"""SPIN's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...training.config import PairFields
from ...training.draft_config import DraftFields


@dataclass
class SPINFields(DraftFields, PairFields):
    r"""How pairs are made; drafts are drawn as [`~gapbridge.training.draft_config.DraftFields`] says.

    Args:
        beta (`float`, *optional*, defaults to `0.1`):
            λ, how strongly the model is held to the weights that the round starts from. With 0 it stays there.
        previous_round (`bool`, *optional*, defaults to `True`):
            Train the pairs of the round before along, from the second round on. They are read from that round's
            store, `../round_<k-1>` of the round's own directory.
    """

    beta: float = field(
        default=0.1, metadata={"help": "λ: how strongly the model is held to the weights of the round's start."}
    )
    previous_round: bool = field(
        default=True, metadata={"help": "Train the pairs of the round before along, from the second round on."}
    )

    def faults(self) -> list[str]:
        faults = super().faults()
        if not self.beta >= 0:
            faults.append(f"beta is {self.beta}: it must be 0 or larger")
        if self.loss_type != ["sigmoid"]:
            faults.append(f"loss_type is {', '.join(self.loss_type)}: SPIN's is sigmoid")
        for name in ("precompute_ref_log_probs", "sync_ref_model"):
            if vars(self)[name]:
                faults.append(
                    f"{name} is true: SPIN's reference is the model at the start of the round; set it to false"
                )
        if not self.eval_own_contexts and self.eval_strategy != "no":
            faults.append(
                "eval_own_contexts is false: SPIN's held-out pairs hold own drafts, and nothing is left to evaluate; "
                "set it to true, or eval_strategy to 'no'"
            )
        return faults


FIELDS = SPINFields
