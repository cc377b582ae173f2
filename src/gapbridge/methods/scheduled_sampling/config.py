"""Scheduled sampling's own keys."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...errors import ConfigError
from ...training.config import DataArgs, SamplingArgs
from .schedules import SCHEDULES


EXACT = "exact"


@dataclass
class ScheduledSamplingArgs(SamplingArgs, DataArgs):
    """How contexts are mixed in a training step.

    One sampling pass samples every position after the reference, K passes each after the samples of the pass before,
    and `"exact"` goes on until nothing changes, which is the definition.
    """

    RANGES = {"mixture_coefficient": (0, 1)}

    mixture_coefficient: float = field(
        default=0.2,
        metadata={"help": "β: largest probability (0-1) that a position of the context is sampled; 0 is SFT."},
    )
    mixture_schedule: str = field(
        default="constant",
        metadata={
            "help": "Schedule from 0 to β over training: constant, linear or inverse_sigmoid.",
            "choices": list(SCHEDULES),
        },
    )
    # With `None` among its types TRL's parser leaves a value from the command line a string.
    num_sampling_passes: int | str | None = field(
        default=1,
        metadata={"help": "Number of sampling passes in each step: 1, 2, … or exact (until no token changes)."},
    )
    suppress_tokens: list[int] | None = field(
        default=None,
        metadata={"help": "Token ids that are never sampled; default: all special tokens and stop tokens."},
    )

    def __post_init__(self) -> None:
        if isinstance(self.num_sampling_passes, str) and self.num_sampling_passes.isdecimal():
            self.num_sampling_passes = int(self.num_sampling_passes)
        super().__post_init__()

    def errors(self) -> list[str]:
        errors = super().errors()
        full = isinstance(self.num_sampling_passes, int) and self.num_sampling_passes >= 1
        if self.num_sampling_passes != EXACT and not full:
            errors.append(f"num_sampling_passes is {self.num_sampling_passes!r}: give 1, 2, … or {EXACT}")
        for key in ("packing", "padding_free"):
            if vars(self)[key]:
                errors.append(
                    f"{key} is true: a step mixes contexts row by row, and must see where rows begin; leave it off"
                )
        parallel = self.parallelism_config
        if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
            errors.append(
                "parallelism_config cuts rows between processes: a step mixes contexts in whole rows; leave it off"
            )
        try:
            self.sampling_params()
        except ConfigError as error:
            errors += error.errors
        return errors


FIELDS = ScheduledSamplingArgs
