"""What the rows of a part were made from, as one object that is returned with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar


MIN_REPLACED_FRAC = 0.001  # of the completion tokens in mixed contexts. With fewer, training is nearly SFT
Stats = TypeVar("Stats", bound="GenerationStats")


def completion_metrics(total: int, parts: Mapping[str, int]) -> dict[str, float]:
    """The number of generated completions, and of each part its fraction."""
    found = {"count": total, **{f"{name}_frac": count / max(1, total) for name, count in parts.items()}}
    return {f"completions/{key}": value for key, value in found.items()}


@dataclass(frozen=True)
class GenerationStats:
    """Counts by name. A method's subclass has a field for each count, the total first, and says what they mean.

    The counts of two sets of rows add up: `a + b` are those of both.
    """

    def __add__(self: Stats, other: Stats) -> Stats:
        return type(self)(**{name: count + vars(other)[name] for name, count in vars(self).items()})

    def counts(self) -> dict[str, int]:
        """The counts by name, in the order of the fields."""
        return dict(vars(self))

    def metrics(self) -> dict[str, float]:
        """What the trainer logs when training starts."""
        counts = {f"num_{name}": count for name, count in self.counts().items()}
        return {f"contexts/{key}": count for key, count in counts.items()}

    @property
    def replaced_frac(self) -> float | None:
        """Of the completion tokens in mixed contexts, the fraction that differs from the reference. None: the method
        mixes no contexts."""
        return None

    def summary(self) -> str:
        """The counts in words."""
        return ", ".join(f"{name} {count}" for name, count in self.counts().items())

    def warnings(self, args: Any) -> list[str]:
        """What a user should know of, each with the key to change."""
        return []

    def errors(self, args: Any) -> list[str]:
        """Why there is nothing to train on, where that is so."""
        return []
