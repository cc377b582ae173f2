"""Multi-token prediction's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...compat import fused_head_faults
from ...training.config import ExampleFields


KINDS = ("layer", "linear")


@dataclass
class MTPFields(ExampleFields):
    """How many tokens are predicted at once, and by which heads.

    Args:
        num_future_tokens (`int`, *optional*, defaults to `4`):
            n: how many tokens behind a position are predicted, each by a head of its own. 1 is SFT.
        future_head (`str`, *optional*, defaults to `"layer"`):
            What heads 2 to n are: `"layer"`, a transformer layer of the model's own class, at first a copy of its
            last, with the model's final norm and unembedding (the paper's); or `"linear"`, an unembedding of its own
            on the model's final hidden states, at first a copy of the model's.
        sequential_heads (`bool`, *optional*, defaults to `True`):
            Run heads 2 to n forward and backward one after another, so that the memory of one is needed. The losses
            and gradients are the same.
        head_loss_weight (`float`, *optional*, defaults to `1.0`): What the losses of heads 2 to n weigh.
        head_warmup_ratio (`float`, *optional*, defaults to `0.2`):
            The share of the steps in which heads 2 to n learn by themselves, and their losses do not reach what they
            share with head 1. New heads are wrong about nearly every token. 0 is the paper's loss from the first step
            on, 1 leaves the model what SFT makes of it.
    """

    num_future_tokens: int = field(default=4, metadata={"help": "n: how many tokens are predicted at once; 1 is SFT."})
    future_head: str = field(
        default="layer",
        metadata={"help": "What heads 2 to n are: layer or linear.", "choices": list(KINDS)},
    )
    sequential_heads: bool = field(
        default=True, metadata={"help": "Run heads 2 to n forward and backward one after another."}
    )
    head_loss_weight: float = field(default=1.0, metadata={"help": "What the losses of heads 2 to n weigh."})
    head_warmup_ratio: float = field(
        default=0.2, metadata={"help": "Share of the steps in which heads 2 to n leave the model alone."}
    )

    def faults(self) -> list[str]:
        faults = super().faults()
        if self.num_future_tokens < 1:
            faults.append(f"num_future_tokens is {self.num_future_tokens}: it must be at least 1")
        if self.future_head not in KINDS:
            faults.append(f"future_head is {self.future_head!r}: choose one of {', '.join(KINDS)}")
        if not self.head_loss_weight >= 0:
            faults.append(f"head_loss_weight is {self.head_loss_weight}: it must be 0 or larger")
        if not 0 <= self.head_warmup_ratio <= 1:
            faults.append(f"head_warmup_ratio is {self.head_warmup_ratio}: it must lie in [0, 1]")
        if self.num_future_tokens > 1:
            faults += fused_head_faults() + self._loss_faults()
        return faults

    def _loss_faults(self) -> list[str]:
        """What would take the loss of head 1 alone."""
        faults = []
        if self.loss_type == "dft":
            faults.append("loss_type is 'dft': with num_future_tokens above 1 the loss is 'nll'")
        if self.label_smoothing_factor:
            faults.append("label_smoothing_factor: with num_future_tokens above 1 it would smooth head 1 alone")
        parallel = self.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            faults.append(
                "parallelism_config cuts rows between processes: a head's targets would be with another process"
            )
        return faults


FIELDS = MTPFields
