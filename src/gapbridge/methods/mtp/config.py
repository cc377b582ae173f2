"""Multi-token prediction's own keys."""

from __future__ import annotations

from dataclasses import dataclass

from ...compat import fused_head_errors
from ...errors import describe
from ...training.config import DataArgs, option


@dataclass
class MTPArgs(DataArgs):
    """How many tokens are predicted at once.

    A head is at first a copy of the model's last layer, with the model's final norm and unembedding. New heads are
    wrong about nearly every token: in the first `mtp_head_only_ratio` of the steps their losses do not reach what they
    share with head 1. 0 is the paper's loss, 1 leaves the model what SFT makes of it.
    """

    RANGES = {"num_future_tokens": (1, None), "mtp_loss_weight": (0, None), "mtp_head_only_ratio": (0, 1)}

    num_future_tokens: int = option(4, "n: number of tokens predicted at each position; 1 is SFT.")
    mtp_loss_weight: float = option(1.0, "Weight of the losses of heads 2 to n.")
    mtp_head_only_ratio: float = option(
        0.2, "Fraction (0-1) of the steps, at the start, in which heads 2 to n do not train the trunk."
    )

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        if self.num_future_tokens == 1:
            return errors
        smoothing, several = self.label_smoothing_factor, "with num_future_tokens above 1"
        cases = (  # what would take the loss of head 1 alone
            (self.loss_type == "dft", "loss_type", f"'dft' {several}", "'nll'"),
            (smoothing != 0, "label_smoothing_factor", f"{smoothing} {several}", "0"),
            (self.splits_rows, "parallelism_config", f"rows split between processes {several}", "complete rows"),
        )
        errors += [describe(key, got, wanted, "Remove the key") for holds, key, got, wanted in cases if holds]
        return errors + fused_head_errors()


FIELDS = MTPArgs
