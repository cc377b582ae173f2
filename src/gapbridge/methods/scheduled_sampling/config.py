"""Scheduled sampling's own keys."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import ConfigError, describe
from ...training.config import DataArgs, SamplingArgs, option


EXACT = "exact"
SCHEDULES = ("constant", "linear")


@dataclass
class ScheduledSamplingArgs(SamplingArgs, DataArgs):
    """How contexts are mixed in a training step.

    One sampling pass samples every position after the reference, K passes each after the samples of the pass before,
    and `"exact"` goes on until nothing changes, which is the definition.
    """

    RANGES = {"mixture_coefficient": (0, 1)}

    mixture_coefficient: float = option(
        0.2, "β: largest probability (0-1) that a position of the context is sampled; 0 is SFT."
    )
    mixture_schedule: str = option(
        "constant", "Schedule of β over training: constant, or linear from 0 to β.", choices=SCHEDULES
    )
    # With `None` among its types TRL's parser leaves a value from the command line a string.
    num_sampling_passes: int | str | None = option(
        1, "Number of sampling passes in each step: 1, 2, … or exact (until no token changes)."
    )
    suppress_tokens: list[int] | None = option(
        None, "Token ids that are never sampled; default: all special tokens and stop tokens."
    )

    def __post_init__(self) -> None:
        if isinstance(self.num_sampling_passes, str) and self.num_sampling_passes.isdecimal():
            self.num_sampling_passes = int(self.num_sampling_passes)
        super().__post_init__()

    def own_errors(self) -> list[str]:
        errors: list[str] = []
        full = isinstance(self.num_sampling_passes, int) and self.num_sampling_passes >= 1
        if self.num_sampling_passes != EXACT and not full:
            errors.append(
                describe(
                    "num_sampling_passes", f"{self.num_sampling_passes!r}", f"1, 2, … or {EXACT}", "Correct the value"
                )
            )
        cases = (
            (self.packing, "packing", "true, so that the borders of rows are lost", "false"),
            (self.padding_free, "padding_free", "true, so that the borders of rows are lost", "false"),
            (self.splits_rows, "parallelism_config", "rows that are split between processes", "complete rows"),
        )
        errors += [describe(key, got, wanted, "Remove the key") for holds, key, got, wanted in cases if holds]
        try:
            self.sampling_params()
        except ConfigError as error:
            errors += error.errors
        return errors


FIELDS = ScheduledSamplingArgs
