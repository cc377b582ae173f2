"""Multi-token prediction's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...compat import fused_head_errors
from ...errors import describe
from ...training.config import DataArgs


@dataclass
class MTPArgs(DataArgs):
    """How many tokens are predicted at once.

    A head is at first a copy of the model's last layer, with the model's final norm and unembedding. New heads are
    wrong about nearly every token: in the first `mtp_head_only_ratio` of the steps their losses do not reach what they
    share with head 1. 0 is the paper's loss, 1 leaves the model what SFT makes of it.
    """

    RANGES = {"num_future_tokens": (1, None), "mtp_loss_weight": (0, None), "mtp_head_only_ratio": (0, 1)}

    num_future_tokens: int = field(
        default=4, metadata={"help": "n: number of tokens predicted at each position; 1 is SFT."}
    )
    mtp_loss_weight: float = field(default=1.0, metadata={"help": "Weight of the losses of heads 2 to n."})
    mtp_head_only_ratio: float = field(
        default=0.2,
        metadata={"help": "Fraction (0-1) of the steps, at the start, in which heads 2 to n do not train the trunk."},
    )

    def errors(self) -> list[str]:
        errors = super().errors()
        if self.num_future_tokens > 1:
            errors += fused_head_errors() + self._loss_errors()
        return errors

    def _loss_errors(self) -> list[str]:
        """What would take the loss of head 1 alone."""
        errors = []
        if self.loss_type == "dft":
            errors.append(describe("loss_type", "'dft' with num_future_tokens above 1", "'nll'", "Remove the key"))
        if self.label_smoothing_factor:
            errors.append(
                describe(
                    "label_smoothing_factor",
                    "a value with num_future_tokens above 1, which would smooth head 1 alone",
                    "0",
                    "Remove the key",
                )
            )
        parallel = self.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            errors.append(
                describe(
                    "parallelism_config",
                    "rows that are split between processes, apart from the targets of the heads",
                    "complete rows in each process",
                    "Remove the key",
                )
            )
        return errors


FIELDS = MTPArgs
